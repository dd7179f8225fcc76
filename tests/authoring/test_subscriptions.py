"""Subscriptions: from runs and from outside, called off, cut off, and outlived; whatever crashes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import segue
from segue import Actor, Note, Request
from segue.model.errors import Conflict, InvalidValue, NotEncodable, RunEnded, WrongPlace
from segue.model.run import Head
from segue.ports.store import Turn
from segue.runtime.handles import answer_by_id
from segue.stores import open_store
from segue.testing.crash import Mortal
from tests.authoring.killed import at_every_commit, through
from tests.runtime.delayed import Lingering
from tests.runtime.lives import Desk


@dataclass
class Total:
    count: int


@dataclass
class Counted:
    n: int


class Counts(segue.Subscription[Total, Counted]):
    """The count, and each that is added."""


class Up(Note):
    """One more."""


class Slowly(Note):
    """One more after a while."""


class Finish(Note):
    how: str = "done"


class Counter(Actor[int]):
    count: int = 0

    @segue.on
    async def up(self, note: Up) -> None:
        self.count += 1
        await segue.publish(Counts, Counted(self.count))

    @segue.on
    async def slowly(self, note: Slowly) -> None:
        await segue.ask("Go on?")
        self.count += 1
        await segue.publish(Counts, Counted(self.count))

    @segue.on
    async def counts(self, s: Counts) -> Total:
        return Total(self.count)

    @segue.on
    async def finish(self, f: Finish) -> Any:
        return segue.Done(self.count) if f.how == "done" else segue.Fail(ValueError(f.how))


async def subscribed(desk: Desk, run: str, count: int) -> None:
    """Until it has so many subscribers."""
    for _ in range(3000):
        if sum(letter.kept for letter in await desk.store.inbox(run, 0)) == count:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{await desk.store.inbox(run, 0)}")


async def test_from_outside() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Counter(), id="c")
        await run.tell(Up())
        await desk.parked("c")
        async with run.subscribe(Counts()) as feed:
            assert feed.snapshot == Total(1)
            for _ in range(3):
                await run.tell(Up())
            got = []
            async for event in feed:
                got.append(event)
                if len(got) == 3:
                    break
            assert got == [Counted(2), Counted(3), Counted(4)]
            await subscribed(desk, "c", 1)
        await subscribed(desk, "c", 0)
        await run.tell(Up())
        await desk.parked("c")
        async with run.subscribe(Counts()) as one, run.subscribe(Counts()) as two:
            assert one.snapshot == two.snapshot == Total(5)
            await run.tell(Up())
            await run.tell(Finish())
            assert [event async for event in one] == [Counted(6)]  # it is done
            assert [event async for event in one] == []
            assert [event async for event in two] == [Counted(6)]
    assert await desk.store.dead_letters() == []


class Vague(Counter):
    @segue.on
    async def counts(self, s: Counts) -> Any:
        return "some"


@segue.flow
async def reads_in_vain(run: segue.Run[int]) -> str:
    try:
        async with run.subscribe(Counts()):
            return ""
    except InvalidValue as error:
        await segue.receive(Finish)
        return str(error)


@pytest.mark.parametrize("inside", [True, False])
async def test_whoever_cant_read_the_snapshot_is_no_subscriber(inside: bool) -> None:
    """Its events came for as long as its run, or process, lived, and nobody read them."""
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Vague(), id="c")
        if inside:
            reader = await engine.start(reads_in_vain(run), id="reader")
            await desk.parked("reader")
        else:
            with pytest.raises(InvalidValue, match="the snapshot of Counts"):
                await run.subscribe(Counts()).__aenter__()
        await subscribed(desk, "c", 0)
        if inside:
            await reader.tell(Finish())
            assert "the snapshot of Counts" in await reader


@segue.flow
async def iterates_too_late(run: segue.Run[int]) -> str:
    async with run.subscribe(Counts()) as feed:
        pass
    try:
        return str([event async for event in feed])
    except WrongPlace as error:
        return str(error)


async def test_events_come_inside_the_block() -> None:
    async with segue.Engine() as engine:
        run = await engine.start(Counter(), id="c")
        with pytest.raises(WrongPlace, match="iterate the feed there"):
            await anext(aiter(run.subscribe(Counts())))
        async with run.subscribe(Counts()) as feed:
            reading = asyncio.create_task(anext(aiter(feed)))
            await asyncio.sleep(0)
        for read in (reading, anext(aiter(feed))):
            with pytest.raises(WrongPlace, match="events of run 'c' come only inside its block"):
                await asyncio.wait_for(read, 5)
        assert "iterate the feed there" in await asyncio.wait_for(engine.run(iterates_too_late(run)), 5)


async def test_a_publisher_that_fails_or_isnt_there() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Counter(), id="c")
        async with run.subscribe(Counts()) as feed:
            await run.tell(Finish("badly"))
            with pytest.raises(RunEnded, match="failed"):
                async for _ in feed:
                    raise AssertionError("nothing was published")
        with pytest.raises(RunEnded):
            async with run.subscribe(Counts()):
                raise AssertionError("it has ended")
        other = await engine.start(Deaf(), id="deaf")
        with pytest.raises(TypeError, match="Counts"):
            async with other.subscribe(Counts()):
                raise AssertionError("it takes no subscriptions")
        await subscribed(desk, "deaf", 0)


class Deaf(Actor[None]):
    @segue.on
    async def up(self, note: Up) -> None:
        """Nothing."""


async def test_a_snapshot_while_a_handler_waits() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Counter(), id="c")
        await run.tell(Slowly())
        while not await engine.open_asks():
            await asyncio.sleep(0.001)
        async with run.subscribe(Counts()) as feed:
            assert feed.snapshot == Total(0)
            await (await engine.open_asks())[0].answer("yes")
            async for event in feed:
                assert event == Counted(1)
                break


@segue.flow
async def following(run: segue.Run[Any], enough: int) -> list[int]:
    got = []
    async with run.subscribe(Counts()) as feed:
        got.append(feed.snapshot.count)
        async for event in feed:
            got.append(event.n)
            if len(got) == enough:
                break
    await segue.sleep(timedelta(days=1))
    return got


async def test_from_a_flow() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Counter(), id="c")
        flow = await engine.start(following(run, 4), id="f")
        await subscribed(desk, "c", 1)
        for _ in range(6):
            await run.tell(Up())
        assert await flow == [0, 1, 2, 3]
        await subscribed(desk, "c", 0)
        flow = await engine.start(following(run, 4), id="g")
        await subscribed(desk, "c", 1)
        await run.tell(Finish())
        assert await flow == [6]
    assert await desk.store.dead_letters() == []


@segue.flow
async def asking_meanwhile(run: segue.Run[Any]) -> list[int]:
    async with run.subscribe(Counts()) as feed:
        await segue.ask("Are they there?")
        got = [feed.snapshot.count]
        async for event in feed:
            got.append(event.n)
            if len(got) == 4:
                return got
    return got


class Asking(Actor[list[int]]):
    run: segue.Run[int]

    def begin(self) -> str:
        return "go"

    @segue.state
    async def go(self, _: str) -> segue.Done[list[int]]:
        return segue.Done(await asking_meanwhile(self.run))


@pytest.mark.parametrize("park", ["auto", "always"])
@pytest.mark.parametrize("kind", [asking_meanwhile, Asking])
async def test_events_that_came_before_a_park_are_there_after_it(kind: Any, park: str) -> None:
    desk = Desk(park=park)
    async with desk.engine() as engine:
        run = await engine.start(Counter(), id="c")
        await engine.start(kind(run), id="f")
        await subscribed(desk, "c", 1)
        for _ in range(3):
            await run.tell(Up())
        for _ in range(3000):
            if len(await desk.store.inbox("f", 0)) == 3:
                break
            await asyncio.sleep(0.001)
        await desk.parked("f")
    async with desk.engine() as engine:
        (ask,) = await engine.open_asks()
        await ask.answer("yes")
        assert await asyncio.wait_for(engine.result("f"), 20) == [0, 1, 2, 3]


async def test_a_follower_that_is_cancelled() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Counter(), id="c")
        flow = await engine.start(following(run, 4), id="f")
        await subscribed(desk, "c", 1)
        await flow.cancel()
        await subscribed(desk, "c", 0)


class Follow(Note):
    run: segue.Run[Any]


class Unfollow(Note):
    """Enough."""


class Heard(Request[list[int]]):
    """What was heard."""


class Follower(Actor[None]):
    heard: list[int] = segue.field(default_factory=list)
    feed: segue.Feed[Any, Any] | None = None

    @segue.on
    async def follow(self, f: Follow) -> None:
        self.feed = await f.run.subscribe(Counts())
        self.heard.append(self.feed.snapshot.count)

    @segue.on
    async def counted(self, c: Counted) -> None:
        self.heard.append(c.n)

    @segue.on
    async def unfollow(self, u: Unfollow) -> None:
        assert self.feed is not None
        await self.feed.close()

    @segue.on
    async def get(self, h: Heard) -> list[int]:
        return self.heard


class Looks(Note):
    run: segue.Run[int]


class Careless(Actor[None]):
    """Its handler leaves a task behind that follows."""

    @segue.on
    async def looks(self, looks: Looks) -> None:
        async def read() -> None:
            async with looks.run.subscribe(Counts()) as feed:
                async for _ in feed:
                    pass

        reading = asyncio.create_task(read())
        await segue.sleep(timedelta(seconds=1))
        assert not reading.done()


async def test_a_block_that_was_cut_off_with_its_handler_is_left() -> None:
    """All events went on coming to who could never read them."""
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Counter(), id="c")
        careless = await engine.start(Careless(), id="careless")
        await careless.tell(Looks(run))
        await subscribed(desk, "c", 1)
        await desk.parked("careless")
        desk.fake.clock.advance(2)
        await careless.ping()
        await desk.parked("careless")
        await run.tell(Up())
        await subscribed(desk, "c", 0)


async def test_an_actor_follows_for_long() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Counter(), id="c")
        follower = await engine.start(Follower(), id="f")
        await follower.tell(Follow(run))
        await subscribed(desk, "c", 1)
        for _ in range(3):
            await run.tell(Up())
        while await follower.request(Heard()) != [0, 1, 2, 3]:
            await asyncio.sleep(0.001)
        await follower.cancel()
        assert (await engine.wait("f")).status == "cancelled"
        await run.tell(Up())  # finds nobody, which calls the subscription off
        await subscribed(desk, "c", 0)
    assert await desk.store.dead_letters() == []


@segue.flow
async def follows_for_a_while(counter: segue.Run[Any], follower: segue.Run[Any]) -> list[int]:
    await follower.tell(Follow(counter))
    while not await follower.request(Heard()):
        await segue.sleep(timedelta(seconds=1))
    await counter.tell(Up())
    while len(await follower.request(Heard())) < 2:
        await segue.sleep(timedelta(seconds=1))
    await follower.tell(Unfollow())
    await segue.sleep(timedelta(seconds=1))
    await counter.tell(Up())
    await segue.sleep(timedelta(seconds=1))
    return await follower.request(Heard())


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_an_actor_ends_that_in_a_later_wake(park: str, tmp_path: Path) -> None:
    """Only the wake that had begun it could."""

    async def begin(engine: segue.Engine) -> None:
        counter, follower = await engine.start(Counter(), id="c"), await engine.start(Follower(), id="f")
        await engine.start(follows_for_a_while(counter, follower), id="it")

    def check(_: Desk, head: Head) -> None:
        assert head.value == b"[0,1]"

    def set_up(desk: Desk) -> None:
        desk.options["park"] = park

    await at_every_commit(begin, "it", check, kind="memory", path=tmp_path, set_up=set_up)


async def test_what_a_kept_feed_is_good_for() -> None:
    @segue.flow
    async def flow(counter: segue.Run[Any]) -> None:
        feed = counter.subscribe(Counts())
        with pytest.raises(NotEncodable, match="await it first"):
            await tells(feed)
        async with feed:
            with pytest.raises(NotEncodable):
                await tells(feed)
        kept = await tells(await counter.subscribe(Counts()))
        with pytest.raises(WrongPlace, match="for its events, subscribe again"):
            await kept
        with pytest.raises(WrongPlace, match="its block"):
            async for _ in kept:
                pass
        await kept.close()

    @segue.step
    async def tells(feed: segue.Feed[Any, Any]) -> segue.Feed[Any, Any]:
        return feed

    desk = Desk()
    async with desk.engine() as engine:
        await engine.run(flow(await engine.start(Counter(), id="c")))
        await subscribed(desk, "c", 0)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_subscriptions_survive_crashes(kind: str, tmp_path: Path) -> None:
    """Killed at every commit: the follower hears each event once, in order."""
    for after in (False, True):
        for die_at in range(1, 60):
            store = open_store(f"sqlite:{tmp_path}/{after}-{die_at}.db") if kind == "sqlite" else None
            desk = Desk(store)
            async with desk.engine(worker=False) as engine:
                run = await engine.start(Counter(), id="c")
                await engine.start(following(run, 4), id="f")
            died = False
            for life in range(4):
                async with desk.engine(die_at if life == 0 else None, after=after) as engine:
                    assert desk.killed is not None
                    work = asyncio.ensure_future(drive(desk, engine))
                    await asyncio.wait([work, desk.killed], return_when=asyncio.FIRST_COMPLETED)
                    died = died or desk.killed.done()
                    if not work.done():
                        work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
                if (await desk.head("f")).status == "done":
                    break
            head = await desk.head("f")
            assert head.status == "done", head
            assert head.value == b"[0,1,2,3]"
            if store is not None:
                await store.close()
            if not died:
                break
        else:
            raise AssertionError("it commits for ever")


async def drive(desk: Desk, engine: Any) -> None:
    """Count on once somebody listens, until they have heard enough."""
    run = await engine.get("c")
    waiting = asyncio.ensure_future(engine.wait("f"))
    told = False
    while not waiting.done():
        subscribers = sum(letter.kept for letter in await desk.store.inbox("c", 0))
        if subscribers and not told:
            for _ in range(3):
                await run.tell(Up())
            told = True
        await asyncio.sleep(0.001)


CHILD = """
import asyncio, sys
import segue
from tests.authoring.test_subscriptions import Counts

