"""Mail with a time or a key: once, again and again, put off, called off; whatever crashes, and in virtual time."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import segue
from segue import Actor, Note, Request
from segue.core.codec import encode
from segue.model.errors import RunInterrupted
from segue.model.message import Mail, MailKind
from segue.model.run import Head
from segue.ports.store import CommitResult, Landed, Turn
from segue.runtime.handles import answer_by_id
from segue.stores import open_store
from segue.stores.memory import MemoryStore
from segue.testing.clock import START
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Tick(Note):
    text: str = "tick"


class Seen(Request[list[tuple[str, float]]]):
    """What came, and how many hours after the start."""


class Halt(Note):
    """Stop the timer."""


def hours() -> float:
    return round((segue.now() - START).total_seconds() / 3600, 3)


class TimerKeeper(Actor[int]):
    seen: list[tuple[str, float]] = segue.field(default_factory=list)
    enough: int = 1000

    @segue.on
    async def tick(self, note: Tick) -> Any:
        self.seen.append((note.text, hours()))
        if len(self.seen) >= self.enough:
            return segue.Done(len(self.seen))
        return None

    @segue.on
    async def get(self, request: Seen) -> list[tuple[str, float]]:
        return self.seen

    @segue.on
    async def halt(self, note: Halt) -> None:
        await self.me.unschedule("tick")


async def pass_time(desk: Desk, hours: float) -> None:
    """In virtual time, which passes when nothing else is to be done."""
    await desk.fake.clock.sleep(hours * 3600)


async def test_a_message_comes_later() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(TimerKeeper(), id="a")
        await run.tell(Tick("later"), after=3 * HOUR)
        await run.tell(Tick("now"))
        await run.tell(Tick("soon"), after=HOUR)
        assert await run.request(Seen()) == [("now", 0.0)]
        await pass_time(desk, 10)
        assert await run.request(Seen()) == [("now", 0.0), ("soon", 1.0), ("later", 3.0)]


async def test_a_message_repeats() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(TimerKeeper(), id="a")
        await run.tell(Tick(), every=HOUR)
        await run.tell(Tick("x"), after=timedelta(minutes=30), every=2 * HOUR)
        await pass_time(desk, 3.2)
        assert await run.request(Seen()) == [
            ("x", 0.5),
            ("tick", 1.0),
            ("tick", 2.0),
            ("x", 2.5),
            ("tick", 3.0),
        ]


async def test_missed_times_count_as_one() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(TimerKeeper(), id="a")
        await run.tell(Tick(), every=HOUR)
        await pass_time(desk, 1.5)
    desk.fake.clock.advance(4 * 3600)  # nobody was there at 2, 3, 4 and 5
    async with desk.engine() as engine:
        run = await engine.get("a")
        await pass_time(desk, 2)
        seen = await run.request(Seen())
    times = [at for _, at in seen]
    assert times == [1.0, 2.0, 6.0, 7.0]  # the one of two o'clock stands for those that were missed


@pytest.mark.parametrize("texts", ["01234", "44444"])
async def test_debounce(texts: str) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(TimerKeeper(), id="a")
        for text in texts:
            await run.tell(Tick(text), after=HOUR, key="save")
            await pass_time(desk, 0.5)
        await pass_time(desk, 5)
        assert await run.request(Seen()) == [("4", 3.0)]
        assert await desk.store.inbox("a", 0) == []


async def test_a_schedule_told_again_goes_on() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(TimerKeeper(), id="a")
        for _ in range(4):
            await run.tell(Tick(), every=DAY, key="tidy")  # as each call of a web handler may
            await pass_time(desk, 10)
        await pass_time(desk, 10)
        assert await run.request(Seen()) == [("tick", 24.0), ("tick", 48.0)]
        await run.tell(Tick("other"), every=DAY, key="tidy")  # another message is another schedule
        await pass_time(desk, 25)
        assert (await run.request(Seen()))[2:] == [("other", 74.0)]
        assert len(await desk.store.inbox("a", 0)) == 1


async def test_unschedule_from_outside_and_inside() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(TimerKeeper(), id="a")
        await run.tell(Tick(), every=HOUR, key="tick")
        await run.tell(Tick("once"), after=2 * HOUR, key="once")
        await pass_time(desk, 1.5)
        await run.unschedule("once")
        await run.tell(Halt())
        await pass_time(desk, 9)
        assert await run.request(Seen()) == [("tick", 1.0)]
        assert await desk.store.inbox("a", 0) == []


class Enough(Actor[list[float]]):
    """Its timer's own handler says how that goes on, at the second tick; a day later it is over."""

    how: str
    at: list[float] = segue.field(default_factory=list)

    def begin(self) -> str:
        return "begin"

    @segue.state
    async def first(self, _: str) -> segue.Listen:
        await self.me.tell(Tick(), every=HOUR, key="t")
        await self.me.tell(Halt(), after=8.5 * HOUR)
        return segue.Listen()

    @segue.on
    async def tick(self, note: Tick) -> None:
        self.at.append(hours())
        if len(self.at) == 2:
            await self.say_how()

    async def say_how(self) -> None:
        match self.how:
            case "stop":
                await self.me.unschedule("t")
            case "stop, and wait":
                await self.me.unschedule("t")
                await segue.sleep(1.5 * HOUR)
                await segue.sleep(1.5 * HOUR)
            case "wait, and stop":
                await segue.sleep(1.5 * HOUR)
                await self.me.unschedule("t")
            case "stop others, too":
                await self.me.unschedule("other")
                await self.me.tell(Tick("other"), after=HOUR, key="other")
                await self.me.unschedule("t")
            case "once more":
                await self.me.tell(Tick(), after=3 * HOUR, key="t")
            case "slower":
                await self.me.tell(Tick(), every=3 * HOUR, key="t")
            case "anew":
                await self.me.unschedule("t")
                await self.me.tell(Tick(), every=4 * HOUR, key="t")
            case "another":
                await self.me.tell(Tick("another"), every=4 * HOUR, key="t")
            case "as it is":
                await self.me.tell(Tick(), every=HOUR, key="t")
            case "put off":
                await self.me.tell(Tick(), after=3 * HOUR, every=HOUR, key="t")
            case "put off, and wait":
                await self.me.tell(Tick(), after=3 * HOUR, every=HOUR, key="t")
                await segue.sleep(1.5 * HOUR)

    @segue.on
    async def halt(self, note: Halt) -> segue.Done[list[float]]:
        return segue.Done(self.at)


