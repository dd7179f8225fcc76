"""Where code stands: the run and the branch that it acts for."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from asyncio import AbstractEventLoop, Future, _get_running_loop
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context, ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self

import msgspec

from ..core.replay import Place
from ..model.budget import Account, Amount
from ..model.chat import Tokens
from ..model.entry import Failure
from ..model.errors import NotInRun, WrongPlace, called
from ..model.message import Mail
from ..model.mode import Config
from ..model.run import Head
from ..ports.store import Turn
from .pooled import Named
from .stopping import Stop

if TYPE_CHECKING:
    from ..ports.transport import Transport
    from ..providers.wire.dialect import Request

Effect = Literal["idempotent", "keyed", "at-most-once"]
Decode = Callable[[bytes], Any]


class Parked(asyncio.CancelledError):
    """Raised by every `segue.` call of a run that is leaving memory. Let it pass: the run goes on later."""


class Branch:
    """One task of a run: its place in the tree of tasks and the number of its next call."""

    __slots__ = ("kids", "n", "over", "path", "run", "slot", "timeouts")

    def __init__(self, run: RunContext, path: str, slot: Slot | None = None) -> None:
        self.run = run
        self.path = path
        self.n = 0
        self.timeouts = 0  #: how many of asyncio's it has entered
        self.kids: dict[str, int] | None = None
        self.slot = slot
        self.over = False  #: the handler that its task was started in is done: it calls no more

    def restart(self, path: str) -> None:
        """Stand at the beginning of another path."""
        self.path, self.n, self.timeouts, self.kids = path, 0, 0, None

    def number(self, name: str) -> int:
        """How many of that name this one has begun before."""
        kids = self.kids
        if kids is None:
            kids = self.kids = {}
        number = kids.get(name, 0)
        kids[name] = number + 1
        return number

    def child(self, name: str) -> Branch:
        """The branch of a task that this one starts, numbered per name."""
        branch = Branch(self.run, f"{self.path}/{name}.{self.number(name)}", self.slot)
        branch.over = self.over
        return branch


class Slot(Protocol):
    """A place among a map's items at work; given up while the item waits for something that can take long."""

    def leave(self) -> None: ...
    def enter(self) -> None: ...


class Need(msgspec.Struct, kw_only=True):
    """What a call must have room for in its budgets before it begins. `id` is its own, in every life of its run.

    `estimate` says how much it may cost and `cost` how much an answer did; both raise where no price is known.
    `reserved`: the room that it has; `spoilt`: answers that came and were no use, which are paid all the same.
    """

    id: str
    accounts: tuple[Account, ...]
    estimate: Callable[[], Amount]
    cost: Callable[[Tokens], Amount]
    reserved: Amount = Amount()
    spoilt: int = 0

    def spoil(self) -> None:
        """An answer came and was no use."""
        self.spoilt += 1


async def _is_over() -> Any:
    raise RuntimeError("this work was carried out already")


class Work(msgspec.Struct, kw_only=True):
    """A call that this process carries out: a step, or a model call in live mode.

    `run` gives the value as JSON, or raises; `again` tells whether a retry policy would try that error
    once more. An at-most-once call is journaled before it starts. `settles` is told the turn that records the answer,
    where that may be another call's, and gives the lane in which it counts, if not in `lane`.
    """

    kind: str
    name: str
    args: bytes
    digest: bytes
    decode: Decode
    run: Callable[[], Awaitable[Any]] = _is_over
    again: Callable[[BaseException], bool] | None = None
    effect: Effect = "idempotent"
    model: str = ""  #: of a model call: whose tokens these are
    lane: str = "live"  #: and how they are counted
    caller: Branch | None = None  #: of a step: who called it
    settles: Callable[[Turn], str] | None = None
    need: Need | None = None  #: of a model call that is on a budget
    sent: bool = False  #: a provider has it, and bills it whatever becomes of it here

    @property
    def key(self) -> str:
        """What names it to the world."""
        return ""

    def sealed(self) -> Self:
        """It, with its digest: a step that is carried out by itself is spared that."""
        return self

    def begin(self) -> Awaitable[Any]:
        """Set it going; what it gives is to be `written`."""
        return self.run()

    def written(self, value: Any) -> bytes:
        """What it gave, as JSON. Raises as the work itself would."""
        data: bytes = value
        return data

    def let_go(self) -> None:
        """It is over. What it opened and keeps open, say a pooled connection, keeps its context, and so this."""
        self.run, self.caller = _is_over, None


