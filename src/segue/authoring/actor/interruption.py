"""Asking an actor to end, in three levels: an envelope like a user's own."""

from __future__ import annotations

import logging
from enum import IntEnum
from typing import Any

from ...model.message import ASKED_TO_END
from ..trace import log_error
from .envelope import Envelope, Turn
from .nexts import Interrupted

log = logging.getLogger("segue")


class Interrupt(IntEnum):
    """How soon an actor ends: after the mail that came before, after the handler at work, or at once."""

    QUEUED = 1
    AFTER_HANDLER = 2
    NOW = 3


class Interruption(Envelope):
    """Asks an actor to end. `interrupted` is called, or at level `NOW` `rollback`, which can't keep it from ending.

    Nor can an error in either: it is logged.
    """

    level: Interrupt = Interrupt.QUEUED
    anew: bool = False  #: to begin anew then

    @property
    def urgent(self) -> bool:  # type: ignore[override]  # each says for itself
        """Whether it comes before queued mail."""
        return self.level > Interrupt.QUEUED

    async def carry_out(self, actor: Any, turn: Turn, /) -> object:
        """End the actor, or do what it says itself."""
        turn.supervisor.press()
        if self.level is Interrupt.NOW:
            await turn.abort()
            return Interrupted(anew=self.anew)
        turn.hurry()
        await turn.settled()
        try:
            said = actor.interrupted()
            return await said if hasattr(said, "send") else said
        except Exception as error:
            log_error(log, error, "run %s: interrupted() failed, so it ends", actor.me.id)
            return Interrupted()


assert Interruption.__qualname__ == ASKED_TO_END
