"""The limits of live calls: so many at once, so many a minute, and what the headers say of them."""

from __future__ import annotations

from collections.abc import Callable

from .replies import Failure

__all__ = ["Crowd"]

_MINUTE = 60.0


class Crowd:
    """Counts live calls. `at_once` and `a_minute` are the most that are taken; None is any number."""

    def __init__(self, at_once: int | None, a_minute: int | None, now: Callable[[], float]) -> None:
        self._at_once, self._a_minute, self._now = at_once, a_minute, now
        self._began = 0.0
        self._taken = 0
        self.flying = self.most = self.refused = 0

    def enter(self) -> dict[str, str]:
        """Take a call; the headers of its answer. Raises `Failure`."""
        now = self._now()
        if now >= self._began + _MINUTE:
            self._began, self._taken = now, 0
        resets = self._began + _MINUTE - now
        if self._a_minute is not None and self._taken >= self._a_minute:
            self.refused += 1
            raise Failure(
                429, "Rate limit reached for requests.", code="rate_limit_exceeded", retry_after=resets
            )
        if self._at_once is not None and self.flying >= self._at_once:
            self.refused += 1
            raise Failure(429, "Too many requests at once.", code="rate_limit_exceeded")
        self._taken += 1
        self.flying += 1
        self.most = max(self.most, self.flying)
        if self._a_minute is None:
            return {}
        return {
            "x-ratelimit-limit-requests": str(self._a_minute),
            "x-ratelimit-remaining-requests": str(self._a_minute - self._taken),
            "x-ratelimit-reset-requests": f"{resets:.3f}s",
        }

    def leave(self) -> None:
        """A call is over."""
        self.flying -= 1