@pytest.mark.parametrize("kind", ["memory", pytest.param("sqlite", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("how", "at"),
    [
        ("stop", [1, 2]),
        ("stop, and wait", [1, 2]),
        ("wait, and stop", [1, 2]),
        ("stop others, too", [1, 2, 3]),
        ("once more", [1, 2, 5]),
        ("slower", [1, 2, 5, 8]),
        ("anew", [1, 2, 6]),
        ("another", [1, 2, 6]),
        ("as it is", [*range(1, 9)]),
        ("put off", [1, 2, 5, 6, 7, 8]),
        ("put off, and wait", [1, 2, 5, 6, 7, 8]),
    ],
)
async def test_a_timers_own_handler_says_how_it_goes_on(
    how: str, at: list[int], kind: str, tmp_path: Path
) -> None:
    """What it says counts, not what the timer was; whatever crashes."""

    async def begin(engine: segue.Engine) -> None:
        await engine.start(Enough(how), id="a")

    def check(desk: Desk, head: Head) -> None:
        value = msgspec.json.decode(head.value or b"null")
        assert [round(hour - value[0]) + 1 for hour in value] == at

    await at_every_commit(begin, "a", check, kind=kind, path=tmp_path)


class Starting(TimerKeeper):
    """Its state, or what comes before it, waits."""

    where: str = "state"

    async def begin(self) -> str:
        if self.where == "begin":
            await segue.ask("go on?")
        return "state"

    @segue.state
    async def start(self, where: str) -> None:
        if self.where == "state":
            await segue.ask("go on?")


@pytest.mark.parametrize("where", ["begin", "state"])
@pytest.mark.parametrize("said", ["unscheduled", "told anew"])
async def test_what_is_said_of_a_key_while_no_message_is_in_hand_counts(where: str, said: str) -> None:
    """The first message that lay there was taken for the one in hand, and so was handled all the same."""
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Starting(where=where), id="a")
        await desk.parked("a")
        await run.tell(Tick("first"), key="tick")
        await desk.parked("a")
        if said == "unscheduled":
            await run.unschedule("tick")
        else:
            await run.tell(Tick("second"), key="tick")
        await desk.parked("a")
        await answer_by_id(engine, (await desk.store.asks())[0].id, "yes")
        seen = await run.request(Seen())
        assert [text for text, _ in seen] == ([] if said == "unscheduled" else ["second"])
        assert await desk.store.inbox("a", 0) == []


class Chatty(TimerKeeper, kw_only=True):
    other: segue.Run[int]

    @segue.on
    async def tick(self, note: Tick) -> None:
        self.seen.append((note.text, hours()))
        await self.other.tell(Tick("told"), key="tick")
        if note.text == "tick":
            await self.me.tell(Tick("itself"))


@pytest.mark.parametrize("key", ["", "tick"])
async def test_what_a_timers_handler_says_elsewhere_leaves_its_schedule_as_it_is(key: str) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        other = await engine.start(TimerKeeper(), id="other")
        run = await engine.start(Chatty(other=other), id="a")
        await run.tell(Tick(), every=HOUR, key=key)
        await pass_time(desk, 3.2)
        assert [at for text, at in await run.request(Seen()) if text == "tick"] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("key", ["", "tick"])
async def test_a_dead_letter_that_is_sent_again_leaves_its_schedule_as_it_is(key: str) -> None:
    clumsy = [True]

    class Clumsy(TimerKeeper):
        @segue.on
        async def tick(self, note: Tick) -> None:
            if clumsy:
                clumsy.clear()
                raise ValueError("the first one")
            self.seen.append((note.text, hours()))

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Clumsy(), id="a")
        await run.tell(Tick(), every=HOUR, key=key)
        await pass_time(desk, 1.4)
        (letter,) = await engine.dead_letters()
        await engine.resend(letter.id)
        await pass_time(desk, 2.2)
        assert [round(at) for _, at in await run.request(Seen())] == [1, 2, 3]


