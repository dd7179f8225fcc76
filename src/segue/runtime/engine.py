"""The engine: a store, a worker and the lanes, under one roof."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from contextvars import Token
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack
from uuid import uuid4

import msgspec

from ..authoring.actor import Actor
from ..authoring.config import How, ModelLike, as_config, configured
from ..authoring.context import find_branch, running_loop
from ..authoring.failures import own_error
from ..authoring.flow import take_call, target_of
from ..authoring.mail import make_spec
from ..authoring.resource import SERVICES
from ..core import journal
from ..core.budget import account_of, owner
from ..model import checks
from ..model.budget import STORE, Budget, Limit, Standing
from ..model.entry import Entry
from ..model.errors import Conflict, InvalidValue, MailboxFull, UnknownName, WrongPlace
from ..model.message import DeadLetter
from ..model.mode import Config, HistoryLike, ModeLike, as_history
from ..model.run import ENDED, Head, Spec, Usage
from ..ports.clock import AlarmClock
from ..ports.provider import Endpoint, Environment, PriceList, Provider
from ..ports.store import Hint, NewRun, Store
from ..ports.transport import Transport
from ..stores import open_store
from . import alive, receipt, removal
from .calls.budgets import Budgets
from .calls.models import Models
from .calls.processes import check_is_no_import
from .calls.sameness import Sameness
from .caretaker import Caretaker
from .ends import CLOSED, Ends
from .family import spent
from .ground import tasks
from .ground.bus import Bus
from .ground.clock import SystemClock
from .ground.listing import each_run
from .ground.names import new_id, unknown_run
from .ground.patience import patiently
from .handles import Ask, Run, answer_by_id
from .job import ADMIT, Job
from .lanes.lanes import Lanes
from .mail.feeds import WATCHED, Feeds
from .mail.port import Port
from .mail.postbox import Postbox
from .proof import origins, verify
from .proof.proving import Prover
from .receipt import Receipt
from .terms import Terms
from .wake import rebase, strikes
from .wake.executor import Executor
from .wake.resting import Resting
from .watch import PATIENCE
from .worker import PAID, Worker

log = logging.getLogger("segue")

#: What of an engine is made when it opens.
MADE = frozenset(
    {"worker", "models", "lanes", "port", "feeds", "postbox", "budgets", "ends", "caretaker", "terms"}
)
#: What it says before that, and once it is closed.
NOT_OPEN = "this engine isn't open: use it inside `async with Engine(…) as engine:`"
R = TypeVar("R")
In = TypeVar("In")
Out = TypeVar("Out")


class Engine:
    """Runs flows and actors on a store: `async with segue.Engine("sqlite:runs.db", model=…) as engine:`.

    `store`: `memory:` or `sqlite:PATH`. `mode`, `model` and `models` hold for all runs that don't say
    otherwise. `verify`: replay each run once when it has ended, and each turn of an actor, and raise if one differs.
    `room`: runs at work at once in this process. `linger`: how long a run stays in memory for a wait outside segue, or
    a short timer, in seconds. `stall`: how long code may keep the event loop from everything else before it is told of
    by name, in seconds; 0: for ever. `park="always"`, for tests, has it leave memory after every commit. `providers`:
    more providers, by the name before the colon in a model's name. `history`: what becomes of an actor's past turns:
    kept, dropped, or kept for that long; a class may say otherwise. `reuse`: a model call whose request was answered
    before, here or in another run, gets that answer; a `timedelta`: if it is no older than that. `grace`: how long
    calls under way may take to come in when the engine is closed, in seconds. By default those that cost get 20: live
    model calls, which are made and paid again if they are cut off, and at-most-once steps, whose runs are held.
    `budget`: for all that such engines carry out on that store; see `segue.Budget`.
    """

    def __init__(
        self,
        store: str | Store = "memory:",
        *,
        mode: ModeLike | None = None,
        model: ModelLike = (),
        models: Mapping[str, ModelLike] | None = None,
        verify: bool = False,
        room: int = 2000,
        linger: float = 1.0,
        stall: float = PATIENCE,
        park: Literal["auto", "always"] = "auto",
        grace: float | None = None,
        history: HistoryLike = "keep",
        worker: bool = True,
        providers: Mapping[str, Callable[[Endpoint], Provider]] | None = None,
        prices: PriceList | None = None,
        budget: Budget | None = None,
        clock: AlarmClock | None = None,
        reuse: bool | timedelta | None = None,
    ) -> None:
        if not isinstance(store, str) and not hasattr(store, "commit"):
            raise InvalidValue(
                "the store of an engine", "an address such as 'sqlite:runs.db'", f"it is {store!r}"
            )
        self.store = open_store(store) if isinstance(store, str) else store
        config = as_config(mode, model, models, reuse=reuse, budget=budget).opened(STORE)
        self.config = msgspec.structs.replace(config, history=as_history(history))
        self.clock: AlarmClock = clock or SystemClock()
        self.bus = Bus()
        self.verify = verify
        self._park = park
        self._room, self._linger, self._grace, self._works = room, linger, grace, worker
        self._stall = stall
        self._own_providers = dict(providers or {})
        self._prices = prices
        self._tasks: set[asyncio.Task[Any]] = set()
        self._admitting = 0
        self._replayed: dict[tuple[str, int], asyncio.Task[None]] = {}  # by run and fence
        self.broken: BaseException | None = (
            None  #: what whoever waits here gets: a stand-in for the world failed
        )
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None  #: on which it is open
        self._prover: Prover | None = None

    # ------------------------------------------------------------ a life
    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("this engine is open already: enter it once, and hand it on")
        check_is_no_import()
        self._loop, self._closed = asyncio.get_running_loop(), False
        try:
            return await self._enter()
        except BaseException:
            self._loop = None
            raise

    async def _enter(self) -> Self:
        async with AsyncExitStack() as parts:  # if one fails to open, those before it are closed
            await self._open(parts)
            self._parts = parts.pop_all()
        return self

    async def _open(self, parts: AsyncExitStack) -> None:
        """Open what there is, and say how each is closed: whatever becomes of the others, in the opposite order."""
        await self.store.open()
        parts.push_async_callback(self.store.close)
        self._assemble(parts)
        await self.lanes.promotions.learn()
        await self.terms.open()
        self._take_place(parts)
        parts.push_async_callback(self.lanes.release)
        parts.push_async_callback(self._stop)
        await self.worker.bury()
        if self._works:
            parts.callback(self.worker.start())
            self._spawn(self.caretaker.drive(self.lanes, self.worker))
            self._spawn(self.caretaker.seal())

    def _assemble(self, parts: AsyncExitStack) -> None:
        """Make who calls models, who carries out runs, who answers for this process, and who drives the lanes."""
        self.budgets = Budgets(self.store, self.clock, lambda: self.prices)
        sameness = Sameness(self.store, self.clock)
        self.models = Models(
            self._resolve, self._make, self.clock, self.bus.wants, self._open_pool, sameness, self.budgets
        )
        parts.push_async_callback(self.models.close)
        self.worker = self._make_worker()
        self.terms = Terms(self.config, self.models, self.budgets, self.store, self.clock, self.worker.wake)
        self.ends = Ends(self.store, self.worker.awake, self.check, self._spawn)
        parts.callback(self._tell_closed)
        self.postbox = Postbox(self.store, self.clock)
        now = partial(self.check, at_once=True)
        self.port = Port(self.store, self.clock, self.postbox, self.worker.port, now, self.worker.absent)
        self.worker.answer = self.port.take
        parts.callback(self.port.close)
        parts.callback(self.postbox.close)
        self.feeds = Feeds(self.store, self.clock, self.postbox, self.worker, self.config)
        parts.push_async_callback(self.feeds.close)
        self.caretaker = Caretaker(self.store, self.clock, self.is_busy, self._happened)
        self.lanes = Lanes(
            self.store,
            self.models,
            self.clock,
            self.worker.name,
            self.is_busy,
            self.caretaker.look,
            self.worker.backlog,
        )

    def _make_worker(self) -> Worker:
        worker = Worker(
            self.store,
            self.models,
            self.clock,
            self.bus,
            self.config,
            linger=self._linger,
            room=self._room,
            stall=self._stall,
            ends=self,
        )
        worker.park_always = self._park == "always"
        worker.handles = self._handle
        if self.verify:
            self._prover = Prover(worker)
            worker.executor = self._prover.executor
            worker.rests = None  # a turn is proved in the wake that did it
        worker.register(WATCHED)
        return worker

    def _take_place(self, parts: AsyncExitStack) -> None:
        """Have this context, loop and process find it, until it is closed."""
        parts.callback(_leave_context, SERVICES.set(self.worker))
        parts.callback(tasks.install(asyncio.get_running_loop()))
        parts.callback(strikes.install())
        parts.callback(self.store.subscribe(self._hint))
        parts.callback(alive.retire, self.worker.name)  # what it couldn't give back is free all the same
        if self.verify:  # at a desk
            parts.enter_context(origins.kept())

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What opening makes isn't there before."""
            if name in MADE:
                raise RuntimeError(NOT_OPEN)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    async def __aexit__(self, *exc: object) -> None:
        try:
            if self._prover is not None:
                await self._prover.settled()
            await self._parts.aclose()
        finally:
            self._loop = None
        if (
            self._prover is not None and self._prover.differences and exc[:1] == (None,)
        ):  # of those that live on
            raise next(iter(self._prover.differences.values()))

    def _tell_closed(self) -> None:
        """Who waits for an end hears it before the store is gone, where it would look."""
        self._closed = True
        self.ends.close()

    async def _stop(self) -> None:
        """Give all runs back."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.models.land()
        landed = asyncio.ensure_future(
            self.lanes.promotions.land(PAID if self._grace is None else self._grace)
        )
        await self.worker.stop(self._grace)
        await landed

    def _spawn(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=asyncio.get_running_loop())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _resolve(self, name: str, environment: Environment) -> Endpoint:
        scheme, _, rest = name.partition(":")
        if scheme in self._own_providers:
            return Endpoint(scheme, "", rest)
        from ..providers.registry import resolve

        return resolve(name, environment)

    def _make(self, endpoint: Endpoint, environment: Environment) -> Provider:
        if endpoint.provider in self._own_providers:
            return self._own_providers[endpoint.provider](endpoint)
        from ..providers.registry import make
        from ..transports.pooled import Pooled

        return make(endpoint, environment, Pooled())

    def _open_pool(self) -> Transport:
        from ..transports.pooled import Pooled

        return Pooled()

    def at_home(self, verb: str) -> None:
        """Raise where an engine's verb can't do its work, or would do it anew in each replay."""
        self.on_its_loop()
        if find_branch() is not None:
            raise WrongPlace(
                f"engine.{verb}() was called in the code of a run, each wake of which would start another: await the "
                f"flow itself, or use segue.spawn() or segue.map()"
            )

    def on_its_loop(self) -> None:
        """Raise where it isn't open, or on another event loop: who waits there would hear of nothing, and do harm."""
        if self._loop is None:
            raise RuntimeError(NOT_OPEN)
        if running_loop() is not self._loop:
            raise RuntimeError(
                "this engine is open on another event loop: give it the work with "
                "`asyncio.run_coroutine_threadsafe(…, loop)`, or open one here"
            )

    # ------------------------------------------------------------ runs
    async def run(self, call: Coroutine[Any, Any, R] | Actor[R], /, *, id: str = "", **how: Unpack[How]) -> R:
        """Run the call of a flow to its end; its result.

        Raises what the flow raised (`RunFailed` where that can't be built again here), `RunHeld`, `RunCancelled`, or
        `RunInterrupted` for an actor that was asked to end; and as `start` does.
        """
        run, wake = await self._start(call, id, how, here=True)
        if wake is not None and wake.over and wake.status in ENDED:
            head = wake.head if not self.verify else await self.verified(wake.head)
        else:
            head = await self.wait(run.id)
        result: R = run.result_of(head)
        return result

    async def start(
        self, call: Coroutine[Any, Any, R] | Actor[R], /, *, id: str = "", **how: Unpack[How]
    ) -> Run[R]:
        """Start the call of a flow; durable on return. With an `id`, the run that is there by it goes on.

        Raises `Conflict` where that one is of another flow or has other arguments, `Damaged` where it can't be read.
        """
        run, _ = await self._start(call, id, how, keep=True)
        return run

    async def _start(
        self,
        call: Coroutine[Any, Any, R] | Actor[R],
        id: str,
        how: How,
        *,
        keep: bool = False,
        here: bool = False,
    ) -> tuple[Run[R], Executor | None]:
        target, args = take_call(call)
        self.at_home("start")
        if id:
            checks.text("the id of a run", id)
        said = self.terms.of_target(target, configured("a run", how) if how else None)
        decoded = target.check_args(args)
        self.worker.register(target)
        while True:
            run_id, config = id or new_id(target), said
            if config.budget is not None:
                if not id and await self.store.get(run_id) is not None:
                    continue  # or another's budget would be raised
                config = await self.terms.on_budget(config, f"run:{run_id}")
            spec = make_spec(target, args, config, self.clock.now())
            run: Run[R] = Run(self, run_id, target)
            if keep:
                run.keep_early()
            created, wake = await self.worker.create_one(NewRun(run_id, spec), target, decoded, here=here)
            if created.new:
                return run, wake
            if id:
                self._goes_on(created.head, spec)
                self.terms.heed(created.head, config)
                return run, wake

    def _goes_on(self, head: Head, asked: Spec) -> None:
        """Raise `Conflict` where the run that is there isn't what was asked for, `Damaged` where nobody can say."""
        rebase.refuse_damaged(head)
        if head.spec.target != asked.target:
            why = f"of {head.spec.target!r}"
        elif head.spec.kind != "actor" and head.spec.args != asked.args:
            why = f"with other arguments ({journal.first_difference(head.spec.args, asked.args)})"
        else:
            return
        raise Conflict(
            f"run {head.id!r} is there already, {why}; choose another id, or go on with that one: "
            f"await engine.get({head.id!r})"
        )

    async def get(self, id: str, /) -> Run[Any]:
        """A run by its id, whatever it does or came to. Raises `UnknownName`."""
        await self.head(id)
        return Run(self, id)

    def _handle(self, run: str, target: Any, place: tuple[str, int] | None) -> Run[Any]:
        return Run(self, run, target, place)

    async def head(self, id: str) -> Head:
        """A run's record. Raises `UnknownName`."""
        self.on_its_loop()
        head = await self.store.get(id)
        if head is None:
            raise await unknown_run(self.store, id)
        return head

    async def wait(self, id: str) -> Head:
        """Wait until a run has ended or is held."""
        self.on_its_loop()
        with self.worker.absent.waiting():
            head = await self.ends.of(id)
        return await self.verified(head) if self.verify else head

    async def verified(self, head: Head) -> Head:
        """The record of a run; if the engine verifies, it is replayed first, once, and a difference raised."""
        if self._prover is not None:
            await self._prover.settled(head.id)
            if (difference := self._prover.differences.pop(head.id, None)) is not None:
                raise difference
        if self.verify and head.status in ENDED:
            end = head.id, head.fence  # there may be another run of that id later
            replayed = self._replayed.get(end)
            if replayed is None:
                replayed = self._replayed[end] = self._spawn(self._replay(head))
            await asyncio.shield(replayed)
        return head

    async def _replay(self, head: Head) -> None:
        await verify.replay_stored(self.worker, self.store, head)

    def check(self, *, at_once: bool = False) -> None:
        """Raise what stopped the worker or the lanes, if anything did for some seconds, or did just now (`at_once`)."""
        if self._closed:
            raise asyncio.CancelledError(CLOSED)
        failure = self.worker.failure or self.caretaker.trouble.error if at_once else None
        failure = failure or self.worker.lasting or self.caretaker.trouble.lasting or self.broken
        if failure is not None:
            raise failure

    def run_left(self, run: Executor | Resting) -> None:
        """The worker's word that a run left memory."""
        self.ends.left(run)
        self.caretaker.look_if_quiet()

    def run_asked(self) -> None:
        """The worker's word that questions are open."""
        self._happened()

    def _happened(self) -> None:
        """Have those look who wait for more than one run."""
        self.ends.stir()

    def _hint(self, hint: Hint) -> None:
        if hint.kind == "mail":
            if self.port.address in hint.runs:
                self.port.hint(hint)
            if self.feeds.arrivals is not None:
                self.feeds.hint(hint)
        elif hint.kind == "ended":
            self.ends.happened(hint.runs)
        elif hint.kind == "lines":
            self.caretaker.lines_came()
        elif hint.kind == "room":
            self.postbox.hint(hint)
        elif hint.kind == "elsewhere":
            self.port.look()
            self.feeds.look()
            self.ends.look()

    async def tell(self, run: str, name: str, value: bytes) -> None:
        """Deliver mail from outside."""
        self.on_its_loop()
        await self.postbox.send(run, "tell", name, value)

    async def cancel(self, run: str) -> None:
        """Ask a run to end."""
        self.on_its_loop()
        await self.postbox.send(run, "cancel")

    async def dead_letters(self, run: str = "") -> list[DeadLetter]:
        """Mail that nobody took, to one run or all, oldest first."""
        self.on_its_loop()
        out: list[DeadLetter] = []
        while page := await self.store.dead_letters(run=run, after=out[-1].id if out else 0):
            out += page
        return out

    async def resend(self, dead: int) -> None:
        """Send a dead letter again, once. Raises `Conflict` where its run has ended, and `MailboxFull`."""
        self.on_its_loop()
        delivery = await self.store.resend_dead(dead, now=self.clock.now())
        if delivery is None:
            raise UnknownName("dead letter", str(dead), "`segue dead` lists those that are there")
        if delivery in ("gone", "full"):
            (letter,) = await self.store.dead_letters(after=dead - 1, limit=1)
            head = await self.head(letter.mail.to)
            if delivery == "full":
                raise MailboxFull(head.id, head.spec.mailbox)
            on = "" if head.status == "done" else f"`segue resume {head.id}` has it go on, "
            raise Conflict(
                f"run {head.id!r} takes no more mail: it is {head.status}; {on}`segue dead --drop {dead}` forgets this"
            )
        self.worker.wake()

    # ------------------------------------------------------------ held runs, forks
    async def resume(
        self,
        run: str,
        *,
        keep: bool = False,
        value: object = msgspec.UNSET,
        repeat: bool = False,
        before: str = "",
        **how: Unpack[How],
    ) -> list[str]:
        """Let a held, failed or cancelled run go on; the ids of all that do.

        With it go those that were interrupted or cancelled since it ended, and what these had: the children of a
        supervisor, and those that it waited for.

        `keep` accepts what was paid for as it is; `value` is what came of an at-most-once step that was cut off;
        `repeat` lets keyed and at-most-once steps be done once more where their arguments changed. Of a run that failed
        or was cancelled, the call `before` (`PATH#N`) is made anew, and what came after its outcome: an answer that was
        no use is asked for again. Other options, such as `model`, hold from now on; what another model has answered is
        asked anew, unless `keep`. A `budget` is that of the run or, where it is held for want of another one, that; all
        that wait for it go on.
        """
        head, resumed = await self.head(run), [run]
        waits_for = account_of(head.reason) if head.status == "held" else ""
        more = how.get("budget")
        if waits_for:
            how.pop("budget", None)  # it is on that budget already
        else:
            how = self._own_budget(head, how)
        if waits_for and not (
            how or keep or repeat or before or value is not msgspec.UNSET
        ):  # it goes on as it stands
            if more is None:
                await self.store.revive(run, pool=None, now=self.clock.now(), status=("held",))
        else:
            config = None
            if how:
                asked = self.terms.of(how).over(head.spec.config)
                config = asked.begun(self.clock.now()).opened(f"run:{run}")
            now = self.clock.now()
            resumed = await rebase.resume(
                self.store,
                head,
                keep=keep,
                value=value,
                repeat=repeat,
                before=before,
                config=config,
                now=now,
            )
        if more is not None:
            await self.terms.fund(waits_for or f"run:{run}", Limit.of(more))
        self.worker.wake()
        return resumed

    def _own_budget(self, head: Head, how: How) -> How:
        """Options without the budget of a run that has one: that is raised, not taken on."""
        if all(one.id != f"run:{head.id}" for one in head.spec.config.accounts):
            return how
        rest = how.copy()
        rest.pop("budget", None)
        return rest

    async def fork(
        self,
        run: str,
        *,
        id: str = "",
        before: str = "",
        edit: Mapping[str, Any] | None = None,
        repeat: bool = False,
        **how: Unpack[How],
    ) -> Run[Any]:
        """A new run that shares another's history.

        Calls are named `path#n`, as `segue show` lists them. `before`: from that call on everything is done
        anew. `edit`: outcomes to replace, by call (of `generate`: what the model says; of `receive`: a message, or
        its fields); what was made after them is done anew. Other options, such as `model`, hold for the new run. It is
        held before a keyed or at-most-once step that the other run did and that it would do again, unless `repeat`.
        It is on the budgets of the other run, or else on its own one.
        """
        origin = await self.head(run)
        rebase.refuse_damaged(origin)
        await rebase.check_forkable(self.store, origin)
        entries = await rebase.entries_of(self.store, run)
        edits = {
            name: self.models.reworded(entry, value, f"the edit of {name}")
            if (entry := _called(entries, name)) is not None
            else value
            for name, value in (edit or {}).items()
        }
        pool = rebase.share(run, entries, before, edits, repeat=repeat)
        new = id or f"{run}~{uuid4().hex[:6]}"
        config = await self.terms.on_budget(self.terms.of(how), f"run:{new}")
        spec = rebase.forked(origin, config, self.clock.now())
        created = await self.worker.create([NewRun(new, spec, pool)])
        if not created[0].new:
            raise Conflict(f"run {new!r} is there already; choose another id")
        return Run(self, new)

    # ------------------------------------------------------------ questions
    async def asks(self, *, to: str = "") -> AsyncIterator[Ask]:
        """Open questions, those there are and those to come, each once; ends when you break off."""
        self.on_its_loop()
        after, self.ends.heard = 0, True
        while True:
            signal = self.ends.next()
            found = True
            while found:
                questions, after = await patiently(partial(self.store.asked, after, to=to), self.check)
                for question in questions:
                    yield Ask(self, question)
                found = bool(questions)
            await signal

    async def open_asks(self, *, to: str = "", run: str = "") -> list[Ask]:
        """The questions that are open now."""
        self.on_its_loop()
        self.ends.heard = True
        return [Ask(self, question) for question in await self.store.asks(to=to, run=run)]

    async def answer(self, ask: str, value: object) -> None:
        """Answer a question by its id; see `Ask.answer`."""
        self.on_its_loop()
        self.ends.heard = True
        await answer_by_id(self, ask, value)

    # ------------------------------------------------------------ jobs
    def map(
        self,
        fn: Callable[[In], Awaitable[Out]],
        rows: Iterable[In] | AsyncIterable[In],
        /,
        *,
        id: str = "",
        key: Callable[[In], str] | None = None,
        limit: int = 0,
        **how: Unpack[How],
    ) -> Job[In, Out]:
        """Run a flow, a step or an actor over rows, each a run of its own; iterate the job for outcomes as they come.

        With an `id` it is idempotent: the same call goes on where the last one ended, and only rows that
        aren't there yet are started, known by `key(row)` or else by their number. `limit`: runs at work at
        once; those that wait for a batch or a person don't count.

        A job of another flow is refused, with `Conflict`, before any run is made, and so is one that knows its rows
        by number where one of the first changed, for then the rows have moved. A row that changed under its key, or
        further on, is refused alone.
        """
        self.at_home("map")
        flow = target_of(fn)
        if flow is None:
            given: object = fn
            if isinstance(given, Coroutine):
                given.close()
                raise TypeError(
                    f"engine.map() takes a flow, a step or an actor's class, and its rows, not the call {fn!r}"
                )
            named = getattr(fn, "__qualname__", repr(fn))
            first = "write it as a function with a name, and " if named.endswith("<lambda>") else ""
            raise UnknownName("flow", named, f"{first}decorate it with @segue.flow")
        checks.text("id of map()", id)
        checks.count("limit of map()", limit, 0)
        given_key: object = key
        if given_key is not None and not callable(given_key):
            cure = f"a function of a row, such as lambda row: row[{key!r}]"
            raise InvalidValue("key of map()", cure, "it isn't one", repr(key))
        self.worker.register(flow)

        own = configured("a run", how)
        config = self.terms.of_target(flow, own)
        job: Job[In, Out] = Job(self, id or f"{flow.name}-{uuid4().hex[:8]}", flow)
        self._spawn(self._admit(job, rows, key, limit, config, as_one=own.budget is not None))
        return job

    async def _admit(
        self,
        job: Job[Any, Any],
        rows: Any,
        key: Callable[[Any], str] | None,
        limit: int,
        config: Config,
        *,
        as_one: bool,
    ) -> None:
        self._admitting += 1
        try:
            if as_one:  # a flow's own budget is for each of its runs
                config = await self.terms.on_budget(config, f"job:{job.id}")
            else:
                config = await self.terms.on_known(config, f"job:{job.id}")
            await job.admit(_each(rows), key, limit, config)
        except BaseException as error:  # whoever iterates the job gets it
            job.failure = own_error(error)
        finally:
            self._admitting -= 1
            self.caretaker.look()
            self._happened()

    def rows_came(self) -> None:
        """A job's word that it has more rows."""
        self._happened()

    # ------------------------------------------------------------ lanes
    def is_busy(self) -> bool:
        """Whether this process may still add lines: rows are being admitted, or runs are at work."""
        return self._admitting > 0 or bool(self.worker.awake)

    async def sweep(self) -> None:
        """Seal what became history, and drop what isn't to be kept any longer; done by itself from time to time."""
        await self.caretaker.sweep()

    async def advance(self) -> bool:
        """One sweep: run what is ready, submit, poll, deliver. Whether something still waits after it."""
        self.on_its_loop()
        while True:
            while await self.worker.claim_once() or self.worker.is_at_work:
                await asyncio.sleep(0.005)
                # Else a run whose turn can't be written would be claimed again for ever.
                self.check(at_once=True)
            before = await self.store.line_counts(open_only=True)
            await self.lanes.sweep(poll_now=True)
            if not await self.worker.claim_once() and await self.store.line_counts(open_only=True) == before:
                break  # what others are at work on is theirs
        await self.sweep()
        return await self._still_waits()

    async def _still_waits(self) -> bool:
        """Whether there is a run that isn't over, but for those that stand for processes."""
        async for head in each_run(self.store, status=("ready", "parked"), page=100):
            if head.spec.target != WATCHED.name:
                return True
        return False

    async def forget(self, *, older_than: timedelta = timedelta(0)) -> int:
        """Drop the answers that are kept for reuse; how many. What the journals of runs hold stays."""
        self.on_its_loop()
        return await self.store.forget(before=self.clock.now() - older_than.total_seconds())

    async def remove(
        self, run: str = "", /, *, job: str = "", older_than: timedelta | None = None, dry_run: bool = False
    ) -> int:
        """Remove a run, a job, or all that has been over for longer than that; how many runs went.

        With a run goes all that it started, with a job all of its rows; their ids are free again. Raises `UnknownName`,
        and `Conflict` where one isn't over, belongs to another that stays, or is still to be answered by a provider's
        job; such are left out by `older_than`. With `dry_run`, nothing is removed.
        """
        self.on_its_loop()
        if bool(run) + bool(job) + (older_than is not None) != 1:
            raise ValueError("give a run, job= or older_than=, one of these")
        if older_than is not None:
            before = self.clock.now() - checks.seconds("older_than", older_than)
            return await removal.remove_old(self.store, before, dry=dry_run)
        if job:
            return await removal.remove_job(self.store, job, dry=dry_run)
        return await removal.remove_run(self.store, await self.head(run), dry=dry_run)

    # ------------------------------------------------------------ money
    def price(self, usage: Iterable[Usage], unclaimed: Iterable[Usage] = ()) -> Receipt:
        """A receipt for model use, and for what was paid and nobody got."""
        return receipt.price(usage, self.prices, unclaimed)

    @property
    def prices(self) -> PriceList:
        """What tokens cost."""
        if self._prices is None:
            from ..providers.prices import Prices

            self._prices = Prices()
        return self._prices

    async def fund(self, budget: Budget, /, *, run: str = "", job: str = "") -> Standing:
        """Set what a run, a job, or else this store may cost in all; how that budget stands then.

        What waited for it goes on from where it stood. Only what `budget` says of, money or tokens, is set. Raises
        `Conflict` where no call is on such a budget.
        """
        self.on_its_loop()
        account = f"run:{run}" if run else f"job:{job}" if job else STORE
        on_it = self.config.accounts if not run else (await self.head(run)).spec.config.accounts
        if all(one.id != account for one in on_it) and not await self.store.budgets([account]):
            raise Conflict(f"{owner(account)} has no budget, and what was begun without one gets none")
        return await self.terms.fund(account, Limit.of(budget))

    async def receipt(self, *, run: str = "", job: str = "") -> Receipt:
        """A receipt for a run or a job, with the runs that it started."""
        self.on_its_loop()
        found = await spent(self.store, run=run, job=job)
        return self.price(found.usage, found.unclaimed)


def _called(entries: list[Entry], name: str) -> Entry | None:
    """The call of that name, as `segue show` lists it."""
    return next((entry for entry in entries if f"{entry.path}#{entry.n}" == name), None)


def _leave_context(token: Token[Any]) -> None:
    with suppress(ValueError):  # it was opened in another context, as by a fixture or a hook of a server
        SERVICES.reset(token)


async def _each(rows: Any) -> AsyncIterator[Any]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for number, row in enumerate(rows):
            if number % ADMIT == ADMIT - 1:
                await asyncio.sleep(0)  # let runs act while rows come in
            yield row
