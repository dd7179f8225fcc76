"""Mail in the store in memory that nobody took."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from ...model.message import DeadLetter


class DeadLetters:
    """Mail that nobody took, by number."""

    def __init__(self) -> None:
        self._letters: dict[int, DeadLetter] = {}
        self._last = 0

    def put(self, letters: Sequence[DeadLetter], now: float) -> None:
        """Number and keep them."""
        for letter in letters:
            self._last += 1
            self._letters[self._last] = msgspec.structs.replace(letter, id=self._last, at=now)

    def get(self, id: int) -> DeadLetter | None:
        """One of them."""
        return self._letters.get(id)

    def listed(self, run: str, after: int, limit: int) -> list[DeadLetter]:
        """Those to one run, or all, after a number."""
        found = (one for id, one in self._letters.items() if id > after and run in ("", one.mail.to))
        return [one for one, _ in zip(found, range(limit), strict=False)]

    def drop(self, ids: Sequence[int]) -> int:
        """Forget those; how many there were."""
        return sum(self._letters.pop(id, None) is not None for id in ids)

    def lose(self, runs: Collection[str]) -> None:
        """These are removed."""
        self._letters = {id: one for id, one in self._letters.items() if one.mail.to not in runs}
