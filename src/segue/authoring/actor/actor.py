"""The class that users derive from."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Generator
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, dataclass_transform

from ...core.restarts import Restart
from ...model.mode import HistoryLike, as_history
from ..config import config_of
from ..context import current, find_branch
from ..flow import RUNNER, announce
from ..mail import check_fits, child
from .definition import ActorDef
from .marks import field
from .nexts import Interrupted, Listen
from .supervisor import GRACE, Ended

if TYPE_CHECKING:
    from typing_extensions import TypeVar as VarWithDefault

    from ...runtime.handles import Run

    R_co = VarWithDefault(
        "R_co", covariant=True, default=Any
    )  # so that a class to be mixed in needn't say it
else:
    R_co = TypeVar("R_co", covariant=True)


class Work(Protocol):
    """A handler that is about to be carried out: await `work()` for what it returns."""

    kind: str  #: "state", "on", "fallback", or a kind of the user's own
    name: str  #: the method's
    value: Any  #: the state or message

    async def __call__(self) -> Any: ...


@dataclass_transform(field_specifiers=(field,))
class Actor(Generic[R_co]):
    """A hybrid workload. Its annotated fields are its durable state; `begin` gives its first state.

    Handlers are methods marked `@state` and `@on`: `async def` ones are awaited, plain ones run on a thread.
    Start one with `engine.start(MyActor(…), id=…)`; by that id it is found again, for months. Inside a run, await
    one, spawn it or map it over items. The methods below can be replaced, by plain or async ones; what they call is
    recorded. `class Meter(Actor[None], history="drop")`: what becomes of its past turns, where not as the engine says:
    kept (`"keep"`), dropped, or kept for a timedelta; it holds for runs that begin from then on. `name=`: how
    stored runs find it, wherever it stands (default: its qualified name and its module). `kw_only=True`: its fields are
    given by name.
    """

    groups: ClassVar[type[Enum]]  #: of its children; they are ended from the last group to the first
    restart: ClassVar[Restart]  #: how children are brought back
    #: How long a child that is asked to end may take, before it is asked more urgently.
    grace: ClassVar[timedelta] = GRACE

    if TYPE_CHECKING:

        def __init_subclass__(
            cls, *, name: str = ..., kw_only: bool = False, history: HistoryLike = ...
        ) -> None: ...
        def __await__(self) -> Generator[Any, Any, R_co]: ...

    else:

        def __init_subclass__(
            cls, *, name: str = "", kw_only: bool = False, history: HistoryLike | None = None, **how: Any
        ) -> None:
            super().__init_subclass__(**how)
            dataclasses.dataclass(cls, eq=False, kw_only=kw_only)
            if history is not None:
                cls.__segue_history__ = as_history(history)
            cls.__segue__ = ActorDef(cls, _result_type(cls), name)
            file = getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__
            announce(cls.__segue__, file, cls.__module__)

        def __await__(self) -> Generator[Any, Any, R_co]:
            branch, definition = find_branch(), type(self).__segue__
            runner = RUNNER.get()
            if branch is None and runner is not None:
                return runner.run_flow(self).__await__()
            branch = current(f"`await {type(self).__qualname__}(…)`")
            fields = definition.take(self)
            check = check_fits(branch, "child", definition, fields)
            return child(branch, definition, fields, config_of(branch), check=check).__await__()

    def setup(self) -> object:
        """Called once, before `begin`, in the first commit."""
        return None

    def begin(self) -> object:
        """The first state; without one, the actor begins by listening."""
        return Listen()

    def teardown(self) -> object:
        """Called once, when the actor is done, fails or was interrupted."""
        return None

    def failed(self, error: Exception) -> object:
        """A handler raised, and no fallback took it. What this returns is next; None: go on as before.

        After a state, where there is nothing to go on with, None fails the run with that error. Without a method of
        one's own, a failed note is logged; the error of a request goes to its caller either way.
        """
        return None

    def rollback(self) -> object:
        """A handler was cut off, or the run cancelled: undo what it did outside; the fields are as they were before."""
        return None

    def interrupted(self) -> object:
        """It was asked to end, and no handler is at work. What this returns is next."""
        return Interrupted()

    def finished(self, child: Ended) -> object:
        """A child has ended that doesn't begin anew. What this returns is next; None changes nothing."""
        return None

    async def perform(self, work: Work) -> Any:
        """Carries out each handler; replace it to time, trace or guard them. It isn't recorded."""
        return await work()

    @property
    def me(self) -> Run[R_co]:
        """Its own run, and so its address."""
        run = current("me").run
        handle: Run[R_co] = run.services.handle(run.id, type(self).__segue__, None)  # type: ignore[attr-defined]  # set above
        return handle


def _result_type(cls: type[Any]) -> Any:
    """What it is an `Actor` of."""
    found = _result_among(vars(cls).get("__orig_bases__", cls.__bases__))
    return object if found is None else found


def _result_among(bases: tuple[Any, ...]) -> Any:
    """What the first of these is an `Actor` of that says so; None if none does."""
    for base in bases:
        owner = typing.get_origin(base) or base
        if owner is Actor:
            found = next(iter(typing.get_args(base)), None)
        elif isinstance(owner, type) and issubclass(owner, Actor):
            theirs = vars(owner).get("__orig_bases__", owner.__bases__)
            given = dict(zip(getattr(owner, "__parameters__", ()), typing.get_args(base), strict=False))
            found = _result_among(tuple(_filled(one, given) for one in theirs))
        else:
            continue
        if found is not None and not isinstance(found, TypeVar):
            return found
    return None


def _filled(base: Any, given: dict[Any, Any]) -> Any:
    """A base of a generic class, with what its parameters are."""
    parameters = getattr(base, "__parameters__", ())
    if not given or not parameters or isinstance(base, type):
        return base
    return base[tuple(given.get(one, one) for one in parameters)]
