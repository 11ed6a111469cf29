"""Large memory, kept for the next who needs as much.

    gates = empty(x, 2048, 4096)   # as `x.new_empty(2048, 4096)`

A system hands large memory out in small pages, each when it is first touched, and takes it back as soon as a
tensor is gone. In a training step this can take as long as half of the arithmetic. So what such tensors leave
stays here; the system is told that it may have it whenever it runs short.
"""

import contextlib
import math
import mmap
import weakref

from torch import Tensor, frombuffer

LARGE = 2**20  # bytes; what is smaller is in good hands with the usual allocator
CAN_KEEP = hasattr(mmap, "MADV_FREE")  # Linux and macOS

_free: list[mmap.mmap] = []


def empty(like: Tensor, *shape: int) -> Tensor:
    """On the CPU, of the type of `like`, and without values."""
    size = math.prod(shape) * like.element_size()
    if size < LARGE or not CAN_KEEP:
        return like.new_empty(shape)
    block = _take(size)
    lent = memoryview(block)[:size]  # lives for as long as a tensor uses it
    weakref.finalize(lent, _put_back, block).atexit = False
    return frombuffer(lent, dtype=like.dtype).view(shape)


def _take(size: int) -> mmap.mmap:
    """The smallest that is large enough and no waste, or a new one, in place of one a little too small."""
    for block in sorted(_free, key=len):
        if size <= len(block) <= 2 * size and _has_taken(block):
            return block
    for block in list(_free):
        if size < 2 * len(block) <= 2 * size and _has_taken(block):
            break
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _has_taken(block: mmap.mmap) -> bool:
    """Another thread may have been quicker."""
    try:
        _free.remove(block)
    except ValueError:
        return False
    return True


def _put_back(block: mmap.mmap) -> None:
    with contextlib.suppress(OSError):  # a system that does not know such a promise gets it back at once
        block.madvise(mmap.MADV_FREE)
        _free.append(block)