async def main():
    async with segue.Engine(sys.argv[1]) as engine:
        run = await engine.get("c")
        async with run.subscribe(Counts()) as feed:
            print("snapshot", feed.snapshot.count, flush=True)
            async for event in feed:
                print("event", event.n, flush=True)

asyncio.run(main())
"""


async def test_a_watcher_that_is_killed_is_forgotten(tmp_path: Path) -> None:
    """With SIGKILL, in a process of its own."""
    path = f"sqlite:{tmp_path}/runs.db"
    root = Path(__file__).parents[2]
    async with segue.Engine(path) as engine:
        run = await engine.start(Counter(), id="c")
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, path, stdout=asyncio.subprocess.PIPE, cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert child.stdout is not None
        try:
            assert await asyncio.wait_for(child.stdout.readline(), 30) == b"snapshot 0\n"
            await run.tell(Up())
            assert await asyncio.wait_for(child.stdout.readline(), 30) == b"event 1\n"
            (letter,) = [letter for letter in await engine.store.inbox("c", 0) if letter.kept]
            assert letter.mail.name == "Counts"
        finally:
            child.send_signal(signal.SIGKILL)
            await child.wait()
        assert letter.mail.reply is not None
        watcher = letter.mail.reply.run
        async with asyncio.timeout(15):
            while (await engine.head(watcher)).status != "done":  # its claim is free, and somebody took it up
                await asyncio.sleep(0.02)
        await run.tell(Up())  # finds nobody, which calls the subscription off
        await subscribed(Desk(engine.store), "c", 0)
        assert (await run.ping()).waited >= timedelta(0)
    assert watcher.startswith("watch-")


async def test_as_many_as_one_likes_wait_outside() -> None:
    """Subscriptions of a process take no room from those who publish, and are one run, however many."""
    desk = Desk()
    async with desk.engine(room=4) as engine:
        run = await engine.start(Counter(), id="c")
        feeds = [run.subscribe(Counts()) for _ in range(50)]
        async with asyncio.timeout(20):
            await asyncio.gather(*(feed.__aenter__() for feed in feeds))
            for n in (1, 2):
                await run.tell(Up())
                for feed in feeds:
                    assert await anext(aiter(feed)) == Counted(n)
        await desk.parked("c")
        assert not engine.is_busy()
        assert len(await desk.store.runs()) == 2
        await asyncio.gather(*(feed.close() for feed in feeds[1:]))
        await subscribed(desk, "c", 1)
        assert (await engine.worker.backlog())[0] == 0  # nothing that a lane would wait for
    assert [letter.mail.kind for letter in await desk.store.inbox("c", 0)] == ["subscribe", "unsubscribe"]
    async with desk.engine() as engine:
        await subscribed(desk, "c", 0)


async def test_who_watches_is_nothing_that_is_waited_for() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Counter(), id="c")
        async with run.subscribe(Counts()):
            await run.tell(Finish())
            await run
            assert not await engine.advance()


GATE = asyncio.Event()


@segue.step
async def held() -> None:
    await GATE.wait()


@segue.flow
async def in_the_way() -> None:
    await held()


async def test_whoever_gives_up_waiting_for_the_snapshot_is_no_subscriber() -> None:
    desk = Desk()
    GATE.clear()
    async with desk.engine(room=1) as engine:
        other = await engine.start(in_the_way())  # so the publisher doesn't get in
        run = await engine.start(Counter(), id="c")
        waiting = [asyncio.ensure_future(run.subscribe(Counts()).__aenter__()) for _ in range(5)]
        while len(await desk.store.inbox("c", 0)) < 5:
            await asyncio.sleep(0.001)
        for one in waiting[1:]:
            one.cancel()
        await asyncio.gather(*waiting[1:], return_exceptions=True)
        GATE.set()
        await other
        assert (await waiting[0]).snapshot == Total(0)
        await subscribed(desk, "c", 1)


class Thinker(Counter):
    @segue.on
    async def counts(self, s: Counts) -> Total:
        await segue.ask("How many?")
        return Total(self.count)


@pytest.mark.parametrize("kill", [False, True])
async def test_whoever_gives_up_while_the_snapshot_is_taken_harms_nobody(kill: bool) -> None:
    desk = Desk(**({"linger": 60.0} if kill else {}))
    async with desk.engine() as engine:
        run = await engine.start(Thinker(), id="c")
        waiting = asyncio.ensure_future(run.subscribe(Counts()).__aenter__())
        while not (asks := await engine.open_asks()):
            await asyncio.sleep(0.001)
        if not kill:
            await desk.parked("c")
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.sleep(0.05)
    async with desk.engine() as engine:
        await engine.answer(asks[0].id, "one")
        run = await engine.get("c")
        await run.tell(Up())
        await run.tell(Finish())
        assert await asyncio.wait_for(run_of(run), 5) == 1
        assert await desk.store.inbox("c", 0) == []


@segue.flow
async def impatient(run: segue.Run[Any], how: str) -> None:
    bound = asyncio.timeout(0.03) if how == "asyncio" else segue.timeout(timedelta(seconds=1))
    try:
        async with bound:
            if how == "follows":
                await run.subscribe(Counts())
            async with run.subscribe(Counts()):
                raise AssertionError
    except TimeoutError:
        await segue.ask("And now?")


@pytest.mark.parametrize("how", ["asyncio", "segue", "follows"])
async def test_whoever_gives_up_waiting_for_the_snapshot_in_a_run_is_no_subscriber(how: str) -> None:
    desk = Desk(linger=1.0)
    async with desk.engine() as engine:
        run = await engine.start(Thinker(), id="c")
        await engine.start(impatient(run, how), id="f")
        while len(asks := {ask.question: ask for ask in await engine.open_asks()}) < 2:
            await asyncio.sleep(0.001)
        await asks["How many?"].answer("one")
        await run.tell(Up())
        while any(not letter.kept for letter in await desk.store.inbox("c", 0)):  # until that was handled
            await asyncio.sleep(0.001)
        assert await desk.store.inbox("c", 0) == []
        assert all(letter.mail.kind != "event" for letter in await desk.store.inbox("f", 0))
        await asks["And now?"].answer("done")
        assert (await engine.wait("f")).status == "done"


async def run_of(run: segue.Run[int]) -> int:
    return await run


class Pensive(Counter):
    @segue.on
    async def counts(self, s: Counts) -> Total:
        await segue.ask("How many?")
        return Total(self.count)


async def test_whoever_waits_for_the_snapshot_hears_that_the_engine_is_closed() -> None:
    async with segue.Engine() as engine:
        run = await engine.start(Pensive(), id="c")
        waiting = asyncio.create_task(run.subscribe(Counts()).__aenter__())
        await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError, match="the engine was closed"):
            await waiting


async def test_an_engine_that_does_no_work_says_that_it_hears_no_events() -> None:
    async with segue.Engine(worker=False) as engine:
        run = await engine.start(Counter(), id="c")
        with pytest.raises(WrongPlace, match="no events reach it"):
            async with asyncio.timeout(5), run.subscribe(Counts()):
                pass


async def test_a_process_that_was_taken_for_dead_says_so() -> None:
    """Its claim lapsed, somebody else brought its run to its end, and who publishes called it off."""
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Counter(), id="c")
        pensive = await engine.start(Pensive(), id="p")
        async with run.subscribe(Counts()) as feed:
            waiting = asyncio.create_task(pensive.subscribe(Counts()).__aenter__())
            await asyncio.sleep(0.05)
            (watch,) = [head.id for head in await desk.store.runs() if head.id.startswith("watch-")]
            await desk.store.bury([engine.worker.name])
            other = await desk.store.claim("other", 10, 60.0, now=engine.clock.now())
            (mine,) = [one for one in other if one.head.id == watch]
            end = Turn(run=watch, fence=mine.head.fence, status="done", release=True, value=b"null")
            await desk.store.commit([end])
            await engine.worker._renew()
            for hears in (anext(aiter(feed)), waiting):
                with pytest.raises(Conflict, match="subscribe again"):
                    await hears
        for one in other:
            if one is not mine:
                await desk.store.commit(
                    [Turn(run=one.head.id, fence=one.head.fence, status="ready", release=True)]
                )
        async with run.subscribe(Counts()) as feed:
            await run.tell(Up())
            assert await anext(aiter(feed)) == Counted(1)


async def test_a_feed_ends_with_its_engine() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Counter(), id="c")
        feed = await run.subscribe(Counts()).__aenter__()
        waiting = asyncio.ensure_future(anext(aiter(feed)))
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with desk.engine() as engine:
        await subscribed(desk, "c", 0)


async def test_whoever_subscribes_while_the_engine_closes_is_told() -> None:
    """It waited for ever for its snapshot, and each half second it was logged that its events couldn't be read."""
    async with AsyncExitStack() as closing:
        run = await (await closing.enter_async_context(segue.Engine(Lingering()))).start(Counter(), id="c")
        closes = asyncio.create_task(closing.aclose())
        await asyncio.sleep(0.1)
        with pytest.raises(asyncio.CancelledError, match="the engine was closed"):
            async with asyncio.timeout(5):
                await run.subscribe(Counts()).__aenter__()
        await closes


