"""Runs that take their workers with them: each time one claims such a run, it dies, and nothing is done."""

from __future__ import annotations

import shlex
from typing import Final

#: A run whose claim lapsed so many times, with no commit between, is held. Many, for who kills a program again and
#: again before a run gets anything done has no poison.
LAPSES: Final = 20

#: From so many on, a run is claimed while no other such is at work with the same worker: so that those which only
#: happened to be claimed together with it are told apart from it by what they commit.
SUSPECT: Final = 3


def reason(run: str) -> str:
    """Why it is held, and the cure."""
    return (
        f"its claim lapsed {LAPSES} times with nothing done between: it may be what its workers died of\n"
        f"look at their logs; `segue resume {shlex.quote(run)}` has it go on"
    )