class Wait(msgspec.Struct, kw_only=True):
    """A call that outlives this process: it is journaled when made, and its outcome comes as mail.

    `opens` adds what the world must be told to the turn (a line, a question, a child), and `opened` is the place by
    which it knows the call then: see `opening`. `due` is when the wait is over by itself, in epoch seconds, with `late`
    as its outcome.
    `drops` tells the world that nobody waits any more, as `opens` told it of the wait.
    `accepts` are the names of the mail that a `receive` takes; `joins` is the place of the `spawn` whose run's
    end is waited for, and `looks` that run, where it may be of somebody else. `to`: the run that is to handle a request
    in its turn.
    """

    kind: str
    name: str
    args: bytes
    digest: bytes
    decode: Decode
    opens: Callable[[Turn], None] | None = None
    drops: Callable[[Turn], None] | None = None
    opened: Place | None = None
    due: float = 0.0
    late: bytes | Failure = b"null"
    accepts: frozenset[str] = frozenset()
    joins: Place | None = None
    looks: str = ""
    to: str = ""
    model: str = ""
    lane: str = "batch"
    need: Need | None = None


class Act(msgspec.Struct, kw_only=True):
    """A call that is done by being committed: mail, a run. `writes` adds it to the turn; `opened` as of `Wait`."""

    kind: str
    name: str
    args: bytes
    digest: bytes
    decode: Decode
    writes: Callable[[Turn, str, int], None]
    value: bytes = b"null"
    opened: Place | None = None


#: What tells a service that a request is one that it has had.
KEY_HEADER: Final = "idempotency-key"


class WireCall(msgspec.Struct, kw_only=True):
    """A request of an SDK: a model call, if it is recognised as one (`request`).

    `headers` go out with a live call and nowhere else. `key` names the variable that holds the key of a batch.
    `transport` is the author's own, if there is one. `passing` takes a live answer as it comes, where the SDK
    asked for a stream. `nth`: how many with a key against doubles that are like it its branch made before.
    """

    method: str
    url: str
    body: bytes
    headers: Mapping[str, str]
    request: Request | None
    args: bytes
    digest: bytes
    transport: Transport | None = None
    key: str = ""
    passing: Passing | None = None
    nth: int = 0


class Answered(msgspec.Struct, frozen=True):
    """What came of an SDK's request. `body` of a model call is the provider's, as it is without a stream."""

    body: bytes
    tokens: Tokens = Tokens()
    status: int = 200
    media: str = "application/json"


class Passing(Protocol):
    """A live answer on its way to the code that asked for it. `call` is the recorded one."""

    call: Future[Any] | None
    began: bool  #: the code has it, as far as it has come
    came: list[bytes]  #: all that has

    def begin(self) -> None:
        """Give the code what has come, and what comes from now on."""
        ...

    def take(self, frames: Sequence[bytes]) -> None:
        """More of it has come."""
        ...

    def end(self, frames: Sequence[bytes]) -> None:
        """It is whole; these are for when it is recorded."""
        ...

    def forget(self) -> None:
        """It failed before the code had any of it, and comes anew."""
        ...


class Reader(Protocol):
    """Code that reads an answer piece by piece."""

    @property
    def waits(self) -> bool:
        """Whether it waits for a piece."""
        ...

    @property
    def ready(self) -> bool:
        """Whether one is there, or the end."""
        ...

    def give(self) -> None:
        """Let it have that."""
        ...


class Letters(Protocol):
    """The requests and subscriptions that a run keeps, and who waits for it."""

    def callers(self, path: str = "", *, kept_only: bool = False) -> tuple[str, ...]:
        """The runs that wait, in chains, for this one to answer: the request in hand, unless it is done with its
        handler, those that are kept, and the urgent one that is carried out at that path."""
        ...

    def owes(self, letter: int) -> bool:
        """Whether that request is in hand or kept, and hasn't been answered."""
        ...

    def answered(self, letter: int) -> None:
        """The code answers that request, in a replay too."""
        ...

    def release(self, letter: int) -> None:
        """With the next commit, a request is answered."""
        ...

    def drop_events(self, key: str) -> None:
        """Nobody wants the events of that subscription any more."""
        ...

    def subscribers(self, name: str) -> list[Mail]:
        """Those who subscribed to messages of that name."""
        ...


