"""Running a run's journal through today's code: nothing is called and nothing is written."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from ...authoring.actor.checkpoint import read_stored
from ...authoring.context import Act, Branch, Wait, WireCall, Work
from ...authoring.pooled import Named
from ...authoring.stopping import Stop
from ...core.replay import Place
from ...model.entry import Entry, Failure
from ...model.errors import AuthorError, InputMismatch, ReplayMismatch, ResultMismatch, UnknownName
from ...model.lane import Answer
from ...model.message import Mail, Question
from ...model.mode import Config
from ...model.run import ENDED, Head
from ...ports.clock import Timer
from ...ports.store import Claimed, CommitResult, Landed, Store, Turn
from ..calls.call import Call
from ..ground import tasks
from ..wake.code import code_of
from ..wake.executor import Executor
from ..wake.host import Host
from ..wake.mailbox import HAND
from ..wake.rebase import refuse_damaged, written_of
from ..wake.resting import Rests
from ..worker import Worker
from .losses import Losses
from .parity import Requests

#: Calls whose outcome is a value of the author's, as they wrote it.
_TYPED = ("step", "child", "join", "request")
CURE = "What a flow does must follow from its arguments and from recorded calls alone."


#: Gets the first difference while the code still stands there.
Looker = Callable[[Exception, "Replayed"], None]
#: Gets each call that the code makes, while it stands there, and what is recorded of it, if anything.
Watcher = Callable[["Replayed", Branch, Work | Wait | Act, Entry | None], None]


async def replay_stored(
    worker: Worker,
    store: Store,
    head: Head,
    *,
    look: Looker | None = None,
    watch: Watcher | None = None,
    requests: Requests | None = None,
) -> None:
    """Replay a run that a store has; see `replay`."""
    stored, entries = await store.load(head.id), await written_of(store, head.id)
    await replay(worker, head, entries, stored=stored, look=look, watch=watch, requests=requests)


async def replay(
    worker: Worker,
    head: Head,
    entries: Sequence[Entry],
    *,
    stored: Claimed | None = None,
    look: Looker | None = None,
    watch: Watcher | None = None,
    requests: Requests | None = None,
) -> None:
    """Run a run's entries, large contents in place, through the code that this process has.

    Raises `ReplayMismatch` for the first call that differs, a new one too, and `ResultMismatch` for another
    result; `UnknownName` if this process doesn't know the flow. A run that hasn't ended is replayed up to where
    it stands: what the code does from there on is no difference. Of an actor, that is its last turn, from the
    checkpoint that is `stored` on: a state, or the message in hand if the inbox still has it. The rest is history.
    `requests` are told of every model call. Raises `Damaged` for one whose record can't be read.
    """
    refuse_damaged(head)
    spec = head.spec
    target = worker.target(spec.target, spec.module)
    if target is None or target.kind != spec.kind:
        raise UnknownName(spec.kind, spec.target, "import the module that defines it")
    claimed = Claimed(head, None, None, [], [])
    if spec.kind == "actor":
        if stored is not None:
            claimed = msgspec.structs.replace(stored, head=head, pool=None, journal=[])
        if not _can_be_replayed(claimed, entries):
            return
    replayed = Replayed(
        Desk(worker, head, requests), claimed, list(entries), head.spec.config.over(worker.config)
    )
    replayed.look, replayed.watch = look, watch
    if target.version == spec.version:  # else what was written may be of other classes
        replayed.losses = losses = Losses(target.name)
        losses.look("its arguments", spec.args, target.check_args)
        if head.value is not None:
            losses.look("its result", head.value, target.read_result)
    replayed.begin(code_of(target, claimed, replayed))
    try:
        await replayed.has_left()
    except asyncio.CancelledError:
        await replayed.stopped()
        raise
    if replayed.losses is not None:
        replayed.losses.tell(head.id)
    replayed.compare(head)


def _can_be_replayed(actor: Claimed, entries: Sequence[Entry]) -> bool:
    """Whether what an actor's journal tells of can be carried out again: its message may be gone."""
    hand = next((entry.value for entry in entries if (entry.path, entry.n) == HAND), None)
    if hand is not None:
        return any(letter.id == int(hand) for letter in actor.inbox)
    if actor.checkpoint is None or actor.inbox:
        return True
    stored = read_stored(actor.checkpoint, actor.deltas)
    return stored.fresh or bool(stored.state) or stored.end is not None


