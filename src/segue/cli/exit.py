"""What the exit codes mean."""

from __future__ import annotations

from typing import Final

OK: Final = 0
#: A run failed, or some rows of a job did.
FAILED: Final = 1
#: Wrong usage, bad input, a store or provider in trouble.
USAGE: Final = 2
#: Something still waits: for a batch, a person or a time.
WAITING: Final = 3
INTERRUPTED: Final = 130