async def test_a_block_may_be_left_after_its_engine_is_closed() -> None:
    async with segue.Engine() as engine:
        run = await engine.start(Counter(), id="c")
        feed = await run.subscribe(Counts()).__aenter__()
    with pytest.raises(asyncio.CancelledError, match="subscribe again with the next one"):
        await anext(aiter(feed))
    await feed.close()


class Announce(Note):
    to: segue.Run[Any]


class Talking(Counter):
    @segue.on
    async def announce(self, a: Announce) -> None:
        self.count = len(await a.to.request(Heard()))


async def test_who_subscribed_may_be_asked_by_whom_it_follows() -> None:
    """It has its snapshot, so it waits for nothing: that is no circle."""
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Talking(), id="c")
        follower = await engine.start(Follower(), id="f")
        await follower.tell(Follow(run))
        await subscribed(desk, "c", 1)
        await run.tell(Announce(follower))
        async with run.subscribe(Counts()) as feed:
            while feed.snapshot.count != 1:
                await asyncio.sleep(0.001)
                async with run.subscribe(Counts()) as feed:
                    pass
    assert await desk.store.dead_letters() == []


class Following(Actor[list[int]]):
    """Who subscribes for longer than one handler."""

    to: segue.Run[int]
    got: list[int] = segue.field(default_factory=list)

    def begin(self) -> Finish:
        return Finish()

    @segue.state
    async def subscribe(self, _: Finish) -> segue.Listen:
        self.got.append((await self.to.subscribe(Counts())).snapshot.count)
        return segue.Listen()

    @segue.on
    async def counted(self, event: Counted) -> segue.Done[list[int]] | None:
        self.got.append(event.n)
        return segue.Done(self.got) if event.n == 2 else None