def opening(branch: Branch, kind: str, name: str, digest: bytes, args: bytes) -> Place:
    """The place by which the world is to know the call that a branch makes next: where it stands.

    Once the run was made to go on, perhaps under changed code, its number is another than all that were used before; a
    call that waited then keeps its own, wherever it stands now. So nothing is begun twice for it, and what comes for
    another call that stood there isn't taken for its outcome.
    """
    run = branch.run
    if not run.rebased:
        return branch.path, branch.n
    return run.opening(branch.path, branch.n, kind, name, digest, args)[0]


class RunContext(Protocol):
    """What the verbs need of the run that they act for."""

    id: str
    config: Config
    callers: tuple[str, ...]
    rebased: bool  #: it goes on from another journal, under changed code perhaps
    loop: asyncio.AbstractEventLoop

    @property
    def revived(self) -> int:
        """How often a person has had it go on."""
        ...

    def opening(
        self, path: str, n: int, kind: str, name: str, digest: bytes, args: bytes
    ) -> tuple[Place, bool]:
        """The place by which the world is to know the call that the code is about to make there, and whether a journal
        has that call already."""
        ...

    @property
    def mark(self) -> str:
        """What tells it from all runs, those of the same id in other stores too."""
        ...

    @property
    def seed(self) -> str:
        """What its ids and chance are drawn from: its mark, or a fork's origin's."""
        ...

    @property
    def letters(self) -> Letters: ...

    def record(self, branch: Branch, request: Work | Wait | Act, /) -> Future[Any]:
        """Record a call. The future gives its outcome when the journal holds it and the run is at rest."""
        ...

    def perform(self, branch: Branch, work: Work, /) -> Awaitable[Any]:
        """Record work and wait for it; in the caller's own task where nothing else of the run is under way."""
        ...

    def offer(self, call: Future[Any], begins: Callable[[], None], /) -> None:
        """A live call's answer begins to come, and the code is to have it as it comes.

        `begins` is called at the next rest; from then until the call's outcome is handed over, no other is.
        """
        ...

    def reads(self, reader: Reader, /) -> None:
        """A reader waits, or a piece has come for one: it is given at a rest, before anything else is handed over."""
        ...

    def unread(self, call: Future[Any], /) -> None:
        """The code that read a live answer was cancelled. If upon what it had read, the answer is recorded."""
        ...

    def own_wait(self) -> Future[Any]:
        """A future that work of this wake will set; a task that waits for it is at rest, and nothing is recorded."""
        ...

    @property
    def handed(self) -> int:
        """How many batches of outcomes the code was given in this life."""
        ...

    def now(self) -> float:
        """The time of the batch last handed over, in epoch seconds."""
        ...

    def emit(self, event: object, path: str = "", /) -> None:
        """Tell whoever watches, from there; not recorded."""
        ...

    @property
    def services(self) -> Services: ...

    @property
    def supervisor(self) -> Any:
        """What keeps the children of the actor that this run is; None in a flow."""
        ...

    def next_number(self) -> int:
        """The number of the next message that this run sends."""
        ...


