"""Keep freed memory in the process, for programs of our own whose every step takes and frees the same large blocks."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt in malloc.h
_LARGE = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc's allocator not to give freed blocks back, and say whether there is such an allocator.

    Otherwise activations of some 10 MB go back to the system at every step and come again as pages to be cleared: a
    tenth to a sixth of the time of a step on a CPU. The peak of memory stays what it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE) and mallopt(_TRIM_THRESHOLD, _LARGE))
