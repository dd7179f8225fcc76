"""Steps: functions that are recorded whole."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from copy import copy
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    ParamSpec,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    get_args,
    overload,
)

from ..core.codec import decoder, digest, encode
from ..core.encoding import write
from ..core.retry import Retry
from ..core.signature import InputShape
from ..model import checks
from ..model.errors import AuthorError, ProcessDied, WrongPlace
from .context import BRANCH, Branch, Effect, Work, find_branch
from .pooled import Named, OverTime, Pool, named, side_by_side, within
from .time import pause

if TYPE_CHECKING:
    from typing_extensions import Unpack

P = ParamSpec("P")
R = TypeVar("R")
if TYPE_CHECKING:
    Coro = Coroutine[Any, Any, R]

#: Arguments of these types can't be changed by a step.
_FIXED = frozenset({str, int, float, bool, bytes, type(None)})


class ChangedArgument(AuthorError):
    """A step changed one of its arguments, which a replay wouldn't do again."""

    def __init__(self, step: str) -> None:
        self.step = step
        super().__init__(
            f"the step {step!r} changed one of its arguments; a replay doesn't run it and so wouldn't: "
            f"let it work on a copy and return what changed"
        )


class StepDef:
    """What is known of a step."""

    __slots__ = (
        "_shape",
        "call",
        "decode",
        "effect",
        "fn",
        "is_async",
        "is_plain",
        "name",
        "named",
        "place",
        "retry",
        "timeout",
        "where",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        retry: Retry,
        timeout: timedelta | None,
        effect: Effect,
        pool: Pool = "thread",
    ) -> None:
        self.fn, self.name, self.retry, self.timeout = fn, name, retry, timeout
        self.named = False  #: its name was given, and so is its own wherever it stands
        self.effect: Effect = effect
        self.place = named(fn) if pool == "process" else None  #: where another process finds it
        self.is_async = inspect.iscoroutinefunction(fn)
        self.is_plain = self.is_async and timeout is None and self.place is None
        self._shape: InputShape | None = None
        self.decode: Callable[[bytes], Any] | None = None
        self.where = f"the result of step {name!r}"
        self.call: Callable[..., Any] | None = None  #: what the decorator made of it

    @property
    def shape(self) -> InputShape:
        """How its arguments are written; see `InputShape`."""
        if self._shape is None:
            shape = InputShape.of(self.fn)
            self.decode = decoder(
                shape.result_type, self.where
            )  # which may raise, and then does so at each call
            self._shape = shape
        return self._shape

    def again(self, error: BaseException) -> bool:
        """Whether its policy would try that error once more."""
        if self.retry.attempts == 1 or (self.effect == "at-most-once" and isinstance(error, ProcessDied)):
            return False
        judged: bool | None = getattr(error, "__segue_again__", None)  # in the process where it was raised
        return self.retry.wants(error) if judged is None else judged

    @property
    def file(self) -> str:
        """The file that defines it."""
        code = getattr(inspect.unwrap(self.fn), "__code__", None)
        return code.co_filename if code is not None else getattr(self.fn, "__module__", "")

    def carry_out(self, work: Named) -> bytes:
        """A call that came from another process."""
        args, kwargs = self.shape.decode_call(work.data)
        here = _Away(kind="step", name=self.name, args=b"", digest=b"", decode=bytes, told=work.key)
        BRANCH.set(here)  # what the function may ask of where it is
        value = self.fn(*args, **kwargs)
        if self.is_async:
            value = asyncio.run(value)
        return encode(value, where=self.where)

    def plain(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """A call outside a run: nothing but the function, off the loop if it is sync. Raises `WrongPlace` in a thread
        of a run's.
        """
        around = BRANCH.get()
        if isinstance(around, Branch) and around.run.loop is not asyncio.get_running_loop():
            raise WrongPlace(
                f"the step {self.name!r} was called in a thread that run {around.run.id!r} began, where it can't be "
                f"recorded; await it in the flow, and hand on to the thread what it gives"
            )
        if self.is_async:
            result: Awaitable[Any] = self.fn(*args, **kwargs)
            return result
        return asyncio.to_thread(self.fn, *args, **kwargs)


class StepOptions(TypedDict, total=False):
    """`retry`: a policy, or a number of attempts. `effect`: what a repeated call does to the world. `pool`: where
    a plain function runs."""

    name: str
    retry: int | Retry
    timeout: timedelta
    effect: Effect
    pool: Pool


class _Step(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Coro[R]], /) -> Callable[P, Coro[R]]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Callable[P, Coro[R]]: ...