class Services(Protocol):
    """What a run's verbs need of the engine around it."""

    linger: float

    def models(self, names: Sequence[str], config: Config) -> list[str]:
        """Names and roles as full model names; raises `UnknownName` for one that can't be had."""
        ...

    def model_call(
        self, branch: Branch, config: Config, model: str, request: Any, args: bytes, digest: bytes
    ) -> Work | Wait:
        """A recorded call of that model, carried out as the configuration's mode says."""
        ...

    def wire_call(self, branch: Branch, config: Config, call: WireCall) -> Work | Wait:
        """An SDK's request as a recorded call, carried out as the configuration's mode says; gives an `Answered`."""
        ...

    async def in_thread(
        self,
        fn: Callable[[], Any],
        stop: Stop | None = None,
        *,
        timeout: float | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Any:
        """Run a blocking function off the loop, with the caller's context; given up, it is asked to `stop`.

        `timeout`: in seconds, from when a thread has begun it; raises `OverTime`. `told` what it waits for, if it waits
        long before that.
        """
        ...

    async def in_process(
        self, work: Named, timeout: float | None, told: Callable[[str], None] | None = None
    ) -> bytes:
        """Have work done in another process. `timeout` and `told` as of `in_thread`."""
        ...

    def waits(self, run: str, place: Place, name: str, what: str) -> None:
        """Tell who watches a run what its call of that name waits for."""
        ...

    async def get_resource(self, fn: Callable[[], Any]) -> Any:
        """A process's one instance of a resource."""
        ...

    def handle(self, run: str, target: Any, place: Place | None) -> Any:
        """The `Run` of a run spawned at that place."""
        ...

    def register(self, target: Any) -> None:
        """Make a flow or actor known to the workers of this process."""
        ...

    def target(self, name: str, module: str = "") -> Any:
        """The flow or actor that was made known under that name, or None; of several, the one of that module."""
        ...

    async def find(self, run: str) -> Head | None:
        """A run's record, if it is there."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait in this process."""
        ...


#: The branch by context, for code that runs in no task. In the context of recorded work, that work, or its name.
BRANCH: ContextVar[Branch | Work | str | None] = ContextVar("segue_branch", default=None)


class BranchTask(asyncio.Task[Any]):
    """A task that a run started."""

    __slots__ = ("branch", "outside", "within")

    branch: Branch | None
    within: Context  #: its context
    #: Of a run's first task: what is done when it is cancelled from outside.
    outside: Callable[[], None] | None

    def cancel(self, msg: object = None) -> bool:
        """As of any task. Who stands outside all runs, as a loop that ends, doesn't end the run by that."""
        if self.outside is not None and BRANCH.get() is None:
            self.outside()
        return super().cancel(msg)


#: As `asyncio.current_task`, which is written in Python before 3.12: it is asked at every call.
_current_task: Callable[[AbstractEventLoop], asyncio.Task[Any] | None] = (
    asyncio.current_task if sys.version_info >= (3, 12) else asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]  # where `current_task` looks
)


#: Before 3.12, asyncio asks the system for the process's number to say which loop runs; each call of a run asks that.
_ASKS_SYSTEM: Final = sys.version_info < (3, 12)


class Home(threading.local):
    """Where asyncio asks the system: the loop of its own that has runs in this thread. It may run in another by now."""

    loop: Any = None

    def enter(self, loop: AbstractEventLoop) -> None:
        """There are runs on that one from now on."""
        if _ASKS_SYSTEM and hasattr(loop, "_thread_id"):  # others don't say where they run
            self.loop = loop

    def forget(self) -> None:
        """No longer; nor does it run in a process that was forked here."""
        self.loop = None


HOME = Home()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HOME.forget)


def running_loop() -> AbstractEventLoop | None:
    """The loop that runs in this thread."""
    loop = HOME.loop if _ASKS_SYSTEM else None
    if loop is None or loop._thread_id != get_ident():
        return _get_running_loop()
    return loop  # type: ignore[no-any-return]  # `enter` took it


def find_branch() -> Branch | None:
    """The branch that the calling code belongs to: by task, or by context where there is no task."""
    loop = HOME.loop if _ASKS_SYSTEM else None  # as `running_loop`, without its call
    if loop is None or loop._thread_id != get_ident():
        loop = _get_running_loop()
    task = None if loop is None else _current_task(loop)
    if task is None:
        found = BRANCH.get()
        return found if isinstance(found, Branch) else None
    return task.branch if type(task) is BranchTask else None


def current(verb: str) -> Branch:
    """The branch that the caller acts for. Raises `NotInRun`, or `WrongPlace` inside a step or a plain handler."""
    branch = find_branch()
    if branch is None:
        inside = BRANCH.get()
        if isinstance(inside, Work):
            raise WrongPlace(
                f"{called(verb)} was called inside the step {inside.name!r}, which is recorded whole and so "
                f"can't wait for it or record it; make {inside.name!r} a flow (@segue.flow) instead"
            )
        if isinstance(inside, str):
            raise WrongPlace(
                f"{called(verb)} was called inside the handler {inside}(), which runs off the event loop and so "
                f"can't wait for it or record it; make it an `async def`, and what has to run there a step"
            )
        raise NotInRun(verb)
    return branch
