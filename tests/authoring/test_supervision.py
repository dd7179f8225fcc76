"""Supervised children: ended group by group, begun anew by policy; whatever crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, ClassVar

import pytest

import segue
from segue import Actor, Done, Ended, Fail, Interrupt, Note, Request, Restart
from segue.authoring.flow import definition
from segue.core.restarts import Kind, Verdict, decide
from segue.model.errors import (
    BadSignature,
    Conflict,
    InvalidValue,
    NotEncodable,
    RunCancelled,
    RunEnded,
    RunHeld,
    RunInterrupted,
    WrongPlace,
)
from segue.model.run import Head
from segue.stores import open_store
from segue.testing import FakeModel
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk

S: list[str] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    S.clear()


class Floor(IntEnum):
    CELLAR = 1
    HALL = 2
    ATTIC = 3


class Stop(Note):
    pass


class Break(Note):
    pass


class Count(Request[int]):
    pass


class Hire(Request[bool]):
    floor: Floor
    name: str
    restart: Kind = "transient"


class HireFlow(Request[bool]):
    name: str
    question: str


class Lodger(Actor[str]):
    name: str
    count: int = 0

    def setup(self) -> None:
        S.append(f"{self.name} comes")

    def teardown(self) -> None:
        S.append(f"{self.name} goes")

    @segue.on
    async def stop(self, _: Stop) -> Done[str]:
        return Done(self.name)

    @segue.on
    async def break_(self, _: Break) -> Fail:
        return Fail(ValueError(f"{self.name} broke"))

    @segue.on
    async def counted(self, _: Count) -> int:
        self.count += 1
        return self.count


@segue.flow
async def guest(name: str, question: str) -> str:
    S.append(f"{name} comes")
    if await segue.ask(question) == "fail":
        raise ValueError(f"{name} broke")
    return name


class House(Actor[str]):
    groups = Floor
    restart = Restart("one", times=2, within=timedelta(minutes=1))
    ends: list[str] = segue.field(default_factory=list)

    @segue.on
    async def hire(self, request: Hire) -> bool:
        child = Lodger(request.name)
        await segue.spawn(child, group=request.floor, restart=request.restart, id=f"lodger/{request.name}")
        return True

    @segue.on
    async def host(self, request: HireFlow) -> bool:
        call = guest(request.name, request.question)
        await segue.spawn(call, group=Floor.HALL, id=f"lodger/{request.name}")
        return True

    @segue.on
    async def stop(self, _: Stop) -> Done[str]:
        return Done("closed")

    def finished(self, child: Ended) -> object:
        S.append(f"{child.run.id} {child.group.name} {child.why} {child.value or child.error}")
        self.ends.append(child.run.id)
        return None

    def teardown(self) -> None:
        S.append("house closes")


class Together(House):
    restart = Restart("all", times=2)


class After(House):
    restart = Restart("rest", times=2)


class Strict(House):
    restart = Restart(times=0, escalate=True)


@dataclass
class Opening:
    pass


class Quarter(Actor[None]):
    groups = Floor

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Listen:
        await segue.spawn(Filled(), group=Floor.HALL, id="inner")
        await segue.spawn(Lodger("outer"), group=Floor.CELLAR)
        return segue.Listen()


class Filled(House):
    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Listen:
        await segue.spawn(Lodger("in1"), group=Floor.CELLAR)
        await segue.spawn(Lodger("in2"), group=Floor.HALL)
        return segue.Listen()


class Late(House):
    """It takes somebody in while it closes."""

    taken: ClassVar[list[str]] = []

    async def finished(self, child: Ended) -> object:
        if child.run.id == "lodger/first":
            await segue.spawn(Lodger("late"), group=Floor.ATTIC, id="lodger/late")
        return None


def goes() -> list[str]:
    return [said for said in S if said.endswith("goes") or said == "house closes"]


async def test_groups_end_from_the_last_to_the_first() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house")
        for floor, name in (
            (Floor.CELLAR, "c"),
            (Floor.ATTIC, "a1"),
            (Floor.HALL, "h"),
            (Floor.ATTIC, "a2"),
        ):
            await house.request(Hire(floor, name))
        await house.tell(Stop())
        assert await house == "closed"
        assert sorted(goes()[:2]) == ["a1 goes", "a2 goes"]
        assert goes()[2:] == ["h goes", "c goes", "house closes"]
        assert len([said for said in S if "interrupted" in said]) == 4


class Numbered(IntEnum):
    TOP = 30
    BOTTOM = 10
    MIDDLE = 20


class Named(Enum):
    BOTTOM = "z"
    MIDDLE = "a"
    TOP = "m"


@pytest.mark.parametrize("floors", [Numbered, Named])
async def test_groups_are_ordered_as_their_enum_is(floors: type[Enum]) -> None:
    """By number where they have one, as `<` says, wherever they stand; else as they stand there."""

    class Tower(House):
        groups = floors

        def begin(self) -> Opening:
            return Opening()

        @segue.state
        async def open(self, _: Opening) -> segue.Listen:
            for name in ("MIDDLE", "TOP", "BOTTOM"):
                await segue.spawn(Lodger(name), group=floors[name])
            return segue.Listen()

    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(Tower(), id="house")
        await house.tell(Stop())
        await house
    assert goes() == ["TOP goes", "MIDDLE goes", "BOTTOM goes", "house closes"]


class Flats(House):
    """Who lives with whom is the value of the group."""

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Listen:
        await segue.spawn(Lodger("cat"), group=Floor.ATTIC)
        for name, flat in (("ann", 2), ("bob", 10), ("cid", 2)):
            await segue.spawn(Lodger(name), group=(Floor.HALL, {"flat": flat}))
        await segue.spawn(Lodger("rat"), group=Floor.CELLAR)
        return segue.Listen()

    def finished(self, child: Ended) -> object:
        S.append(f"{child.group.name} {child.member}")
        return None


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_a_group_with_a_value_is_a_group_of_its_own(park: str) -> None:
    """Those of one value end together, before those whose value came first."""
    desk = Desk(park=park)
    async with desk.engine() as engine:
        house = await engine.start(Flats(), id="house")
        await until(lambda: "rat comes" in S)
        await house.tell(Stop())
        assert await house == "closed"
        assert goes()[:2] == ["cat goes", "bob goes"]
        assert sorted(goes()[2:4]) == ["ann goes", "cid goes"]
        assert goes()[4:] == ["rat goes", "house closes"]
        told = [said for said in S if said.startswith(("ATTIC", "HALL", "CELLAR"))]
        assert told == ["ATTIC None", "HALL {'flat': 10}", *["HALL {'flat': 2}"] * 2, "CELLAR None"]


async def test_the_value_of_a_group_is_one_that_can_be_stored() -> None:
    class Wrong(House):
        def begin(self) -> Opening:
            return Opening()

        @segue.state
        async def open(self, _: Opening) -> segue.Listen:
            await segue.spawn(Lodger("x"), group=(Floor.HALL, object()))
            return segue.Listen()

    async with segue.Engine() as engine:
        with pytest.raises(NotEncodable, match="the value of the group"):
            await engine.run(Wrong())


@pytest.mark.parametrize("how", ["cancel", *Interrupt])
async def test_the_tree_ends_in_order_however_it_is_ended(how: Any) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Quarter(), id="quarter")
        await until(lambda: {"in1 comes", "in2 comes", "outer comes"} <= set(S))
        await (run.cancel() if how == "cancel" else run.interrupt(how))
        with pytest.raises(RunCancelled if how == "cancel" else RunInterrupted):
            await run
        assert goes() == ["in2 goes", "in1 goes", "house closes", "outer goes"]


async def test_a_child_that_fails_begins_anew_with_its_mail() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house")
        await house.request(Hire(Floor.HALL, "x"))
        x = await engine.get("lodger/x")
        assert await x.request(Count()) == 1
        assert await x.request(Count()) == 2
        await x.tell(Break())
        assert await x.request(Count()) == 1  # anew, and the request wasn't lost
        assert S == ["x comes", "x goes", "x comes"]
        await x.tell(Stop())
        assert await x == "x"  # transient: done is done
        await until(lambda: "lodger/x HALL done x" in S)


@pytest.mark.parametrize(("kind", "anew"), [("permanent", True), ("transient", False), ("temporary", False)])
async def test_what_is_done_begins_anew_only_if_permanent(kind: Kind, anew: bool) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house")
        await house.request(Hire(Floor.HALL, "x", kind))
        x = await engine.get("lodger/x")
        await x.tell(Stop())
        await until(lambda: S.count("x comes") == 2 if anew else "lodger/x HALL done x" in S)
        assert S.count("x comes") == 1 + anew


@pytest.mark.parametrize(("cls", "comes"), [(House, {"b"}), (Together, {"a", "b", "c"}), (After, {"b", "c"})])
async def test_others_begin_anew_with_it_by_strategy(cls: type[House], comes: set[str]) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(cls(), id="house")
        for name in "abc":
            await house.request(Hire(Floor.HALL, name))
        await until(lambda: {f"{name} comes" for name in "abc"} <= set(S))
        S.clear()
        await (await engine.get("lodger/b")).tell(Break())
        wanted = {f"{name} comes" for name in comes}
        await until(lambda: wanted <= set(S))
        await house.tell(Stop())
        await house
        assert {said for said in S if said.endswith("comes")} == wanted


async def test_one_that_fails_too_often_is_set_aside_and_a_person_may_resume_it() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house")
        await house.request(Hire(Floor.HALL, "y"))
        y = await engine.get("lodger/y")
        for _ in range(3):
            await y.tell(Break())
        with pytest.raises(RunHeld, match="y broke"):
            await y
        assert S.count("y comes") == 3
        await until(lambda: "lodger/y HALL set aside y broke" in S)
        await engine.resume("lodger/y")
        assert await y.request(Count()) == 1
        assert S.count("y comes") == 4


class Block(House):
    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Listen:
        await segue.spawn(Filled(), group=Floor.HALL, restart="permanent", id="inner")
        return segue.Listen()


@pytest.mark.parametrize("how", ["cancel", "interrupt"])
async def test_a_permanent_house_that_is_cancelled_or_interrupted_stays_ended(how: str) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(Block(), id="block")
        await until(lambda: {"in1 comes", "in2 comes"} <= set(S))
        inner = await engine.get("inner")
        await (inner.cancel() if how == "cancel" else inner.interrupt(segue.Interrupt.NOW))
        with pytest.raises(RunInterrupted if how == "interrupt" else RunCancelled):
            await inner
        await until(lambda: any(said.startswith("inner HALL interrupted") for said in S))
        assert (S.count("in1 comes"), goes()) == (1, ["in2 goes", "in1 goes", "house closes"])


async def test_one_that_is_held_doesnt_keep_the_house_open() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house")
        await house.request(Hire(Floor.HALL, "y"))
        y = await engine.get("lodger/y")
        for _ in range(3):
            await y.tell(Break())
        await desk.until("lodger/y", "held")
        await house.tell(Stop())
        closing = asyncio.ensure_future(engine.wait("house"))
        while not closing.done():
            desk.fake.clock.advance(31)
            await asyncio.sleep(0.01)
        assert (await desk.head("lodger/y")).status == "cancelled"
        assert "lodger/y HALL interrupted" in " ".join(S)


async def test_escalation_fails_the_supervisor() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(Strict(), id="house")
        await house.request(Hire(Floor.HALL, "z"))
        await house.request(Hire(Floor.HALL, "other"))
        await (await engine.get("lodger/z")).tell(Break())
        with pytest.raises(ValueError, match="z broke"):
            await house
        assert "other goes" in S


async def test_a_child_that_comes_while_the_house_closes_goes_at_once() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(Late(), id="house")
        await house.request(Hire(Floor.CELLAR, "first"))
        await house.tell(Stop())
        assert await house == "closed"
        assert (await desk.head("lodger/late")).status == "cancelled"


async def test_flows_are_supervised_too() -> None:
    desk = Desk()
    desk.fake.answer("once", "fail")
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house")
        await house.request(HireFlow("f", "once?"))
        await desk.until("lodger/f", "held")
        children = [head.id for head in await desk.store.runs() if head.id.startswith("lodger/f.")]
        assert len(children) == 3  # each time anew
        desk.fake.answer("well", "fine")
        await house.request(HireFlow("g", "well?"))
        await until(lambda: "lodger/g HALL done g" in S)


async def test_groups_are_checked() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        with pytest.raises(WrongPlace, match=r"groups = Floor"):
            await engine.run(NoHouse())
        with pytest.raises(WrongPlace, match="is no actor"):
            await engine.run(no_house())


def test_what_would_mean_nothing_is_refused() -> None:
    class Unsaid(Actor[None]):
        restart = Restart("one")

    class Unheard(Actor[None]):
        def finished(self, child: Ended) -> object: ...

    class Bounded(Actor[None]):
        mailbox = 100

    class Patient(Actor[None]):
        grace = 30  # type: ignore[assignment]  # that is what it is about

    class Listed(Actor[None]):
        groups = ["hall"]  # type: ignore[assignment]  # so here

    class Named(Actor[None]):  # fields of these names are fields
        mailbox: str = "box"
        restart: str = "button"  # type: ignore[assignment,misc]  # as mypy can't know

    for actor, said in (
        (Unsaid(), "a `restart` for children, and no groups to keep them in; set `groups`"),
        (Unheard(), "`finished` for children, and no groups"),
        (Bounded(), r"mailbox: it can't be 100; write `mailbox = segue\.Mailbox\(100\)`"),
        (Patient(), "grace: it can't be 30; write `grace = timedelta"),
        (Listed(), r"groups: it can't be \['hall'\]; write `groups = Floor`"),
    ):
        with pytest.raises(BadSignature, match=said):
            definition(type(actor)).take(actor)
    definition(Named).take(Named())


@segue.flow
async def spawns(kind: Any) -> None:
    await segue.spawn(Lodger("n"), restart=kind)


async def test_a_restart_without_a_group_or_of_no_kind_is_refused() -> None:
    async with FakeModel() as model:
        with pytest.raises(WrongPlace, match="nobody would begin it anew; give a `group=` too"):
            await model.run_flow(spawns("permanent"))
        with pytest.raises(
            InvalidValue, match="permanent or transient or temporary: it is none of them; got 'always'"
        ):
            await model.run_flow(spawns("always"))


class NoHouse(Actor[None]):
    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> Done[None]:
        await segue.spawn(Lodger("n"), group=Floor.HALL)
        return Done()


@segue.flow
async def no_house() -> None:
    await segue.spawn(Lodger("n"), group=Floor.HALL)


def test_policy() -> None:
    policy = Restart(times=2, within=timedelta(seconds=10), backoff=timedelta(seconds=1))
    assert decide(policy, [], 100.0) == (Verdict("anew", 1.0), [100.0])
    assert decide(policy, [100.0], 105.0) == (Verdict("anew", 2.0), [100.0, 105.0])
    assert decide(policy, [100.0, 105.0], 109.0) == (Verdict("aside"), [100.0, 105.0])
    assert decide(policy, [100.0, 105.0], 111.0) == (Verdict("anew", 2.0), [105.0, 111.0])
    with pytest.raises(ValueError, match="'one', 'all' or 'rest'"):
        Restart("two")  # type: ignore[arg-type]


# ---------------------------------------------------------------- whatever crashes
class Ward(House):
    restart = Restart(times=9)

    @segue.on
    async def stop(self, _: Stop) -> Done[str]:
        return Done(f"closed after {self.ends}")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_killed_at_every_commit(kind: str, tmp_path: Path) -> None:
    deaths = 0
    for after in (False, True):
        for die_at in range(1, 100):
            store = open_store(f"sqlite:{tmp_path}/{after}-{die_at}.db") if kind == "sqlite" else None
            desk = Desk(store)
            died = await a_life(desk, die_at, after)
            whole = not died
            deaths += died
            for _ in range(5):
                if not died:
                    break
                died = await a_life(desk, None, False)
            assert not died
            assert (await desk.head("ward")).value == b'"closed after []"'
            assert (await desk.head("lodger/q")).status == "cancelled"
            assert (await desk.head("lodger/p")).status in (
                "cancelled",
                "failed",
            )  # it may break while all end
            if store is not None:
                await store.close()
            if whole:
                break
        else:
            raise AssertionError("it commits for ever")
    assert deaths > 20


async def a_life(desk: Desk, die_at: int | None, after: bool) -> bool:
    """The story from outside, as far as it gets; whether the process died."""
    async with desk.engine(die_at, after=after) as engine:
        assert desk.killed is not None
        telling = asyncio.ensure_future(tell_story(engine))
        await asyncio.wait({telling, desk.killed}, return_when=asyncio.FIRST_COMPLETED)
        died = desk.killed.done()
        if died:
            telling.cancel()
        await asyncio.gather(telling, return_exceptions=died)
        return died


async def tell_story(engine: Any) -> None:
    """A house with two lodgers, one of whom breaks; then it closes."""
    house = await engine.start(Ward(), id="ward")
    with suppress(RunEnded, Conflict):  # the life before came so far
        await house.request(Hire(Floor.HALL, "p"))
        await house.request(Hire(Floor.ATTIC, "q"))
        lodger = await engine.get("lodger/p")
        await lodger.tell(Break())
        assert await lodger.request(Count()) == 1
        await house.tell(Stop())
    await engine.wait("ward")


async def until(what: Callable[[], object]) -> None:
    for _ in range(3000):
        if what():
            return
        await asyncio.sleep(0.001)
    raise AssertionError(S)


async def test_a_result_of_a_class_that_isnt_known_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.wake.handling.Handling.target", lambda self, name, module="": None)
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house")
        await house.request(Hire(Floor.HALL, "x"))
        await (await engine.get("lodger/x")).tell(Stop())
        await until(lambda: "lodger/x HALL done x" in S)


class Teller(House):
    """It is done each time that somebody leaves; the first one counts."""

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Listen:
        for floor in Floor:
            await segue.spawn(Lodger(floor.name), group=floor, id=f"lodger/{floor.name}")
        await (await segue.spawn(Lodger("guest"), group=Floor.CELLAR)).tell(Stop())
        return segue.Listen()

    async def finished(self, child: Ended) -> Done[str]:
        await segue.sleep(timedelta(seconds=1))  # so that what is said is committed
        self.ends.append(child.run.id)
        return Done(str(len(self.ends)))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_is_said_while_it_ends_doesnt_change_how_it_ends(kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        await engine.start(Teller(), id="house")

    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.value) == ("done", b'"1"'), head.reason

    await at_every_commit(begin, "house", check, kind=kind, path=tmp_path)


class Slowly(Actor[int]):
    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Done[int]:
        await segue.sleep(timedelta(hours=1))
        return segue.Done(5)


class Patient(Actor[int]):
    groups = Floor

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Done[int]:
        return segue.Done(await (await segue.spawn(Slowly(), group=Floor.HALL, id="slowly")))


async def test_a_supervised_child_with_a_name_is_awaited() -> None:
    """It is this one's own, though its end goes to the supervisor as well."""
    desk = Desk()
    async with desk.engine() as engine:
        assert await engine.run(Patient(), id="patient") == 5


