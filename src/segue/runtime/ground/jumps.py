"""The wall clock is put forward, or the machine slept: what others hold looks given up, and may not be."""

from __future__ import annotations

from typing import Final

from ...ports.clock import AlarmClock

#: From so many seconds on it counts as one; less than a lease bears anyhow.
JUMP: Final = 15.0
#: For so long others get the chance to renew what they hold, in seconds: they do so every 15.
CHANCE: Final = 25.0


class Jumps:
    """Looks for it, whenever it is asked."""

    def __init__(self, clock: AlarmClock) -> None:
        self._clock = clock
        self._ahead = clock.now() - clock.steady()
        self._until = float("-inf")

    def look(self) -> bool:
        """Whether time has jumped forward since the last look."""
        ahead = self._clock.now() - self._clock.steady()
        jumped, self._ahead = ahead - self._ahead > JUMP, ahead
        if jumped:
            self.give_chance()
        return jumped

    def give_chance(self) -> None:
        """Nobody could renew anything, as after a jump: the store failed."""
        self._until = self._clock.steady() + CHANCE

    @property
    def recent(self) -> bool:
        """Whether it did so just now: others may not have had the time to see it."""
        self.look()
        return self._clock.steady() < self._until