@overload
def step(fn: Callable[P, Coro[R]], /, **options: Unpack[StepOptions]) -> Callable[P, Coro[R]]: ...
@overload
def step(fn: Callable[P, R], /, **options: Unpack[StepOptions]) -> Callable[P, Coro[R]]: ...
@overload
def step(**options: Unpack[StepOptions]) -> _Step: ...
def step(fn: Any = None, /, **options: Any) -> Any:
    """Make a function a step: recorded whole, so done once, whatever crashes. A sync one runs on a thread.

    `retry` takes a number of attempts or a `Retry`; each attempt is recorded and the wait between two is
    durable. `timeout` bounds one attempt. `effect` is `idempotent` (after a crash in its middle it is done
    again), `keyed` (the same, with `segue.idempotency_key()` to hand on) or `at-most-once` (it isn't done
    again: the run is held). `pool="process"` is for work that needs a core of its own: it runs in another process,
    which imports its module; arguments and result go there as JSON. One that dies raises `ProcessDied`, which `retry`
    takes. (Where threads run side by side, on a free-threaded Python, it is a thread.) Outside a run the function is
    just called.
    """
    checks.options("step()", options, StepOptions.__annotations__)
    if fn is None:
        return functools.partial(step, **options)
    definition = make(fn, **options)

    @functools.wraps(fn)
    async def call(*args: Any, **kwargs: Any) -> Any:
        branch = find_branch()
        if branch is None:
            return await definition.plain(*args, **kwargs)
        if definition.retry.attempts == 1:
            return await branch.run.perform(branch, attempt(branch, definition, args, kwargs))
        return await carry_out(branch, definition, args, kwargs)

    call.__segue__ = definition  # type: ignore[attr-defined]  # how verbs recognise it
    definition.call = call
    _announce(definition)
    return call


#: Steps that were defined, by name: a run may be of one alone. None where several files have one of that name.
STEPS: dict[str, StepDef | None] = {}


def _announce(step: StepDef) -> None:
    known = STEPS.get(step.name, step)
    STEPS[step.name] = step if known is not None and known.file == step.file else None


def taken_apart(call: Coroutine[Any, Any, Any]) -> tuple[StepDef, tuple[Any, ...], dict[str, Any]] | None:
    """The step, and the arguments, of a call of one that hasn't begun; None for any other coroutine."""
    frame = getattr(call, "cr_frame", None)
    if frame is None or inspect.getcoroutinestate(call) != inspect.CORO_CREATED:
        return None
    held = frame.f_locals
    step = held.get("definition")
    if not isinstance(step, StepDef) or step.call is None or frame.f_code is not step.call.__code__:
        return None
    args, kwargs = held["args"], held["kwargs"]
    call.close()
    return step, args, kwargs


def make(
    fn: Callable[..., Any],
    /,
    *,
    name: str = "",
    retry: int | Retry = 1,
    timeout: timedelta | None = None,
    effect: Effect = "idempotent",
    pool: Pool = "thread",
) -> StepDef:
    """The definition of a step. Raises `InvalidValue` for an option that can't be, `TypeError` for what is no step."""
    checks.function("step", fn)
    label = name or getattr(fn, "__qualname__", type(fn).__qualname__).replace("<locals>.", "")
    checks.text("name of step()", name)
    checks.one_of(f"effect of step {label!r}", effect, get_args(Effect))
    checks.one_of(f"pool of step {label!r}", pool, get_args(Pool))
    if timeout is not None:
        checks.seconds(f"timeout of step {label!r}", timeout)
    policy = retry if isinstance(retry, Retry) else Retry(retry)
    made = StepDef(fn, label, policy, timeout, effect, pool)
    made.named = bool(name)
    return made


