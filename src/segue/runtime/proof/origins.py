"""Where calls were made that nobody awaits."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def kept() -> Generator[None]:
    """Have Python's warning of a call that is never awaited name the line that made it. Each call costs more then."""
    before = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(max(before, 1))
    try:
        yield
    finally:
        sys.set_coroutine_origin_tracking_depth(before)
