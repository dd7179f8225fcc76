"""Flows: async functions that are recorded call by call."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import ContextVar
from datetime import timedelta
from itertools import pairwise
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    overload,
)

import msgspec

from ..core.codec import decoder
from ..core.signature import InputShape
from ..model import checks
from ..model.errors import Conflict, InvalidValue, UnknownName
from ..model.mode import Config
from .config import How, configured, inside
from .context import find_branch
from .modules import module_of
from .step import STEPS, StepDef, taken_apart

P = ParamSpec("P")
R = TypeVar("R")
if TYPE_CHECKING:
    from .message import Mailbox

    Coro = Coroutine[Any, Any, R]


#: How the names of runs of a step alone begin.
STEP: Final = "step:"


class Target(Protocol):
    """What a run can be of: a flow, or an actor's class."""

    kind: ClassVar[Literal["flow", "actor"]]
    name: str
    module: str
    file: str
    named: bool  #: its name was given, and so is its own wherever it stands

    @property
    def mailbox(self) -> Mailbox | None:
        """Its bound, if it has one."""
        ...

    @property
    def history(self) -> timedelta | None:
        """How long past turns of it are kept, if it says so."""
        ...

    @property
    def options(self) -> Config | None:
        """How runs of it are carried out where nobody says otherwise."""
        ...

    @property
    def version(self) -> str: ...
    def read_result(self, value: bytes) -> Any: ...

    def encode_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """What a run of it is started with."""
        ...

    def check_args(self, args: bytes) -> Any:
        """Raise `InvalidValue` where a run of it couldn't read them. Of a flow, what it would read."""
        ...

    @property
    def shape(self) -> InputShape:
        """How calls of it are written and read."""
        ...

    def stored(self, call: bytes) -> bytes:
        """What a run is started with, of a call that `shape` wrote."""
        ...

    def input_of(self, args: bytes) -> Any:
        """What a run was started with, as it is shown."""
        ...


