"""New HDF5 files, on a disk that may be full.

    with Hdf5Output(path) as output:
        output.add("a", data=array)

When a write fails, the HDF5 library tries again while it closes the file, and once more while the process
ends, and then it may crash. So it writes through a file that reports no error: it keeps the first one, and
`add` and the end of the block raise it.
"""

import io
import signal
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py


class ErrorKeepingFile(io.FileIO):
    """A file that is open to write and read, and keeps the first error in place of raising it.

    What comes after the error is held in memory, where the writer reads it back.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: BaseException | None = None
        self._blocks: list[tuple[int, bytes]] = []  # (start, content), of what is not on the disk

    def write(self, data: Any) -> int:
        start, content = self.tell(), memoryview(data).cast("B")
        try:
            written = len(content) if self.error else 0
            while written < len(content):
                written += super().write(content[written:])
        except OSError as error:
            self.error = error
        if self.error:
            self._blocks.append((start, bytes(content)))
            self.seek(start + len(content))
        return len(content)

    def readinto(self, buffer: Any) -> int:
        start, content = self.tell(), memoryview(buffer).cast("B")
        count = super().readinto(content)
        end = start + len(content)
        for block_start, block in self._blocks:
            first, last = max(start, block_start), min(end, block_start + len(block))
            if first < last:
                content[first - start : last - start] = block[first - block_start : last - block_start]
                count = max(count, last - start)
        self.seek(start + count)
        return count

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


class Hdf5Output:
    """A new HDF5 file as a context manager. Equal arrays in the same order are equal bytes."""

    def __init__(self, path: Path) -> None:
        self._target = ErrorKeepingFile(path)
        self._file = h5py.File(self._target, "w")
        is_main = threading.current_thread() is threading.main_thread()
        self._delays_ctrl_c = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def add(self, name: str, *arguments: Any, **options: Any) -> h5py.Dataset:
        """`create_dataset`; raises what a write has failed with, here or before."""
        dataset = self._file.create_dataset(name, *arguments, track_times=False, **options)
        self._raise_error()
        return dataset

    def __enter__(self) -> "Hdf5Output":
        if self._delays_ctrl_c:  # inside of the library's calls it would be as bad as a failing write
            signal.signal(signal.SIGINT, self._keep_ctrl_c)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            self._file.close()
            self._target.close()
        finally:
            if self._delays_ctrl_c:
                signal.signal(signal.SIGINT, signal.default_int_handler)
        if error is None:
            self._raise_error()

    def _keep_ctrl_c(self, *_: Any) -> None:
        self._target.error = KeyboardInterrupt()

    def _raise_error(self) -> None:
        if self._target.error is not None:
            raise self._target.error
