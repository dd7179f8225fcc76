"""What states and handlers may say of themselves: rounds, retries, time-outs, fall-backs, hooks, molting."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Actor, Again, Done, Fail, Listen, Note, Request, Retry
from segue.authoring.actor.driver import next_round
from segue.core import journal
from segue.model.entry import LEFT
from segue.model.errors import BadSignature
from segue.model.run import Head
from segue.ports.store import Turn
from tests import commits
from tests.authoring.killed import at_every_commit, through
from tests.runtime.lives import Desk, until

DID: list[str] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    DID.clear()


@dataclass
class Poll:
    rounds: int = 0


@dataclass
class Work:
    name: str = "w"


class Go(Note):
    text: str = ""


class Count(Request[int]):
    pass


class Ask(Request[str]):
    text: str


# ---------------------------------------------------------------- rounds
class Poller(Actor[list[str]]):
    times: list[str] = segue.field(default_factory=list)

    def begin(self) -> Poll:
        return Poll()

    @segue.state(every=timedelta(minutes=10))
    async def poll(self, seen: Poll) -> Again | Done[list[str]]:
        seen.rounds += 1
        self.times.append(f"{(segue.now().timestamp()) % 86400 // 60:.0f}")
        return Again() if seen.rounds < 3 else Done(self.times)


async def test_rounds_begin_one_interval_after_the_last_began() -> None:
    turns: list[Turn] = []
    desk = Desk()
    async with desk.engine() as engine:
        commits.tell(engine.worker, turns.append)
        first, second, third = map(int, await engine.run(Poller(), id="p"))
    assert (second - first) % 1440 == (third - second) % 1440 == 10
    rows = [turn.entries for turn in turns if turn.entries is not None]
    assert {entry.kind for entry in journal.read(rows)} <= {
        LEFT
    }  # a pause is a time in the checkpoint, no call


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_rounds_whatever_crashes(kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        await engine.start(Poller(), id="p")

    def check(desk: Desk, head: Head) -> None:
        assert head.value is not None
        assert head.value.count(b",") == 2

    await at_every_commit(begin, "p", check, kind=kind, path=tmp_path)


# ---------------------------------------------------------------- retries
class Flaky(Actor[list[str]]):
    seen: list[str] = segue.field(default_factory=list)

    def begin(self) -> Work:
        return Work()

    @segue.state(retry=Retry(3, wait=timedelta(minutes=5)))
    async def work(self, work: Work) -> Done[list[str]]:
        self.seen.append("try")
        work.name += "!"
        DID.append(work.name)
        await segue.sleep(timedelta(seconds=30))
        if await attempts("x") < 3:
            raise OSError("not yet")
        return Done([*self.seen, work.name])


@segue.step
async def attempts(key: str) -> int:
    DID.append("attempt")
    return DID.count("attempt")


async def test_attempts_begin_with_the_fields_as_they_were() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        began = engine.clock.now()
        assert await engine.run(Flaky(), id="f") == ["try", "w!"]
        assert 300 / 2 + 600 / 2 <= engine.clock.now() - began <= 300 + 600 + 200
    assert set(DID) == {"w!", "attempt"}
    assert DID.count("attempt") == 3


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_attempts_are_counted_whatever_crashes(kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        DID.clear()
        await engine.start(Flaky(), id="f")

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b'["try","w!"]'
        assert (
            3 <= DID.count("attempt") <= 4
        )  # a step that a crash cut off is done again, a committed one isn't

    await at_every_commit(begin, "f", check, kind=kind, path=tmp_path)


async def test_attempts_end() -> None:
    class Never(Actor[None]):
        def begin(self) -> Work:
            return Work()

        @segue.state(retry=Retry(2, on=OSError))
        async def work(self, work: Work) -> Done[None]:
            DID.append("try")
            raise (OSError if len(DID) == 1 else KeyError)("x")

    desk = Desk()
    async with desk.engine() as engine:
        with pytest.raises(KeyError):
            await engine.run(Never(), id="n")
    assert DID == ["try", "try"]


async def test_messages_are_tried_again_too() -> None:
    class Stubborn(Actor[None]):
        done: int = 0

        @segue.on(retry=2)
        async def ask(self, request: Ask) -> str:
            self.done += 1
            DID.append(f"{request.text}{self.done}")
            if len(DID) == 1:
                raise OSError("first")
            return request.text

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Stubborn(), id="s")
        assert await run.request(Ask("a")) == "a"
    assert DID == ["a1", "a1"]


# ---------------------------------------------------------------- time-outs, modes, threads
async def test_a_handler_has_its_time() -> None:
    class Late(Actor[None]):
        @segue.on(timeout=timedelta(hours=1))
        async def ask(self, request: Ask) -> str:
            await segue.sleep(timedelta(minutes=int(request.text)))
            return "in time"

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Late(), id="l")
        assert await run.request(Ask("59")) == "in time"
        with pytest.raises(TimeoutError, match="1:00:00"):
            await run.request(Ask("61"))
        assert await run.request(Ask("1")) == "in time"


async def test_a_plain_function_runs_on_a_thread_with_its_options() -> None:
    class Threaded(Actor[str]):
        def begin(self) -> Work:
            return Work()

        @segue.state(retry=2, timeout=timedelta(hours=1), mode="batch")
        def work(self, work: Work) -> Done[str]:
            DID.append(threading.current_thread().name)
            if len(DID) == 1:
                raise OSError
            return Done(work.name)

    desk = Desk()
    async with desk.engine() as engine:
        assert await engine.run(Threaded(), id="t") == "w"
    assert threading.main_thread().name not in DID


# ---------------------------------------------------------------- failures
class Careful(Actor[str]):
    n: int = 0
    how: str = ""

    @segue.on
    async def go(self, note: Go) -> Work:
        self.how = note.text
        return Work(note.text)

    @segue.state
    async def work(self, work: Work) -> Done[str]:
        self.n += 1
        raise {"os": OSError, "key": KeyError, "value": ValueError}[self.how](f"{self.n}")

    @segue.fallback
    async def mend(self, work: Work, error: OSError) -> Done[str]:
        return Done(f"mended {work.name} {error} {self.n}")

    @segue.fallback
    async def give_up(self, work: Work, error: KeyError) -> Done[str]:
        raise RuntimeError("can't")

    @segue.on
    async def ask(self, request: Ask) -> str:
        self.n += 1
        raise OSError(request.text)

    @segue.fallback
    async def answer(self, request: Ask, error: OSError) -> str:
        return f"instead of {error}, {self.n}"


async def test_fallbacks() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Careful(), id="a")
        assert await run.request(Ask("x")) == "instead of x, 0"
        await run.tell(Go("os"))
        assert await run == "mended os 1 0"
        run = await engine.start(Careful(), id="b")
        await run.tell(Go("key"))
        with pytest.raises(RuntimeError, match="can't"):
            await run
        run = await engine.start(Careful(), id="c")
        await run.tell(Go("value"))
        with pytest.raises(ValueError, match="1"):
            await run


@dataclass
class Sweep:
    name: str = "s"


class Stop(Note):
    pass


class Either(Actor[list[str]]):
    """Methods that take one of several types, and a fallback for errors of several."""

    did: list[str] = segue.field(default_factory=list)

    def begin(self) -> Work:
        return Work()

    @segue.state
    async def do(self, work: Work | Sweep) -> Sweep | Listen:
        self.did.append(type(work).__name__)
        return Sweep() if isinstance(work, Work) else Listen()

    @segue.on
    async def told(self, message: Go | Stop) -> Done[list[str]] | None:
        match message:
            case Go(text):
                await asyncio.sleep(0)
                raise {"key": KeyError, "value": ValueError}.get(text, OSError)(text)
            case Stop():
                return Done(self.did)

    @segue.fallback
    async def back(self, message: Go | Stop, error: KeyError | ValueError) -> None:
        self.did.append(f"{type(message).__name__} {type(error).__name__}")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_method_may_take_one_of_several_types(kind: str, tmp_path: Path) -> None:
    async def begin(engine: segue.Engine) -> None:
        either = await engine.start(Either(), id="e")
        for message in (Go("key"), Go("other"), Go("value"), Stop()):
            await either.tell(message)

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b'["Work","Sweep","Go KeyError","Go ValueError"]'

    await at_every_commit(begin, "e", check, kind=kind, path=tmp_path)


async def test_failed_says_what_is_next() -> None:
    class Told(Actor[str]):
        errors: list[str] = segue.field(default_factory=list)
        tried: bool = False

        @segue.on
        async def go(self, note: Go) -> Work | None:
            if note.text:
                return Work(note.text)
            self.tried = True
            raise KeyError("note")

        @segue.on
        async def ask(self, request: Ask) -> str:
            raise LookupError(request.text)

        @segue.state
        async def work(self, work: Work) -> Listen:
            raise ValueError(work.name)

        async def failed(self, error: Exception) -> object:
            self.errors.append(type(error).__name__)
            await segue.sleep(timedelta(hours=1))  # recorded like any call
            if isinstance(error, ValueError):
                return Done(f"{self.errors} {self.tried}") if error.args == ("end",) else Listen()
            return None

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Told(), id="a")
        await run.tell(Go(""))
        with pytest.raises(LookupError):
            await run.request(Ask("x"))
        await run.tell(Go("on"))
        await run.tell(Go("end"))
        assert await run == "['KeyError', 'LookupError', 'ValueError', 'ValueError'] False"


async def test_fields_that_the_class_has_gained_are_reset_too(tmp_path: Path) -> None:
    def make(gained: bool) -> Any:
        class Grown(Actor[None]):
            old: int = 0
            if gained:
                new: int = 7

            @segue.on
            async def count(self, request: Count) -> int:
                if gained:
                    self.new += 1  # type: ignore[attr-defined, unused-ignore]  # it has gained it
                    if self.new == 8:
                        raise ValueError("first")
                return self.new if gained else self.old  # type: ignore[attr-defined, unused-ignore]

        return Grown

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(make(False)(), id="g")
        assert await run.request(Count()) == 0
    make(True)
    async with desk.engine() as engine:
        run = await engine.get("g")
        for _ in range(3):
            with pytest.raises(ValueError, match="first"):
                await run.request(Count())


# ---------------------------------------------------------------- hooks
class Hooked(Actor[str]):
    log: list[str] = segue.field(default_factory=list)

    async def setup(self) -> None:
        self.log.append(f"setup {await note('setup')}")

    async def begin(self) -> Work:
        self.log.append("begin")
        return Work()

    @segue.state
    async def work(self, work: Work) -> Done[str]:
        await segue.sleep(timedelta(hours=1))
        self.log.append("work")
        return Done("done")

    async def teardown(self) -> None:
        self.log.append("teardown")
        await segue.sleep(timedelta(hours=1))
        await note(" ".join(self.log))


@segue.step
async def note(text: str) -> str:
    DID.append(text)
    return text


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_setup_and_teardown_are_called_once_whatever_crashes(kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        DID.clear()
        await engine.start(Hooked(), id="h")

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b'"done"'
        assert DID[-1] == "setup setup begin work teardown"
        assert set(DID) == {"setup", DID[-1]}

    await at_every_commit(begin, "h", check, kind=kind, path=tmp_path)


async def test_teardown_comes_however_it_ends() -> None:
    class Ends(Actor[None]):
        how: str

        def begin(self) -> Work:
            return Work(self.how)

        @segue.state
        async def work(self, work: Work) -> Fail | Listen:
            if work.name == "raise":
                raise OSError("raised")
            return Fail(KeyError("failed")) if work.name == "fail" else Listen()

        def rollback(self) -> None:
            DID.append(f"rollback {self.how}")

        def teardown(self) -> None:
            DID.append(f"teardown {self.how}")

    desk = Desk()
    async with desk.engine() as engine:
        with pytest.raises(OSError, match="raised"):
            await engine.run(Ends("raise"), id="a")
        with pytest.raises(KeyError, match="failed"):
            await engine.run(Ends("fail"), id="b")
        run = await engine.start(Ends("cancel"), id="c")
        await desk.parked("c")
        await run.cancel()
        assert (await engine.wait("c")).status == "cancelled"
    assert DID == ["teardown raise", "teardown fail", "rollback cancel", "teardown cancel"]


async def test_a_rollback_that_waits_isnt_disturbed_by_mail() -> None:
    class Undoing(Actor[None]):
        @segue.on
        async def go(self, note: Go) -> None:
            DID.append("go")

        async def rollback(self) -> None:
            await note(await (await segue.spawn(until_told())))

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Undoing(), id="u")
        await desk.parked("u")
        await run.cancel()
        while len(heads := await desk.store.runs()) < 2:
            await asyncio.sleep(0.001)
        (child,) = [head.id for head in heads if head.id != "u"]
        await desk.parked(child)
        await desk.parked("u")
    async with desk.engine(worker=False) as engine:
        await (await engine.get("u")).tell(Go())
        await (await engine.get(child)).tell(Go())
    await through(desk, "u", None, False)
    assert (await desk.head("u")).status == "cancelled"
    assert DID == ["undone"]


@segue.flow
async def until_told() -> str:
    await segue.receive(Go)
    return "undone"


# ---------------------------------------------------------------- molting
class Larva(Actor[int]):
    eaten: int = 0

    @segue.on
    async def go(self, note: Go) -> Butterfly | None:
        self.eaten += 1
        return Butterfly(self.eaten) if self.eaten == 2 else None


class Butterfly(Actor[int]):
    weight: int
    flights: int = 0

    async def setup(self) -> None:
        await note(f"emerged {self.weight}")

    def begin(self) -> Work:
        return Work("fly")

    @segue.state
    async def work(self, work: Work) -> Listen:
        await segue.sleep(timedelta(hours=1))
        self.flights += 1
        return Listen()

    @segue.on
    async def go(self, note: Go) -> Done[int]:
        return Done(10 * self.weight + self.flights)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_molting_keeps_mail_and_address_whatever_crashes(kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        DID.clear()
        run = await engine.start(Larva(), id="m")
        for _ in range(3):
            await run.tell(Go())

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b"21"
        assert set(DID) == {"emerged 2"}

    await at_every_commit(begin, "m", check, kind=kind, path=tmp_path)


# ---------------------------------------------------------------- composition
class Timed(Actor[Any], kw_only=True):
    """A context extension: fields, a handler and how things are carried out."""

    carried: list[str] = segue.field(default_factory=list)

    async def perform(self, work: segue.Work) -> Any:
        self.carried.append(f"{work.kind} {work.name}")
        return await work()

    @segue.on
    async def count(self, request: Count) -> int:
        return len(self.carried)


class Base(Actor[str]):
    name: str

    @segue.on
    async def ask(self, request: Ask) -> str:
        return f"{self.name} base {request.text}"

    @segue.on
    async def go(self, note: Go) -> Done[str]:
        return Done("base")


class Derived(Timed, Base):
    extra: int = 3

    async def ask(self, request: Ask) -> str:
        return f"{await super().ask(request)} derived {self.extra}"

    @segue.on
    def go(self, note: Go) -> Done[str]:
        return Done(" ".join(self.carried))


async def test_subclasses_and_mixins() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Derived("d"), id="d")
        assert await run.request(Ask("x")) == "d base x derived 3"
        assert await run.request(Count()) == 2
        await run.tell(Go())
        assert await run == "on ask on count on go"


async def test_perform_may_guard() -> None:
    class Guarded(Actor[None]):
        async def perform(self, work: segue.Work) -> Any:
            if isinstance(work.value, Ask) and work.value.text == "secret":
                raise PermissionError("no")
            return await work()

        @segue.on
        async def ask(self, request: Ask) -> str:
            return request.text

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Guarded(), id="g")
        assert await run.request(Ask("x")) == "x"
        with pytest.raises(PermissionError):
            await run.request(Ask("secret"))


class Light(enum.Enum):
    RED = "red"
    GREEN = "green"

    def next(self) -> object:
        return {Light.RED: Wait(), Light.GREEN: Drive()}[self]


@dataclass
class Wait:
    pass


@dataclass
class Drive:
    pass


class Crossing(Actor[int]):
    light: Light = Light.RED
    changes: int = 0

    def begin(self) -> object:
        return self.light.next()

    @segue.state
    async def wait(self, state: Wait) -> object:
        self.light = Light.GREEN
        self.changes += 1
        return self.light.next()

    @segue.state
    async def drive(self, state: Drive) -> object:
        self.light = Light.RED
        self.changes += 1
        return self.light.next() if self.changes < 6 else Done(self.changes)


async def test_a_machine_whose_state_is_an_enum() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        assert await engine.run(Crossing(), id="x") == 6


@pytest.mark.parametrize(
    ("now", "due"), [(100.0, 110.0), (104.0, 110.0), (110.0, 110.0), (111.0, 120.0), (175.0, 180.0)]
)
def test_rounds_that_were_missed_are_left_out(now: float, due: float) -> None:
    assert next_round(100.0, 10.0, now) == due


# ---------------------------------------------------------------- urgent messages between two attempts
class Look(segue.Subscription[int, None]):
    """How often it was tried."""


class TurnedToOther(segue.Envelope):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        return Other()


@dataclass
class Other:
    pass


QUICKLY = Retry(3, wait=timedelta(milliseconds=300))


class Watched(Actor[int]):
    def begin(self) -> Work:
        return Work()

    @segue.state(retry=QUICKLY)
    async def work(self, work: Work) -> Done[int]:
        DID.append("try")
        raise OSError

    @segue.state(retry=QUICKLY)
    async def other(self, other: Other) -> Done[int]:
        DID.append("other")
        raise OSError

    @segue.on
    async def look(self, look: Look) -> int:
        return len(DID)


async def test_who_looks_on_between_two_attempts_grants_no_more_of_them() -> None:
    async with segue.Engine("memory:") as engine:
        run = await engine.start(Watched(), id="w")
        looked = 0
        with contextlib.suppress(segue.errors.RunEnded):
            while looked < 50:
                async with run.subscribe(Look()) as feed:
                    looked += feed.snapshot is not None
                await asyncio.sleep(0.02)
        with pytest.raises(OSError):
            await run
    assert looked >= 3
    assert DID == ["try"] * 3


class StillListens(segue.Envelope):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        return Listen()


class Listener(Actor[None]):
    @segue.on(retry=QUICKLY)
    async def go(self, note: Go) -> None:
        DID.append("try")
        raise OSError


async def test_who_is_told_to_listen_between_two_attempts_of_a_message_has_no_more_of_them() -> None:
    async with segue.Engine("memory:") as engine:
        run = await engine.start(Listener(), id="l")
        await run.tell(Go())
        while not await engine.dead_letters():
            await run.tell(StillListens())
            await asyncio.sleep(0.02)
    assert DID == ["try"] * 3


async def test_a_state_that_comes_between_two_attempts_of_another_has_all_of_its_own() -> None:
    async with segue.Engine("memory:") as engine:
        run = await engine.start(Watched(), id="w")
        await until(lambda: len(DID) == 2)
        await run.tell(TurnedToOther())
        with pytest.raises(OSError):
            await run
    assert DID == ["try"] * 2 + ["other"] * 3


class Now(Note):
    urgent = True


class Hasty(Actor[None]):
    @segue.on
    async def now(self, now: Now) -> None:
        """Nothing."""


class Insistent(Actor[None]):
    @segue.on(retry=2)
    async def look(self, look: Look) -> int:
        return 0


class Instead(Watched):
    @segue.fallback
    async def none(self, look: Look, error: Exception) -> int:
        return 0


async def test_what_is_urgent_is_carried_out_beside_handlers() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        with pytest.raises(BadSignature, match=r"Hasty\.now.*urgent.*derive it from segue\.Envelope"):
            await engine.start(Hasty())
        with pytest.raises(BadSignature, match=r"Insistent\.look.*is carried out once"):
            await engine.start(Insistent())
        with pytest.raises(BadSignature, match=r"Instead\.none.*is carried out once"):
            await engine.start(Instead())
