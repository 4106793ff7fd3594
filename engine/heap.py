"""How the C library treats memory that is freed."""

from __future__ import annotations

import ctypes

# Names of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep what tensors free for the next ones, instead of giving it back to the system.

    A pass of a network frees and takes again the same megabytes for every layer, and each time the
    system would clear their pages: a tenth of the time of `mini` on a CPU, a quarter of that of the
    Wan VAE on two cores.  The process stays at its peak.  It is a setting of the whole process, so
    the `restore` command makes it, and a program that only uses the package may.  False where the C
    library knows no such setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEPT))
