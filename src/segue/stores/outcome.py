"""How a run's end reaches its parent, alike in every store."""

from __future__ import annotations

from typing import Final

import msgspec

from ..model.entry import Failure
from ..model.message import Mail
from ..model.run import CallRef
from ..ports.store import Turn

#: Statuses of a line that may still get an outcome.
OPEN_LINE: Final = frozenset({"waiting", "taken", "following"})


def end_mail(turn: Turn, parent: CallRef) -> Mail:
    """The `result` that a turn which ends its run sends to the call that awaits it.

    Its number is the fence, which grows if the run is revived and ends once more.
    """
    error = turn.error
    if error is None and turn.status == "cancelled":
        message = f"run {turn.run!r} was cancelled"
        error = Failure("segue:RunCancelled", message, msgspec.json.encode([turn.run]))
    value = turn.value if error is None else None
    return Mail(
        parent.run,
        f"run:{turn.run}",
        turn.fence,
        "result",
        value=value,
        error=error,
        call=parent,
        at=turn.now,
    )
