"""What one process owes another. Stdlib only."""

from __future__ import annotations

import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent() -> None:
    """Have the kernel end this process when whoever started it ends, however that may be. Elsewhere than on Linux: no."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
