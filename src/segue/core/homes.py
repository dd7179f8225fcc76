"""Where a rebased run's branches stood before its code changed."""

from __future__ import annotations

import re

#: Branches are numbered by who starts them: one more in front, and all behind it have other numbers.
_NUMBER = re.compile(r"\.\d+(?=/|$)")
#: Added to the number of a call or a branch whose place another one has taken, as often as it takes.
ELSEWHERE = 1 << 32
#: Where nothing stood.
_NOWHERE = "?"


class Homes:
    """For each branch the path on which its calls are recorded, found by the first call that shows it.

    Of an actor, the branches at the root are its `turns`, whose numbers stay.
    """

    def __init__(self, *, turns: bool) -> None:
        self._turns = turns
        self._of: dict[str, str] = {}
        self._whose: dict[str, str] = {}  # now, by what it was
        self._layer: dict[str, int] = {}  # of the call that showed it: what went may stand there in others

    def shape(self, path: str) -> str:
        """A path without the numbers that may be others now."""
        at = path.find("/", 1) if self._turns else 0
        return path if at < 0 else path[:at] + _NUMBER.sub("", path[at:])

    def of(self, path: str) -> str:
        """Where a branch stood: as was found; else as its number says, unless that was another one."""
        home = self._of.get(path)
        if home is not None:
            return home
        home = _beside(path, self.of(_above(path))) if path else path
        return home if self.is_free(home) else _NOWHERE

    def now(self, home: str) -> str:
        """Where a branch stands that stood there."""
        if not home or home in self._whose:
            return self._whose.get(home, home)
        return _beside(home, self.now(_above(home)))

    def is_free(self, home: str) -> bool:
        """Whether no branch is known to have stood there."""
        return home not in self._whose

    def may_move(self, path: str) -> bool:
        """Whether a branch may have another number than it had. The root is always the root."""
        return path.rfind("/") > (0 if self._turns else -1)

    def is_another(self, home: str, n: int) -> bool:
        """Whether a call of that number there may be of a branch that isn't found yet."""
        return self.is_free(home) or n // ELSEWHERE != self._layer[home]

    def settle(self, path: str, home: str, n: int) -> None:
        """A branch took a call that was made there; so those above it stood above that."""
        while path not in self._of and self.may_move(path) and self.is_free(home):
            self._of[path], self._whose[home], self._layer[home] = home, path, n // ELSEWHERE
            path, home = _above(path), _above(home)

    def is_beside(self, path: str, home: str) -> bool:
        """Whether that is below where the parent of a branch stood."""
        return _above(home) == self.of(_above(path))

    def order(self, path: str) -> list[int]:
        """What sorts branches as they were begun."""
        return [int(number[1:]) for number in _NUMBER.findall(path)]


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _beside(path: str, above: str) -> str:
    """A branch of another parent with that path's name and number."""
    return f"{above}/{path.rpartition('/')[2]}"