class Replayed(Executor):
    """A run that is replayed, and compared with what it did."""

    def __init__(self, host: Host, claimed: Claimed, entries: list[Entry], config: Config) -> None:
        super().__init__(host, claimed, entries, None, config)
        self.rebased = any(entry.opened is not None for entry in entries)
        self.difference: Exception | None = None
        self.last = Turn(run=self.id, fence=0)
        self.look: Looker | None = None
        self.watch: Watcher | None = None
        self.losses: Losses | None = None
        #: Its code came to its end. That of one that was cancelled while it was held stopped where it stood.
        self.is_over = self.head.status in ENDED and not self.head.reason
        self.fresh: list[Call] = []  # calls that the journal doesn't have

    async def stopped(self) -> None:
        """Let go of the code: its tasks mustn't outlive the engine."""
        if not self.leaving:
            self.abandon(None)
        await self.has_left()

    def compare(self, head: Head) -> None:
        """Raise what differs."""
        if self.error is not None:
            raise self.error
        if self.difference is not None:
            raise self.difference
        if not self.is_over or self.hurried:
            return
        was, now = (_outcome(end.status, end.value, end.error) for end in (head, self.last))
        if was != now:
            raise ResultMismatch(self.id, was, now)

    def fall_apart(self) -> None:
        """It is looked at when it is over."""

    def start(self, call: Call) -> None:
        self.fresh.append(call)  # judged at rest: a run may end while a task that nobody awaits begins a call

    def record(self, branch: Branch, request: Work | Wait | Act, place: Place | None = None) -> Future[Any]:
        if self.watch is not None and not self.leaving:
            self.watch(self, branch, request, self.replay.calls.get((branch.path, branch.n)))
        if self.losses is not None and request.kind in _TYPED:
            entry = self.replay.calls.get((branch.path, branch.n))
            if entry is not None and entry.value is not None:
                self.losses.look(f"what {request.name!r} gave", entry.value, request.decode)
        return super().record(branch, request, place)

    def perform(self, branch: Branch, work: Work) -> Awaitable[Any]:
        return self.record(branch, work.sealed())  # nothing is carried out here, in the caller's task neither

    def differs(self, error: ReplayMismatch | InputMismatch) -> None:
        """Stop at the first difference."""
        if isinstance(error, InputMismatch):
            self.difference = self.difference or error
        elif self.difference is None:
            cure = "" if "\n" in error.difference else CURE  # a comparison of arguments names its own
            self.difference = ReplayMismatch(
                error.run, error.path, error.n, error.recorded, error.asked, error.difference, cure=cure
            )
        self.hold("it differs")

    def pending(self, call: Call, entry: Entry) -> None:
        """It had no outcome when the run ended, or has none yet."""

    def returned(self, value: bytes) -> None:
        """It is looked at when it is at rest."""

    def end(self) -> None:
        for call in self.fresh:
            if isinstance(call.request, Act) and not call.done() and self.is_over:
                self.new(call)
                return
        super().end()

    def new(self, call: Call) -> None:
        shown = call.request.args[:200].decode("utf-8", "replace")
        self.differs(_mismatch(self, *call.place, "nothing", call.request, f"Its arguments: {shown}."))

    def judge(self) -> bool:
        """At rest too early: whether a time that went off is the way on, or a call that isn't recorded stands in it."""
        if (bounded := tasks.next_bounded(self.tasks)) is not None:
            bounded.strike()  # nothing that is recorded leads to the end that there was: so this went off
            self.kick()
            return True
        for call in self.fresh:
            if not call.done():
                self.new(call)
                return True
        return False

    def idle(self) -> None:
        if self.still.foreign_since is not None:
            return
        if not self.is_over:
            super().hold("it stands here")
            return
        if self.judge():
            return
        for call in self.open.values():
            why = "The code waits for its outcome, where the recorded run ended without."
            self.differs(_mismatch(self, *call.place, "open", call.request, why))
            return
        if self.still.stuck(self.tasks):
            self.hold("every task waits")

    def hold(self, reason: str) -> None:
        if self.difference is None:
            self.difference = AuthorError(f"run {self.id!r}, replayed: {reason}")
        if self.look is not None and not self.leaving:
            self.look(self.difference, self)
        super().hold(reason)

    def write(self, turn: Turn, then: Callable[[], None]) -> None:
        self.last = turn
        then()


