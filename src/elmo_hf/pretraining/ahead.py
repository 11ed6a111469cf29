"""What the next updates read, made by a thread while the GPU works on this one."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, Generic, TypeVar

from elmo_hf.corpus.encoded_windows import EncodedWindows
from elmo_hf.corpus.windows import Window, Windows
from elmo_hf.pretraining.captured import Prepared

PREPARING = 3  # threads that look up what the next updates on a GPU read
Item = TypeVar("Item")
AHEAD = 3  # items that wait


class Ahead(Generic[Item]):
    """The items of a generator, which a thread asks for.

    An error of the generator is raised when its item is asked for.

    Attributes:
        waited: seconds that `next` has waited for items.
    """

    def __init__(self, make: Callable[[], Generator[Item, None, None]]) -> None:
        self.waited = 0.0
        self._make = make
        self._thread: threading.Thread | None = None
        self._items: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(AHEAD)
        self._is_closed = threading.Event()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._thread is None:
            # A thread that hangs in reading must not keep the program from ending.
            self._thread = threading.Thread(target=self._fill, daemon=True)
            self._thread.start()
        asked = time.perf_counter()
        item, error = self._items.get()
        self.waited += time.perf_counter() - asked
        if error is not None:
            self._items.put((None, error))  # for whoever asks again
            raise error
        return item

    def _fill(self) -> None:
        items = self._make()
        try:
            for item in items:
                self._put(item, None)
                if self._is_closed.is_set():
                    return
            self._put(None, StopIteration())
        except BaseException as error:
            self._put(None, error)
        finally:
            items.close()

    def _put(self, item: Any, error: BaseException | None) -> None:
        while not self._is_closed.is_set():
            try:
                self._items.put((item, error), timeout=0.1)
                return
            except queue.Full:
                continue

    def close(self) -> None:
        """End the thread and the generator."""
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join()


def grouped(windows: Windows | EncodedWindows, size: int) -> Generator[list[Window], None, None]:
    """The windows of one update each, without end. After this process's last word they are empty, as other
    processes may still have text."""
    group = []
    for window in windows:
        group.append(window)
        if len(group) == size:
            yield group
            group = []
    assert windows.empty_window is not None
    while True:
        yield group + [windows.empty_window] * (size - len(group))
        group = []


def prepared_in_turn(
    groups: Generator[list[Window], None, None],
    prepare: Callable[[list[Window], int], Prepared | None],
    step: int,
) -> Generator[tuple[list[Window], Prepared | None], None, None]:
    """The windows of one update each, from a step on, with what `prepare` makes of them in some threads."""
    waiting: deque[tuple[list[Window], Future[Prepared | None]]] = deque()
    error: Exception | None = None
    with closing(groups), ThreadPoolExecutor(PREPARING) as pool:
        while True:
            if error is None:
                try:
                    windows = next(groups)
                    waiting.append((windows, pool.submit(prepare, windows, step)))
                    step += 1
                except Exception as failure:  # after the updates before it
                    error = failure
            if error is not None and not waiting:
                raise error
            if error is not None or len(waiting) > PREPARING:
                windows, future = waiting.popleft()
                yield windows, future.result()
