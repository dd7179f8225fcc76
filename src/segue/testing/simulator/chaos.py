"""Things that go wrong by chance, drawn from a seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

from segue.model.errors import InvalidValue

from .faults import Faults

__all__ = ["KINDS", "Chaos"]

_SOON = timedelta(seconds=1)

Doing = Callable[[Faults, random.Random], None]

#: By when they are drawn: at each call, at each stream, at each batch that is validated.
_KINDS: dict[str, dict[str, Doing]] = {
    "call": {
        "html": lambda faults, chance: faults.reply_html(status=chance.choice([200, 502])),
        "error": lambda faults, chance: faults.fail(status=chance.choice([408, 500, 503])),
        "429": lambda faults, _: faults.fail(status=429, retry_after=_SOON),
        "529": lambda faults, _: faults.fail(status=529),
        "refused": lambda faults, _: faults.close_connection(),
        "lost": lambda faults, _: faults.lose_reply(),
        "empty": lambda faults, _: faults.empty_reply(),
        "slow": lambda faults, _: faults.delay(_SOON),
    },
    "stream": {
        "cut": lambda faults, chance: faults.cut_stream_after(
            chance.randrange(4), abort=chance.random() < 0.5
        ),
        "slow-stream": lambda faults, _: faults.slow_stream(_SOON / 10),
    },
    "batch": {
        "dropped": lambda faults, chance: faults.drop_line(times=chance.randint(1, 3)),
        "unknown-id": lambda faults, chance: faults.wrong_id(times=chance.randint(1, 3)),
        "doubled": lambda faults, chance: faults.double_line(times=chance.randint(1, 3)),
        "zero": lambda faults, chance: faults.fail_line(times=chance.randint(1, 3), status=0),
        "line-error": lambda faults, chance: faults.fail_line(
            times=chance.randint(1, 3), status=chance.choice([429, 500, 503])
        ),
        "half-line": lambda faults, _: faults.half_line(),
        "no-file": lambda faults, _: faults.no_output_file(),
        "empty-id": lambda faults, _: faults.empty_error_file_id(),
        "rejected": lambda faults, _: faults.fail_batch(),
        "quota": lambda faults, _: faults.fail_batch(
            "token_limit_exceeded", "Enqueued token limit reached for this model."
        ),
        "stalled": lambda faults, _: faults.stall_batch(),
        "expired": lambda faults, chance: faults.expire_batch(done=chance.random()),
        "late": lambda faults, _: faults.late_validation(_SOON),
    },
}

#: All that can be drawn.
KINDS = tuple(kind for kinds in _KINDS.values() for kind in kinds)


class Chaos:
    """At each call, stream and batch something goes wrong with this probability; what, is drawn from the seed.

    `kinds` narrows it down. `done` counts what was drawn. Raises `InvalidValue`.
    """

    def __init__(self, rate: float, *, seed: int = 0, kinds: Sequence[str] = KINDS) -> None:
        if unknown := sorted(set(kinds) - set(KINDS)):
            raise InvalidValue("the kinds of chaos", f"some of {', '.join(KINDS)}", ", ".join(unknown))
        if not 0 <= rate <= 1:
            raise InvalidValue("the rate of chaos", "a number from 0 to 1", repr(rate))
        self.rate = rate
        self.kinds = tuple(kinds)
        self.done: Counter[str] = Counter()
        self._chance = random.Random(f"chaos:{seed}")

    def strike(self, when: str, faults: Faults) -> None:
        """Perhaps something goes wrong with a `call`, a `stream` or a `batch` that begins now."""
        drawn = [kind for kind in _KINDS[when] if kind in self.kinds]
        if drawn and self._chance.random() < self.rate:
            kind = self._chance.choice(drawn)
            self.done[kind] += 1
            _KINDS[when][kind](faults, self._chance)