def _mismatch(
    run: Executor, path: str, n: int, recorded: str, request: Work | Wait | Act, why: str
) -> ReplayMismatch:
    return ReplayMismatch(run.id, path, n, recorded, f"{request.kind} {request.name!r}", why)


def _outcome(status: str, value: bytes | None, error: Failure | None) -> str:
    """How a run ended, to be compared and shown."""
    if error is not None:
        return f"{status}: {error.type}: {error.message}"
    return f"{status}: {(value or b'null').decode()}"


class Desk:
    """A host that carries nothing out."""

    def __init__(self, worker: Worker, head: Head, requests: Requests | None) -> None:
        self._worker, self._head, self._requests = worker, head, requests
        self.loop: AbstractEventLoop = worker.loop
        self.name, self.port = worker.name, ""
        self.linger = worker.linger
        self.park_always, self.at_once = False, True
        self.budgets = worker.budgets
        self.is_roomy = False
        self.rests: Rests | None = None
        self.watchers: Mapping[str, Any] = {}
        self.followed: Mapping[str, Callable[[str], None]] = {}

    def models(self, names: Any, config: Config) -> list[str]:
        return self._worker.models(names, config)

    def model_call(
        self, branch: Branch, config: Config, model: str, request: Any, args: bytes, digest: bytes
    ) -> Work | Wait:
        if self._requests is not None:
            return self._requests.model_call(branch, config, model, request, args, digest)
        return self._worker.model_call(branch, config, model, request, args, digest)

    def wire_call(self, branch: Branch, config: Config, call: WireCall) -> Work | Wait:
        if self._requests is not None:
            return self._requests.wire_call(branch, config, call)
        return self._worker.wire_call(branch, config, call, replays=True)

    async def in_thread(self, fn: Callable[[], Any], stop: Stop | None = None, **how: Any) -> Any:
        return await self._worker.in_thread(fn, stop, **how)

    async def in_process(
        self, work: Named, timeout: float | None, told: Callable[[str], None] | None = None
    ) -> bytes:
        return await self._worker.in_process(work, timeout, told)

    def waits(self, run: str, place: tuple[str, int], name: str, what: str) -> None:
        """Nobody watches."""

    async def get_resource(self, fn: Callable[[], Any]) -> Any:
        return await self._worker.get_resource(fn)

    def handle(self, run: str, target: Any, place: tuple[str, int] | None) -> Any:
        return self._worker.handle(run, target, place)

    def register(self, target: Any) -> None:
        self._worker.register(target)

    async def sleep(self, seconds: float) -> None:
        await self._worker.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return self._worker.call_later(seconds, callback)

    def commit(self, turn: Turn, then: Landed) -> CommitResult:
        return "committed"

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool:
        return True

    def pump_soon(self, executor: Executor) -> None:
        self.loop.call_soon(executor.pump)

    def target(self, name: str, module: str = "") -> Any:
        return self._worker.target(name, module)

    async def find(self, run: str) -> Head | None:
        return None

    def clock_now(self) -> float:
        return self._head.updated

    def ended(self, run: Executor) -> None: ...
    def answer(self, answers: Sequence[Mail], /) -> None: ...

    def asked(self, questions: Sequence[Question]) -> None: ...
    def kept(self, answers: Sequence[Answer]) -> None: ...
    async def look(self, executor: Executor) -> None: ...
    def publish(self, run: str, event: object) -> None: ...

    def wants_events(self, run: str) -> bool:
        return False
