"""Files' modes, for tests that may run as root."""

from __future__ import annotations

import ctypes
import os


def bound() -> None:
    """Have the modes of files bind this process, also where it is root's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0 and any(
        libc.prctl(24, right, 0, 0, 0) for right in (1, 2)
    ):  # CAP_DAC_OVERRIDE, _READ_SEARCH
        raise OSError(ctypes.get_errno(), "prctl")
