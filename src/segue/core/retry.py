"""When to try again, and how long to wait before."""

from __future__ import annotations

from datetime import timedelta
from hashlib import blake2b

import msgspec

from ..model import checks
from ..model.errors import InvalidValue


class Retry(msgspec.Struct, frozen=True):
    """Up to `attempts` in all; the wait starts at `wait` and doubles up to `longest` (or stays, where `wait` is
    longer), less up to half by jitter.

    `on`: the errors that are worth another attempt.
    """

    attempts: int = 3
    wait: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(minutes=5)
    on: type[Exception] | tuple[type[Exception], ...] = Exception

    def __post_init__(self) -> None:
        checks.count("attempts of Retry()", self.attempts)
        checks.seconds("wait of Retry()", self.wait)
        checks.seconds("longest of Retry()", self.longest)
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            raise InvalidValue(
                "on of Retry()", "an error's class, or a tuple of them", "it isn't", repr(self.on)
            )

    def wants(self, error: BaseException) -> bool:
        """Whether the policy would try that error once more."""
        return isinstance(error, self.on)

    def wait_after(self, attempt: int, key: str) -> float:
        """Seconds to wait after that many attempts. The jitter comes from `key`, so a replay draws the same."""
        first = self.wait.total_seconds()
        full = min(first * 2.0 ** (attempt - 1), max(self.longest.total_seconds(), first))
        drawn = int.from_bytes(blake2b(f"{key}/{attempt}".encode(), digest_size=4).digest(), "big") / 2**32
        return full * (1 - drawn / 2)
