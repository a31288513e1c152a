"""How this process gets memory from the system: for the large buffers that every convolution takes and gives back.

By default glibc returns them at once, and the next call has every page of them made and cleared by the kernel again: at
1280x720 that was a third of all processor time. Nothing here imports torch, because it counts only before torch takes memory.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Numbers of mallopt's parameters, and values: free memory that is kept, and buffers up to which memory is taken from it (glibc
# allows no more).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_BYTES = 512 << 20, 32 << 20
# Torch asks for pages of 2 MiB where this is set before it takes memory for the first time.
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
# Whoever sets one of these knows what they want.
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Keep up to 512 MiB of freed memory for the next buffers, and take large ones in large pages; Linux with glibc alone.

    For programs, not for a library: it is the whole process's. Settings of the environment (MALLOC_..., GLIBC_TUNABLES, another
    allocator) are left as they are.

    Returns:
        Whether anything was changed.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _CHOSEN):
        return False
    os.environ.setdefault(_HUGE_PAGES, "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another C library
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES))
