"""Keeps freed memory in the process, for services that allocate and free megabytes many times in a second."""

import os
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_THRESHOLD: Final = -3
_SETTINGS: Final = ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20), (_TOP_PAD, 8 << 20))
"""The parameters of `mallopt`, glibc's malloc.h. 32 MiB is the most that it accepts for the first one."""
_VARIABLES: Final = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Let malloc keep up to 64 MiB that are freed. Returns whether it accepted that.

    A worker decompresses batches of megabytes. By default, glibc returns such memory to the operating system at once, and the
    page faults for the next batch can take a fifth of a worker's time. Nothing changes if a variable of the
    environment already tunes malloc, or if the C library is another one.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _VARIABLES):
        return False
    try:
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
    except (ImportError, OSError, AttributeError):
        return False
    return all(mallopt(name, value) == 1 for name, value in _SETTINGS)
