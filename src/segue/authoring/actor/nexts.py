"""What handlers return: what is next. An instance of another actor's class is next too: the run goes on as that."""

from __future__ import annotations

from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, TypeVar

R_co = TypeVar("R_co", covariant=True)
if TYPE_CHECKING:
    from typing_extensions import TypeVar as VarWithDefault

    Then_co = VarWithDefault("Then_co", covariant=True, default=Any)
else:
    Then_co = TypeVar("Then_co", covariant=True)


class Listen:
    """Wait for messages."""


class Again:
    """The same state once more, with what the handler changed in it."""


class Done(Generic[R_co]):
    """The actor's work is done; `value` is the run's result."""

    def __init__(self, value: R_co = None) -> None:  # type: ignore[assignment]  # Done() is for actors of None
        self.value = value


class Fail:
    """The actor gives up."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Interrupted:
    """The actor ends as it was asked to: its run counts as cancelled, and waiting for it raises `RunInterrupted`.

    `anew`: it begins anew instead, with its first fields, at the same address and with the mail that waits.
    """

    def __init__(self, *, anew: bool = False) -> None:
        self.anew = anew


class Cancelled:
    """The run is cancelled; never returned by handlers."""


class Answer(Generic[R_co, Then_co]):
    """The answer to a request, and the state to go to then; in annotations `Answer[int]` or `Answer[int, Working]`."""

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)  # of one type or of two

    def __init__(self, value: R_co, *, then: Then_co = None) -> None:  # type: ignore[assignment]  # nothing else is next
        self.value, self.then = value, then
