"""Policies for conversations that near their model's window."""

from __future__ import annotations

import msgspec

from .errors import InvalidValue

BRIEF = (
    "You keep the memory of a conversation. Write a summary of it that lets whoever reads it go on without the "
    "rest: what was asked for, what was found and decided, names, numbers and open points. No preamble."
)


class Trim(msgspec.Struct, frozen=True, tag="trim", kw_only=True):
    """The oldest turns are dropped; system messages, the question in hand and the newest tool exchange stay.

    Once the conversation is estimated above `at` of the window, as much goes as brings it to `keep` of it: seldom and
    much, so that its beginning stays the same for a provider's cache. Tool calls go with their results. `window` is in
    tokens; 0: that of the model, where it is known.
    """

    keep: float = 0.5
    at: float = 0.8
    window: int = 0

    def __post_init__(self) -> None:
        check(self)


class Summarise(msgspec.Struct, frozen=True, tag="summarise", kw_only=True):
    """As `Trim`, but a summary stands in place of what is dropped: one recorded model call, each time.

    The next summary takes up the one before. `model`: who writes it (default: the model that is asked); `words`: how
    long it may be, about; `prompt`: what its system message says.
    """

    keep: float = 0.5
    at: float = 0.8
    window: int = 0
    model: str = ""
    words: int = 300
    prompt: str = BRIEF

    def __post_init__(self) -> None:
        check(self)


Upkeep = Trim | Summarise


def check(policy: Upkeep) -> None:
    """Raises `InvalidValue` for shares that can't be."""
    if not 0 <= policy.keep < policy.at <= 1:
        raise InvalidValue(
            f"segue.{type(policy).__name__}()", "0 <= keep < at <= 1", f"keep={policy.keep}, at={policy.at}"
        )
    if policy.window < 0:
        raise InvalidValue(f"segue.{type(policy).__name__}()", "a window in tokens", "it is below zero")
