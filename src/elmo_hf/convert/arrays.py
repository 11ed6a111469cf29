"""Named arrays in a file from anywhere, whatever its format; each format's reader is a subclass.

arrays.check_array("softmax/b", (793471,))    # its shape and type, before any number is read
arrays.read_into(tensor, "softmax/b")         # in blocks; NaN and what float32 cannot hold are refused
"""

from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
import torch

from elmo_hf.errors import ElmoError

LONGEST_NAME = 100  # in messages
BLOCK_OF_NUMBERS = 1 << 24

Shape = tuple[int, ...]
Own = TypeVar("Own", bound="Arrays")


class Arrays:
    """The arrays of a file by their names; a context manager. A subclass reads one format.

    Args:
        path: the file, for messages.
    """

    noun = "dataset"  # what the format calls an array
    other_options = "give the options that belong to these weights"  # what to do about another name or shape

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""

    # ---- what a format knows

    @property
    def names(self) -> set[str]:
        raise NotImplementedError

    def shape(self, name: str) -> Shape | None:
        """None if there is no such array."""
        raise NotImplementedError

    def dtype(self, name: str) -> np.dtype:
        """The type of an array that is there."""
        raise NotImplementedError

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Some rows of an array that is there; all of an array without dimensions."""
        raise NotImplementedError

    # ---- what all formats share

    def count(self, pattern: str) -> int:
        """How many numbers follow each other from 0 on in names like "layer_{}.weight"."""
        names, number = self.names, 0
        while pattern.format(number) in names:
            number += 1
        return number

    def check_nothing_else(self, names: Collection[str]) -> None:
        for name in sorted(self.names):
            if name not in names:
                advice = f"{self.other_options}, or remove it"
                raise self.error(name, "has no place in the model that the options describe", advice)

    def check_array(self, name: str, shape: Shape) -> None:
        """Raise unless the file holds this array in this shape. None of its numbers is read."""
        actual = self.shape(name)
        if actual is None:
            raise self.error(name, f"of shape {shape} is missing", self.other_options)
        if actual != shape:
            raise self.error(name, f"must have shape {shape}, but has {actual}", self.other_options)
        dtype = self.dtype(name)
        if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
            raise self.error(
                name, f"must hold float32 numbers, but holds {dtype!s:.40}", "export it as float32"
            )

    def read_into(self, target: torch.Tensor, name: str, first_row: int = 0) -> None:
        """Fill `target` with rows of a checked array from `first_row` on, a block at a time."""
        if target.dim() == 0:
            target.fill_(self._as_float32(name, self.rows(name, 0, 1)).item())
            return
        step = max(1, BLOCK_OF_NUMBERS // target[0].numel())
        for start in range(0, len(target), step):
            block = target[start : start + step]
            values = self.rows(name, first_row + start, first_row + start + len(block))
            block.copy_(torch.from_numpy(self._as_float32(name, values)))

    def _as_float32(self, name: str, values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            raise self.error(
                name, "holds NaN or infinite values", "take a checkpoint from before they appeared"
            )
        with np.errstate(over="ignore", under="ignore"):
            rounded = values.astype(np.float32, copy=False)
        if not np.array_equal(rounded, values):
            raise self.error(
                name, f"holds {values.dtype} values that float32 cannot hold", "round it to float32"
            )
        return rounded

    # ---- errors

    def place(self, name: str) -> str:
        short = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "..."
        return f"{self.path}: {self.noun} {short!r}"

    def error(self, name: str, fault: str, advice: str = "export the file again") -> ElmoError:
        return ElmoError(f"{self.place(name)} {fault}; {advice}.")