@pytest.mark.parametrize("level", [segue.Interrupt.QUEUED, segue.Interrupt.NOW])
async def test_an_actor_that_was_interrupted_finds_its_timers_again(level: segue.Interrupt) -> None:
    """They are kept as other mail is; it goes on, they are sent again, and are as they were."""
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(TimerKeeper(), id="a")
        await run.tell(Tick("always"), every=HOUR, key="tick")
        await run.tell(Tick("once"), after=5.5 * HOUR)
        await pass_time(desk, 2.2)
        await run.interrupt(level)
        with pytest.raises(RunInterrupted):
            await run
        await engine.resume("a")
        for letter in await engine.dead_letters("a"):
            await engine.resend(letter.id)
        await pass_time(desk, 4)
        assert [(text, round(at)) for text, at in await run.request(Seen())] == [
            ("always", 1), ("always", 2), ("always", 3), ("always", 4), ("always", 5), ("once", 6), ("always", 6),
        ]  # fmt: skip
        assert await engine.dead_letters() == []


async def test_unschedule_before_it_is_read() -> None:
    desk = Desk()
    async with desk.engine(worker=False) as engine:
        run = await engine.start(TimerKeeper(), id="a")
        await run.tell(Tick(), key="tick")
        await run.unschedule("tick")
        await run.unschedule("nothing")
    async with desk.engine() as engine:
        run = await engine.get("a")
        assert await run.request(Seen()) == []


class Late(MemoryStore):
    """Mail comes from elsewhere right before what an actor says of its schedule is written."""

    mail: Mail | None = None
    slow = False  # it is read before that is written

    def land(self, turn: Turn, then: Landed) -> CommitResult | None:
        if self.mail is None or not any(mail.every for mail in turn.outbox):
            return super().land(turn, then)
        mail, self.mail = self.mail, None
        self.deliver([mail], now=mail.at)
        if not self.slow:
            return super().land(turn, then)
        written = super().land
        asyncio.get_running_loop().call_later(0.02, lambda: then(written(turn, then) or "fenced"))
        return None


@pytest.mark.parametrize(
    ("die_at", "slow"), [(None, False), (None, True), (2, False), (3, False), (4, False)]
)
@pytest.mark.parametrize(
    ("kind", "every", "after", "text", "seen"),
    [
        ("unschedule", 0, 0, "", ["tick"]),
        ("tell", 3, 3, "slow", ["tick", "slow", "slow", "slow"]),
        ("tell", 0, 0, "now", ["tick", "now"]),
    ],
)
async def test_what_is_said_of_a_key_while_its_next_time_is_being_written_counts(
    kind: MailKind, every: float, after: float, text: str, seen: list[str], die_at: int | None, slow: bool
) -> None:
    """It came later, though its letter came first: not even a death has the schedule go on."""
    store = Late()
    store.slow = slow
    desk = Desk(store)
    async with desk.engine(die_at, after=True) as engine:
        run = await engine.start(TimerKeeper(), id="a")
        await run.tell(Tick(), every=HOUR, key="tick")
        at = engine.clock.now() + 3600
        store.mail = Mail(
            "a", "elsewhere", 1, kind, "Tick", encode(Tick(text)), at=at,
            due=at + after * 3600 if every else 0.0, every=every * 3600, key="tick",
        )  # fmt: skip
        await pass_time(desk, 1.1)
    async with desk.engine() as engine:
        await pass_time(desk, 10.5)
        run = await engine.get("a")
        assert [text for text, _ in await run.request(Seen())] == seen
        assert len(await desk.store.inbox("a", 0)) == (every > 0)


