"""What the next updates read, made by a thread while the GPU works on this one."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

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
