"""What a model call may cost before it is made, and what is said where there is no room for it. Pure.

An estimate is on the high side: it is of the request's bytes, of its pictures, and of as many output tokens as the
request allows or, where it doesn't say, as this model's calls so far lead to expect.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from ..model.budget import NANO, STORE, Account, Amount, Limit, Standing
from . import admission, pictures

#: Output tokens that are expected of a model whose answers weren't seen yet, where a request names no limit.
UNSEEN = 1000
#: Answers of so many calls are enough to expect the next by; then this many times their mean.
ENOUGH, MARGIN = 3, 2.0
#: How a run is held that has no budget left, before whose it is.
_CAUSE = "no budget is left: that of "


class _Gemini(msgspec.Struct):
    max: Any = msgspec.field(default=None, name="maxOutputTokens")
    answers: Any = msgspec.field(default=1, name="candidateCount")


class _Asked(msgspec.Struct):
    """What a request body says of its answer, in any provider's words."""

    chat: Any = msgspec.field(default=None, name="max_completion_tokens")
    responses: Any = msgspec.field(default=None, name="max_output_tokens")
    older: Any = msgspec.field(default=None, name="max_tokens")
    answers: Any = msgspec.field(default=1, name="n")
    gemini: _Gemini | None = msgspec.field(default=None, name="generationConfig")


_read = msgspec.json.Decoder(_Asked).decode


class Answers(msgspec.Struct):
    """Output tokens of a model's calls so far."""

    calls: int = 0
    tokens: int = 0

    def saw(self, tokens: int) -> None:
        """One more."""
        self.calls += 1
        self.tokens += tokens

    @property
    def expected(self) -> int:
        """Of the next."""
        if self.calls < ENOUGH:
            return UNSEEN
        return max(1, round(MARGIN * self.tokens / self.calls))


def allowed(body: bytes) -> tuple[int | None, int]:
    """How many output tokens a request allows each answer, None where it doesn't say, and how many answers it wants."""
    try:
        asked = _read(body)
    except (msgspec.DecodeError, ValueError):
        return None, 1
    gemini = asked.gemini or _Gemini()
    limits = [asked.chat, asked.responses, asked.older, gemini.max]
    known = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    answers = [many for many in (asked.answers, gemini.answers) if isinstance(many, int) and many > 1]
    return max(known) if known else None, max(answers, default=1)


def expected(body: bytes, seen: Answers | None, *, writes: bool = True) -> tuple[int, int]:
    """Input and output tokens that a request may cost. `writes`: it has an answer of text, unlike embeddings."""
    tokens, size = pictures.counted(body)
    read = admission.estimate(len(body) - size) + tokens
    if not writes:
        return read, 0
    limit, answers = allowed(body)
    if limit is None:
        limit = UNSEEN if seen is None else seen.expected
    return read, limit * answers


def priced(usd: float | None, tokens: int) -> Amount:
    """As it is counted, rounded up."""
    return Amount(-int(-(usd or 0.0) * NANO // 1), tokens)


def wants_price(accounts: Sequence[Account]) -> bool:
    """Whether one of these is in money."""
    return any(account.limit.nanos is not None for account in accounts)


# ---------------------------------------------------------------- in words
def owner(account: str) -> str:
    """Whose budget it is, in words."""
    kind, _, name = account.partition(":")
    if account == STORE:
        return "the engine"
    if kind == "block":
        return f"a block of run {name.rpartition(' ')[0]!r}"
    return f"{kind} {name!r}"


def cause(account: str) -> str:
    """Why runs are held that a budget has no room for: the same for all of them."""
    return f"{_CAUSE}{owner(account)} ({account})"


def account_of(reason: str) -> str:
    """Which budget a held run waits for, by its reason; empty where it is held for something else."""
    first = reason.partition("\n")[0]
    return first.rpartition(" (")[2][:-1] if first.startswith(_CAUSE) else ""


def reason(standing: Standing, needed: Amount, run: str) -> str:
    """Why a run is held, with the cure."""
    target = f"--job {shlex.quote(standing.id[4:])}" if standing.id.startswith("job:") else shlex.quote(run)
    return (
        f"{cause(standing.id)}\n{in_words(standing)}; this call may cost {shown(needed, standing.limit)}. "
        f"Raise it, as with `segue resume {target} --budget {_more(standing, needed)}`, and all that wait for it go on."
    )


def in_words(standing: Standing) -> str:
    """How a budget stands."""
    limit, spent = standing.limit, standing.spent
    parts = [] if limit.nanos is None else [f"{dollars(spent.nanos)} of {dollars(limit.nanos)}"]
    if limit.tokens is not None:
        parts.append(f"{spent.tokens:,} of {limit.tokens:,} tokens")
    text = f"{' and '.join(parts)} spent"
    if standing.reserved != Amount():
        text += f", {shown(standing.reserved, limit)} reserved"
    return text


def shown(amount: Amount, limit: Limit) -> str:
    """An amount, in what a limit is in."""
    parts = [] if limit.nanos is None else [dollars(amount.nanos)]
    if limit.tokens is not None:
        parts.append(f"{amount.tokens:,} tokens")
    return " and ".join(parts)


def dollars(nanos: int) -> str:
    """To the cent; smaller sums to three digits."""
    usd = nanos / NANO
    if usd and abs(usd) < 0.10:
        return f"${usd:.3g}" if abs(usd) >= 0.0001 else f"${usd:.6f}".rstrip("0").rstrip(".")
    return f"${usd:,.2f}"


def _more(standing: Standing, needed: Amount) -> str:
    """A budget with which such calls go on, as `--budget` takes it."""
    limit, wanted = standing.limit, standing.spent.plus(needed)
    if limit.nanos is not None and wanted.nanos > limit.nanos:
        return f"{_round_up(2 * wanted.nanos) / NANO:.12g}"
    return f"{_round_up(2 * wanted.tokens)}tok"


def _round_up(number: int) -> int:
    """To two digits."""
    unit = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // unit) * unit