async def carry_out(branch: Branch, step: StepDef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record a call of a step on that branch, with its retries."""
    first, place = attempt(branch, step, args, kwargs), f"{branch.path}:{branch.n}"
    attempts = 1
    while True:
        try:
            return await branch.run.perform(branch, copy(first))  # what is over isn't carried out again
        except Exception as error:
            if attempts >= step.retry.attempts or not getattr(error, "__segue_again__", False):
                raise
            await pause(branch, step.retry.wait_after(attempts, f"{branch.run.seed}{place}"))
            attempts += 1


#: No arguments by name.
_NONE: Final[dict[str, Any]] = {}


class Attempt(Work, kw_only=True):
    """A call of a step."""

    step: StepDef
    given: tuple[Any, ...]
    named: dict[str, Any]
    place: tuple[str, str, int]  #: of the first attempt: its run's mark, path and number
    nth: int  #: of the keyed calls of its branch that are alike

    def begin(self) -> Awaitable[Any]:
        step = self.step
        if self.caller is None:
            return self.run()  # says that it is over
        return step.fn(*self.given, **self.named) if step.is_plain else _perform(self, step)

    def sealed(self) -> Self:
        if not self.digest:
            self.digest = digest(self.args)
        return self

    def written(self, value: Any) -> bytes:
        step = self.step
        if not step.is_plain:  # it is encoded where it was carried out
            data: bytes = value
            return data
        if self.named or (self.given and write((self.given, _NONE)) != self.args):
            _check_unchanged(step, self.given, self.named, self.args)
        return encode(value, where=step.where)

    def encoded(self, value: object) -> bytes:
        """What its function gave, as JSON."""
        if self.given or self.named:
            _check_unchanged(self.step, self.given, self.named, self.args)
        return encode(value, where=self.step.where)

    def let_go(self) -> None:
        self.caller, self.given, self.named = None, (), _NONE

    @property
    def key(self) -> str:
        run, path, n = self.place
        if self.effect == "idempotent":
            return f"{run}{path}:{n}/{self.name}"
        # It may have been under way in an earlier life, and changed code may have put it elsewhere.
        return f"{run}{path}/{self.name}:{self.digest.hex()}.{self.nth}"


class _Away(Work, kw_only=True):
    """A call that another process had, and has here carried out."""

    told: str

    @property
    def key(self) -> str:
        return self.told


def attempt(branch: Branch, step: StepDef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Attempt:
    """A call of a step, to be recorded on that branch next."""
    data, check, nth = (step._shape or step.shape).encode_call(args, kwargs), b"", 0
    if step.effect != "idempotent":
        check = digest(data)
        nth = branch.number(f"{step.name}:{check.hex()}")
    return Attempt(
        kind="step",
        name=step.name,
        args=data,
        digest=check,
        decode=step.decode,  # type: ignore[arg-type]  # set with the shape
        again=step.again if step.retry.attempts > 1 else None,
        effect=step.effect,
        caller=branch,
        step=step,
        given=args,
        named=kwargs,
        place=(branch.run.mark, branch.path, branch.n),
        nth=nth,
    )


async def _perform(work: Attempt, step: StepDef) -> bytes:
    """One attempt, in this process or another one."""
    branch, args, kwargs = work.caller, work.given, work.named
    assert branch is not None  # as long as it isn't over
    services, seconds = branch.run.services, None if step.timeout is None else step.timeout.total_seconds()
    told = functools.partial(services.waits, branch.run.id, work.place[1:], step.name)
    try:
        if step.place is not None and not side_by_side():
            order = Named(*step.place, work.args, step.name, key=work.key)
            return await services.in_process(order, seconds, told)
        if not step.is_async:
            call = functools.partial(step.fn, *args, **kwargs)
            value = await services.in_thread(call, timeout=seconds, told=told)
        else:
            value = await within(seconds, step.fn(*args, **kwargs))
    except OverTime as error:
        raise TimeoutError(f"step {step.name!r} took longer than {step.timeout}") from error
    return work.encoded(value)


def _check_unchanged(step: StepDef, args: tuple[Any, ...], kwargs: dict[str, Any], data: bytes) -> None:
    if not kwargs and write((args, kwargs)) == data:
        return
    for argument in (*args, *kwargs.values()):
        if type(argument) not in _FIXED:
            if step.shape.encode_call(args, kwargs) != data:
                raise ChangedArgument(step.name)
            break


def idempotency_key() -> str:
    """Inside a step: a key that is the same at every attempt and after every crash, to hand on to a service."""
    work = BRANCH.get()
    return work.key if isinstance(work, Work) else ""