class FlowDef:
    """What is known of a flow: its function, its name, its version and the types it takes and gives."""

    kind: ClassVar[Literal["flow", "actor"]] = "flow"
    __slots__ = ("_read", "_shape", "_version", "file", "fn", "module", "name", "named", "options", "where")

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        version: str,
        options: Config | None = None,
        *,
        named: bool = False,
    ) -> None:
        self.fn, self.options = fn, options
        self.name, self.named, self.module, self.file = name, named, "", ""
        self.where = f"the result of flow {name!r}"
        self._version = version
        self._shape: InputShape | None = None
        self._read: Callable[[bytes], Any] | None = None

    @property
    def shape(self) -> InputShape:
        """How its arguments are written and read. Raises `BadSignature` for a function that JSON can't call."""
        if self._shape is None:
            self._shape = InputShape.of(self.fn)
        return self._shape

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        """Its code, to be awaited where it is called."""
        if self.options is None or find_branch() is None:
            code: Coroutine[Any, Any, Any] = self.fn(*args, **kwargs)
            return code
        return self._begin(self.options, args, kwargs)

    async def _begin(self, options: Config, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with inside(options):
            return await self.fn(*args, **kwargs)

    def encode_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """What a run of it is started with."""
        return self.shape.encode_call(args, kwargs)

    def check_args(self, args: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Raise `InvalidValue` where a run of it couldn't read them; what it would read."""
        return self.shape.decode_call(args)

    def stored(self, call: bytes) -> bytes:
        """What a run is started with, of a call that `shape` wrote: the call."""
        return call

    def input_of(self, args: bytes) -> Any:
        """Its arguments; one alone is itself."""
        given: Any
        try:
            given, named = self.shape.decode_call(args)
        except InvalidValue:  # of an earlier version
            given, named = msgspec.json.decode(args)
        if len(given) == 1 and not named:
            return given[0]
        return {"args": given, **named} if given else named

    @property
    def mailbox(self) -> None:
        """A flow takes what mail it wants, when it wants it: nothing bounds that."""

    @property
    def history(self) -> None:
        """A flow has no past turns."""

    def read_result(self, value: bytes) -> Any:
        """Its result, typed by its annotation."""
        if self._read is None:
            self._read = decoder(self.shape.result_type, self.where)
        return self._read(value)

    @property
    def version(self) -> str:
        """As declared, or a fingerprint of the source."""
        if not self._version:
            self._version = fingerprint(self.fn)
        return self._version


def fingerprint(fn: Callable[..., Any]) -> str:
    """Twelve hex digits that change with a function's source."""
    try:
        source = inspect.getsource(fn).encode()
    except (OSError, TypeError):
        code = getattr(fn, "__code__", None)
        source = repr(fn).encode()
        if code is not None:
            plain = [one for one in code.co_consts if isinstance(one, str | bytes | int | float)]
            source = code.co_code + repr(plain).encode()
    return hashlib.blake2b(source, digest_size=6).hexdigest()


class Runner(Protocol):
    """Something that runs a flow or an actor that is awaited outside a run: a `FakeModel` in a test."""

    async def run_flow(self, call: Any) -> Any: ...


#: Who runs flows that are awaited outside a run, if anyone does.
RUNNER: ContextVar[Runner | None] = ContextVar("segue_runner", default=None)


class FlowCall(Coroutine[Any, Any, Any]):
    """A call of a flow, not begun: await it in a run, or give it to an engine, which takes it apart."""

    def __init__(self, flow: FlowDef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.flow, self.args, self.kwargs = flow, args, kwargs
        self.__name__ = self.__qualname__ = flow.fn.__qualname__
        self._coro: Coroutine[Any, Any, Any] | None = None

    def take(self) -> tuple[FlowDef, bytes]:
        """The flow and its arguments as JSON; the call counts as used."""
        self._coro = _USED
        return self.flow, self.flow.shape.encode_call(self.args, self.kwargs)

    def _begin(self) -> Coroutine[Any, Any, Any]:
        coro = self._coro
        if coro is _USED:
            raise RuntimeError(f"this call of {self.__qualname__}() was given to an engine already")
        if coro is None:
            runner = RUNNER.get()
            if runner is not None and find_branch() is None:
                coro = runner.run_flow(FlowCall(self.flow, self.args, self.kwargs))
            else:
                coro = self.flow.begin(self.args, self.kwargs)
            self._coro = coro
        return coro

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._begin().__await__()

    def send(self, value: Any) -> Any:
        return self._begin().send(value)

    def throw(self, *error: Any) -> Any:
        return self._begin().throw(*error)

    def close(self) -> None:
        if self._coro is None:
            self._coro = _USED
        elif self._coro is not _USED:
            self._coro.close()

    @property
    def cr_await(self) -> Any:
        return self._coro

    def __repr__(self) -> str:
        return f"<call of flow {self.flow.name}>"

    def __del__(self) -> None:
        if self._coro is None:
            import warnings

            warnings.warn(
                f"the flow call {self.__qualname__}(…) was never awaited nor given to an engine; "
                f"write `await {self.__qualname__}(…)`",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )


async def _used() -> None:
    """Stands for a call that an engine took."""


_USED: Coroutine[Any, Any, Any] = _used()
_USED.close()

#: Every flow and actor that was defined, by name: what a worker of this process may run.
TARGETS: dict[str, Any] = {}


class Ambiguous:
    """Several flows or actors of different files that have one name: a run's module tells which is meant."""

    def __init__(self, *known: Any) -> None:
        self.by_file: dict[str, Any] = {each.file: each for each in known}


def announce(target: Any, file: str, module: str | None) -> None:
    """Make a flow or actor known by its name. Defined anew in its file, it takes the old one's place.

    Raises `Conflict` for another function of that file by the same name.
    """
    target.file, target.module = file, module_of(module, file)
    known = TARGETS.get(target.name)
    if isinstance(known, FlowDef) and isinstance(target, FlowDef) and _are_two(known.fn, target.fn):
        raise same_name(known, target)
    if known is not None and not isinstance(known, Ambiguous) and known.file != file:
        known = TARGETS[target.name] = Ambiguous(known)
    if isinstance(known, Ambiguous):
        known.by_file[file] = target
    else:
        TARGETS[target.name] = target


def _are_two(known: Any, fn: Any) -> bool:
    """Whether a module has both, side by side; not one of them anew, nor functions that others make."""
    return (
        known.__globals__ is fn.__globals__
        and known.__qualname__ != fn.__qualname__
        and "<locals>" not in known.__qualname__ + fn.__qualname__
        and not fn.__code__.co_filename.startswith("<")  # typed at a prompt
    )


def same_name(one: Any, other: Any) -> Conflict:
    """The error that there is of two flows or actors of one file that have one name."""
    lines = " and ".join(_line_of(each) for each in (one, other))
    return Conflict(
        f"{lines} are both called {one.name!r}, by which stored runs find their code: give each a name= of its own"
    )


def _line_of(target: Any) -> str:
    made: Any = target.fn if isinstance(target, FlowDef) else target.cls
    line = made.__code__.co_firstlineno if isinstance(target, FlowDef) else inspect.getsourcelines(made)[1]
    return f"{made.__qualname__} ({target.file}:{line})"


def prefer(name: str, meant: Sequence[Any]) -> None:
    """Have a name mean this flow or actor, whatever others are called so: a person named its file.

    Of several, the module of a run tells. Raises `Conflict` where two are of one file.
    """
    for one, other in pairwise(sorted(meant, key=lambda each: str(each.file))):
        if one.file == other.file:
            raise same_name(one, other)
    TARGETS[name] = meant[0] if len(meant) == 1 else Ambiguous(*meant)


def target_named(name: str, module: str = "") -> Any:
    """The flow or actor of that name; of several, the one of that module. None where there is none, or no telling."""
    several = TARGETS.get(name)
    if isinstance(several, Ambiguous):
        found = [target for target in several.by_file.values() if target.module == module]
        return found[0] if len(found) == 1 else None
    known = TARGETS.get(name)
    if known is None and name.startswith(STEP):
        step = STEPS.get(name.removeprefix(STEP))
        return None if step is None else _of_step(step)
    return None if isinstance(known, Ambiguous) else known


def is_meant(target: Target, module: str, version: str) -> bool:
    """Whether a run that was begun in that module is of this flow or actor, and not of another that is called alike.

    It is where the module is the same, or ends alike, as that of a script does; where the name was given, and so says
    it; and where the version is the same: then it was moved as it was.
    """
    here = target.module
    if target.named or module == here or not module or not here:
        return True
    if f".{module}".endswith(f".{here}") or f".{here}".endswith(f".{module}"):
        return True
    return bool(version) and version == target.version


def short_name(target: Target) -> str:
    """Its name as ids begin with it."""
    return target.name.removeprefix(STEP).rpartition(".")[2]


def target_of(fn: Any) -> Target | None:
    """What a run of a decorated function, or of an actor's class, is of; None for anything else."""
    known = definition(fn)
    if isinstance(known, StepDef):
        return _of_step(known)
    return known if known is not None and hasattr(known, "encode_call") else None


def _of_step(step: StepDef) -> FlowDef:
    """A flow that does nothing but a step."""
    assert step.call is not None  # the decorator made it
    target = FlowDef(step.call, f"{STEP}{step.name}", "", named=step.named)
    target.file = step.file
    target.module = module_of(getattr(step.fn, "__module__", ""), step.file)
    return target


class _Flow(Protocol):
    def __call__(self, fn: Callable[P, Coro[R]], /) -> Callable[P, Coro[R]]: ...


@overload
def flow(fn: Callable[P, Coro[R]], /) -> Callable[P, Coro[R]]: ...
@overload
def flow(*, name: str = ..., version: str = ..., **how: Unpack[How]) -> _Flow: ...
def flow(fn: Any = None, /, *, name: str = "", version: str = "", **how: Any) -> Any:
    """Make an async function a flow: recorded call by call, replayed after a wait or a crash, never paid twice.

    Inside, await steps, other flows and the `segue.` verbs; whatever it does besides may happen again at
    any wait. `name` is how stored runs find it, wherever it stands (default: the function's qualified name, in its
    module); `version` (default: a fingerprint of the source) is recorded with each run. Other options, such as
    `model`, hold for runs of it where neither who starts them nor `using()` says otherwise; awaited in another flow,
    for its own code.
    """
    options = configured("flow()", how) if how else None
    checks.text("name of flow()", name)
    checks.text("version of flow()", version)
    if fn is None:
        return functools.partial(flow, name=name, version=version, **how)
    checks.function("flow", fn)
    if not inspect.iscoroutinefunction(fn):
        raise TypeError(
            f"a flow must be an async function; make {fn.__qualname__}() `async def`, or a @segue.step"
        )
    label = name or fn.__qualname__.replace("<locals>.", "")
    definition = FlowDef(fn, label, version, options, named=bool(name))

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> FlowCall:
        return FlowCall(definition, args, kwargs)

    call.__segue__ = definition  # type: ignore[attr-defined]  # how verbs recognise it
    if sys.version_info >= (3, 12):  # frameworks ask whether it is to be awaited
        inspect.markcoroutinefunction(call)
    else:
        call._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    announce(definition, fn.__code__.co_filename, fn.__module__)
    return call


def definition(fn: Any) -> Any:
    """The definition behind a decorated function or an actor class, or None."""
    return getattr(fn, "__segue__", None)


def take_call(call: Any) -> tuple[Target, bytes]:
    """The flow and the arguments of a call given to an engine; of an actor, its class and fields."""
    if isinstance(call, FlowCall):
        return call.take()
    actor = definition(type(call))
    if actor is not None:
        return actor, actor.take(call)
    if inspect.iscoroutine(call):
        step = taken_apart(call)
        if step is not None:
            target = _of_step(step[0])
            return target, target.encode_call(*step[1:])
        call.close()
        raise UnknownName(
            "flow",
            call.__qualname__,
            f"decorate {call.__qualname__}() with @segue.flow or @segue.step to run it",
        )
    raise TypeError(
        f"an engine runs the call of a flow, a step or an actor, as in `engine.run(my_flow(…))`, not {call!r}"
    )