class Twice(Actor[list[str]]):
    """Spawns what has ended."""

    groups = Floor

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Done[list[str]]:
        first = await segue.spawn(guest("g", "well?"), group=Floor.HALL, id="g")
        said = [await first]
        again = await segue.spawn(guest("g", "well?"), group=Floor.HALL, id="g")
        said.append(await segue.ask("and?"))
        return Done([*said, await again])


async def test_of_flows_that_are_called_alike_the_one_is_supervised_that_was_meant() -> None:
    other = "import segue\n\n@segue.flow\nasync def guest(name: str) -> None: ...\n"
    exec(compile(other, "elsewhere.py", "exec"), {"__name__": "elsewhere"})
    model = FakeModel().answer("well?", "fine").answer("and?", "yes")
    await segue.testing.check(Twice, model=model)


async def test_what_has_ended_isnt_spawned_again() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house")
        await house.request(Hire(Floor.HALL, "a"))
        await (await engine.get("lodger/a")).tell(Stop())
        await until(lambda: "lodger/a HALL done a" in S)
        await house.request(Hire(Floor.HALL, "a"))
        began = desk.fake.clock.now()
        await house.tell(Stop())
        assert await house == "closed"
        assert desk.fake.clock.now() - began < 30  # it waited for an end that had come
    model = desk.fake.answer("well?", "fine").answer("and?", "yes")
    await segue.testing.check(Twice, model=model)


async def test_what_somebody_else_started_isnt_supervised() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house")
        lodger = await engine.start(Lodger("a"), id="lodger/a")
        with pytest.raises(WrongPlace, match="somebody else"):
            await house.request(Hire(Floor.HALL, "a"))
        await lodger.tell(Stop())
        assert await lodger == "a"
        with pytest.raises(WrongPlace, match="somebody else"):
            await house.request(Hire(Floor.HALL, "a"))
        began = desk.fake.clock.now()
        await house.tell(Stop())
        assert await house == "closed"
        assert desk.fake.clock.now() - began < 30