class Stubborn(Actor[None]):
    """What it is told fails, again and again."""

    def begin(self) -> None:
        FAILED.clear()

    @segue.on(retry=3)
    async def work(self, note: Halt) -> None:
        FAILED.append("work")
        raise OSError("busy")

    @segue.on(retry=3)
    async def tick(self, note: Tick) -> None:
        FAILED.append(note.text)
        raise OSError("busy")


FAILED: list[str] = []


async def test_a_message_that_failed_is_next_whatever_timer_is_due_meanwhile() -> None:
    """Another one would have its attempts, and it as many as at first after that."""
    desk = Desk(linger=0)
    async with desk.engine() as engine:
        run = await engine.start(Stubborn(), id="a")
        await run.tell(Tick("1"), after=timedelta(seconds=0.1))
        await run.tell(Tick("2"), after=timedelta(seconds=0.2))
        await run.tell(Halt())
        await pass_time(desk, 5)
    assert FAILED == ["work"] * 3 + ["1"] * 3 + ["2"] * 3


class Beginning(Note):
    """Begin."""


class SelfTimer(Actor[list[float]]):
    """Tells itself, and waits in its handler for longer than its timer."""

    at: list[float] = segue.field(default_factory=list)

    def begin(self) -> None:
        return None

    @segue.on
    async def start(self, note: Beginning) -> None:
        await self.me.tell(Tick(), every=HOUR, key="t")

    @segue.on
    async def tick(self, note: Tick) -> Any:
        self.at.append(hours())
        await segue.sleep(timedelta(hours=2.5))
        await self.me.tell(Tick(), every=HOUR, key="t")  # it runs already
        return segue.Done(self.at) if len(self.at) == 3 else None


async def test_a_handler_that_takes_longer_than_its_timer() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(SelfTimer(), id="a")
        await run.tell(Beginning())
        assert await run == [1.0, 4.0, 7.0]


@segue.flow
async def timed_flow() -> list[str]:
    me = segue.me()
    await me.tell(Tick("late"), after=2 * HOUR)
    await me.tell(Tick("again"), every=HOUR, key="k")
    got = [(await segue.receive(Tick)).text for _ in range(4)]
    await me.unschedule("k")
    with pytest.raises(TimeoutError):
        await segue.receive(Tick, timeout=DAY)
    return got


class AtWork(TimerKeeper):
    @segue.on
    async def halt(self, note: Halt) -> None:
        await segue.step(WORK[-1].wait, name="work")()


WORK: list[asyncio.Event] = []


async def test_a_timer_that_is_due_while_a_step_is_at_work_comes_after_it() -> None:
    WORK.append(asyncio.Event())
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(AtWork(), id="a")
        await run.tell(Tick(), after=HOUR)
        await run.tell(Halt())
        await asyncio.sleep(0.05)
        desk.fake.clock.advance(2 * 3600)
        WORK[-1].set()
        async with asyncio.timeout(5):
            while not await run.request(Seen()):
                await asyncio.sleep(0.01)


async def test_in_a_flow() -> None:
    desk = Desk()
    assert await desk.run(timed_flow()) in (
        ["again", "late", "again", "again"],
        ["again", "again", "late", "again"],
    )


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_timers_survive_crashes(kind: str, tmp_path: Path) -> None:
    """Killed at every commit, before it is written and after: each tick is handled once."""
    for after in (False, True):
        for die_at in range(1, 40):
            store = open_store(f"sqlite:{tmp_path}/{after}-{die_at}.db") if kind == "sqlite" else None
            desk = Desk(store)
            async with desk.engine(worker=False) as engine:
                run = await engine.start(TimerKeeper(enough=6), id="a")
                await run.tell(Tick("once"), after=1.5 * HOUR)
                await run.tell(Tick("every"), every=HOUR, key="tick")
                await run.tell(Tick("put off"), after=2 * HOUR, key="p")
                await run.tell(Tick("put off"), after=2.2 * HOUR, key="p")
            died, head = False, await desk.head("a")
            for life in range(3):
                async with desk.engine(die_at if life == 0 else None, after=after) as engine:
                    assert desk.killed is not None
                    ending: asyncio.Future[Any] = asyncio.ensure_future(engine.wait("a"))
                    await asyncio.wait([ending, desk.killed], return_when=asyncio.FIRST_COMPLETED)
                    died = died or desk.killed.done()
                    ending.cancel()
                    await asyncio.gather(ending, return_exceptions=True)
                head = await desk.head("a")
                if head.status == "done":
                    break
            assert head.status == "done"
            inbox = [letter.mail for letter in await desk.store.inbox("a", 0)]
            assert inbox == []
            assert await desk.store.dead_letters() == []
            if store is not None:
                await store.close()
            if not died:
                break
        else:
            raise AssertionError("it commits for ever")


