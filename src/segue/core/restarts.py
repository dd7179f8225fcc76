"""When a supervisor lets a child begin anew: pure policy, as in Erlang's OTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import msgspec

#: Whether a child begins anew when it ends: always, only after a failure, never.
Kind = Literal["permanent", "transient", "temporary"]
Strategy = Literal["one", "all", "rest"]
How = Literal["done", "failed"]


class Restart:
    """How a supervisor brings back children that end and shouldn't.

    `strategy`: the one that ended, "all" children, or it and the "rest" that was spawned after it. A child that
    ends more than `times` `within` that long is set aside: held with its error, for a person; with `escalate`, the
    supervisor fails instead. Before the first restart in that time it waits `backoff`, then twice as long each time.
    """

    __slots__ = ("backoff", "escalate", "strategy", "times", "within")

    def __init__(
        self,
        strategy: Strategy = "one",
        *,
        times: int = 3,
        within: timedelta = timedelta(minutes=1),
        backoff: timedelta = timedelta(0),
        escalate: bool = False,
    ) -> None:
        if strategy not in ("one", "all", "rest"):
            raise ValueError(f"strategy={strategy!r}: it is 'one', 'all' or 'rest'")
        if times < 0 or within <= timedelta(0):
            raise ValueError("a child is restarted so many `times`, at least 0, `within` some time")
        self.strategy, self.times, self.within = strategy, times, within
        self.backoff, self.escalate = backoff, escalate


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a child that is about to end is told: end, begin anew `after` so many seconds, or be set aside."""

    what: Literal["end", "anew", "aside"] = "end"
    after: float = 0.0


END = Verdict()


def wanted(kind: Kind, how: How) -> bool:
    """Whether a child of that kind begins anew when it ended so."""
    return kind == "permanent" or (kind == "transient" and how == "failed")


def decide(policy: Restart, restarts: Sequence[float], now: float) -> tuple[Verdict, list[float]]:
    """What becomes of a child that should begin anew, and the times of its restarts to be remembered."""
    within = policy.within.total_seconds()
    recent = [at for at in restarts if at > now - within]
    if len(recent) >= policy.times:
        return Verdict("end" if policy.escalate else "aside"), recent
    pause = policy.backoff.total_seconds() * float(2 ** len(recent))
    return Verdict("anew", pause), [*recent, now]