async def subscribed_with_an_answer(desk: Desk) -> None:
    """A publisher whose question is answered, and to which somebody subscribes, both while nobody is at work on it."""
    clock = desk.fake.clock
    async with segue.Engine(Mortal(desk.store, None), clock=clock, linger=0.02) as engine:
        counter: segue.Run[Any] = await engine.start(Counter(), id="it")
        await counter.tell(Slowly())
        while not (asked := await engine.open_asks()):
            await asyncio.sleep(0.001)
    async with segue.Engine(Mortal(desk.store, None), clock=clock, worker=False) as engine:
        await answer_by_id(engine, asked[0].id, "yes")
        counter = await engine.get("it")
        await counter.feed([Up(), Finish()])
        now = engine.clock.now()
        (claimed,) = await desk.store.claim("elsewhere", 10, 1e6, now=now)
        await engine.start(Following(counter), id="following")
    async with segue.Engine(Mortal(desk.store, None), clock=clock, linger=0.02):
        while not any(letter.mail.kind == "subscribe" for letter in await desk.store.inbox("it", 0)):
            await asyncio.sleep(0.001)
    let_go = Turn(run="it", fence=claimed.head.fence, status="ready", release=True, now=now)
    assert await desk.store.commit([let_go]) == ["committed"]


@pytest.mark.parametrize("after", [False, True])
async def test_a_subscription_that_strikes_with_an_outcome(after: bool) -> None:
    """What was published before its snapshot was taken isn't told again, wherever its publisher is killed."""
    for die_at in range(1, 30):
        desk = Desk()
        await subscribed_with_an_answer(desk)
        died = await through(desk, "following", die_at, after)
        while (head := await desk.head("following")).status in ("ready", "parked"):
            await through(desk, "following", None, False)
        got = msgspec.json.decode(head.value or b"null", type=list[int])
        assert got == list(range(got[0], 3)), got
        if not died:
            return
    raise AssertionError("it commits for ever")


class Again(Following):
    """Who fails once when it has subscribed."""

    @segue.state(retry=2)
    async def subscribe(self, _: Finish) -> segue.Listen:
        await self.to.subscribe(Counts())
        FAILED.append(self.me.id)
        if len(FAILED) == 1:
            raise OSError("not yet")
        return segue.Listen()


FAILED: list[str] = []


async def test_who_subscribes_again_is_told_once() -> None:
    FAILED.clear()
    desk = Desk()
    async with desk.engine() as engine:
        counter = await engine.start(Counter(), id="c")
        follower = await engine.start(Again(counter))
        while len(FAILED) < 2:
            await asyncio.sleep(0.001)
        await counter.feed([Up(), Up()])
        assert await desk.fake.or_unexpected(engine.wait(follower.id))
        assert await follower == [1, 2]