async def test_bad_times() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(TimerKeeper(), id="a")
        with pytest.raises(ValueError, match="every"):
            await run.tell(Tick(), every=timedelta(0))


async def test_a_letter_in_hand_stays_in_hand_when_an_older_timer_is_due(tmp_path: Path) -> None:
    """The timer came first and is due later; a wake in the middle of the handler must not take it for the one."""
    for die_at in range(1, 12):
        desk = Desk(open_store(f"sqlite:{tmp_path}/{die_at}.db"))
        async with desk.engine(worker=False) as engine:
            run = await engine.start(SlowTaker(), id="a")
            await run.tell(Tick("timer"), after=HOUR)
            await run.tell(Slow())
        head = await desk.head("a")
        for life in range(3):
            async with desk.engine(die_at if life == 0 else None) as engine:
                assert desk.killed is not None
                ending: asyncio.Future[Any] = asyncio.ensure_future(engine.wait("a"))
                await asyncio.wait([ending, desk.killed], return_when=asyncio.FIRST_COMPLETED)
                ending.cancel()
                await asyncio.gather(ending, return_exceptions=True)
            head = await desk.head("a")
            if head.status not in ("ready", "parked"):
                break
        assert head.status == "done", head.reason
        assert head.value == b'["slow 1","slow 2","timer"]'
        await desk.store.close()


class Slow(Note):
    """Takes a while."""


class SlowTaker(Actor[list[str]]):
    seen: list[str] = segue.field(default_factory=list)

    @segue.on
    async def slow(self, note: Slow) -> None:
        await segue.sleep(2 * HOUR)
        self.seen.append("slow 1")
        await segue.sleep(2 * HOUR)
        self.seen.append("slow 2")

    @segue.on
    async def tick(self, note: Tick) -> segue.Done[list[str]]:
        self.seen.append(note.text)
        return segue.Done(self.seen)


class Young(Actor[list[str]]):
    @segue.on
    async def grow(self, note: Slow) -> Any:
        await self.me.tell(Tick("from my youth"), after=HOUR)
        await self.me.tell(Tick("again"), every=2 * HOUR, key="k")
        return Old()


class Old(Actor[list[str]]):
    seen: list[str] = segue.field(default_factory=list)

    @segue.on
    async def tick(self, note: Tick) -> Any:
        self.seen.append(note.text)
        return segue.Done(self.seen) if len(self.seen) == 3 else None


async def test_timers_survive_a_molt() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Young(), id="a")
        await run.tell(Slow())
        assert await run == ["from my youth", "again", "again"]


class Crowded(Actor[int]):
    """It has a timer, or sets one for each message."""

    sets: bool
    count: int = 0

    def setup(self) -> Any:
        return self.me.tell(Tick("first"), after=HOUR)

    @segue.on
    async def tick(self, note: Tick) -> segue.Done[int] | None:
        self.count += 1
        if self.sets:
            await self.me.tell(Slow(), after=HOUR)
        return segue.Done(self.count) if note.text == "last" else None


@pytest.mark.parametrize("sets", [False, True])
async def test_mail_that_lies_before_an_actor_with_timers_isnt_gone_over_for_each_message(sets: bool) -> None:
    async def cost(count: int) -> float:
        desk = Desk()
        async with desk.engine(worker=False) as engine:
            run = await engine.start(Crowded(sets), id="it")
            await run.feed([Tick("last" if n == count else "") for n in range(1, count + 1)])
        async with desk.engine() as engine:
            began = time.process_time()
            assert await (await engine.get("it")) == count
            return time.process_time() - began

    assert min([await cost(6000) / await cost(1500) for _ in range(2)]) < 8
