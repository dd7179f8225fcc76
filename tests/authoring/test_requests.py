"""Answers that come later, or to others; what happens meanwhile; who waits for whom; whatever crashes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Actor, Note, Request, Responder, Response
from segue.model.errors import BadSignature, Deadlock, InvalidValue, RunEnded, UnknownName, WrongPlace
from segue.model.message import Letter, Mail
from segue.model.run import Head
from segue.runtime.ground.events import Emitted, Recorded, Token
from segue.stores import open_store
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk, until


class Question(Request[str]):
    text: str


class Decide(Note):
    text: str


class Quit(Note):
    how: str = "done"


class Clerkship(Actor[int]):
    """Keeps what it is asked, and answers when it is told what."""

    open: dict[str, Responder[str]] = segue.field(default_factory=dict)

    @segue.on
    async def asked(self, q: Question, reply: Responder[str]) -> None:
        if q.text == "now":
            await reply.send("at once")
        elif q.text == "bad":
            raise ValueError("a bad question")
        else:
            self.open[q.text] = reply

    @segue.on
    async def decide(self, d: Decide) -> None:
        reply = self.open.pop(d.text)
        if d.text == "wrong":
            await reply.fail(KeyError("wrong"))
        else:
            await reply.send(d.text.upper())

    @segue.on
    async def quit(self, q: Quit) -> Any:
        return segue.Done(1) if q.how == "done" else segue.Fail(ValueError(q.how))


async def kept(desk: Desk, run: str, count: int) -> None:
    """Until so many requests are kept there."""
    for _ in range(3000):
        if sum(letter.kept for letter in await desk.store.inbox(run, 0)) == count:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{await desk.store.inbox(run, 0)}")


async def test_an_answer_may_come_later() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Clerkship(), id="c")
        asking = [asyncio.ensure_future(run.request(Question(text))) for text in ("x", "y", "wrong")]
        await kept(desk, "c", 3)
        assert await run.request(Question("now")) == "at once"
        with pytest.raises(ValueError, match="a bad question"):
            await run.request(Question("bad"))
        for text in ("y", "wrong", "x"):
            await run.tell(Decide(text))
        assert [await asking[0], await asking[1]] == ["X", "Y"]
        with pytest.raises(KeyError, match="wrong"):
            await asking[2]
        await desk.parked("c")
        assert await desk.store.inbox("c", 0) == []


@pytest.mark.parametrize("end", ["done", "failed"])
async def test_who_keeps_an_answer_and_ends(end: str) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Clerkship(), id="c")
        asking = asyncio.ensure_future(run.request(Question("x")))
        await kept(desk, "c", 1)
        await run.tell(Quit(end))
        with pytest.raises(RunEnded, match=rf"run 'c' answers no more: it is {end}"):
            await asking
        with pytest.raises(RunEnded):
            await run.request(Question("y"))
        with pytest.raises((RunEnded, UnknownName)):
            await segue.Run(engine, "nobody").request(Question("y"))


LOOKS: list[asyncio.Future[None]] = []


@segue.step
async def look() -> None:
    LOOKS.append(asyncio.get_running_loop().create_future())
    await LOOKS[-1]


class Hurried(segue.Envelope, Request[str]):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        return "at once"


class Looks(Clerkship):
    """Looks for a while before it keeps what it is asked."""

    @segue.on
    async def asked(self, q: Question, reply: Responder[str]) -> None:
        await look()
        self.open[q.text] = reply


async def test_what_is_asked_beside_a_handler_that_keeps_leaves_that_its_request() -> None:
    desk = Desk()
    LOOKS.clear()
    async with desk.engine() as engine:
        run = await engine.start(Looks(), id="c")
        asking = asyncio.ensure_future(run.request(Question("x")))
        await until(lambda: LOOKS)
        assert await run.request(Hurried()) == "at once"
        LOOKS[0].set_result(None)
        await kept(desk, "c", 1)
        await run.tell(Quit())
        with pytest.raises(RunEnded, match="answers no more"):
            await asking


class TakesOver(Note):
    reply: Responder[str]


class Delegate(Actor[None]):
    to: segue.Run[Any]

    @segue.on
    async def asked(self, q: Question, reply: Responder[str]) -> None:
        await self.to.tell(TakesOver(reply))


class Expert(Actor[None]):
    @segue.on
    async def take(self, t: TakesOver) -> None:
        await t.reply.send("the expert says")


async def test_a_responder_may_be_sent_to_another() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        expert = await engine.start(Expert(), id="expert")
        run = await engine.start(Delegate(expert), id="delegate")
        assert await run.request(Question("x")) == "the expert says"
        await desk.parked("delegate")
        assert await desk.store.inbox("delegate", 0) == []  # it keeps it no longer


@segue.flow
async def two_questions(run: segue.Run[Any]) -> list[str]:
    return list(await asyncio.gather(run.request(Question("x")), run.request(Question("y"))))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_kept_answers_survive_crashes(kind: str, tmp_path: Path) -> None:
    for after in (False, True):
        for die_at in range(1, 40):
            store = open_store(f"sqlite:{tmp_path}/{after}-{die_at}.db") if kind == "sqlite" else None
            desk = Desk(store)
            async with desk.engine(worker=False) as engine:
                run = await engine.start(Clerkship(), id="c")
                await engine.start(two_questions(run), id="asker")
            died = False
            for life in range(3):
                async with desk.engine(die_at if life == 0 else None, after=after) as engine:
                    assert desk.killed is not None
                    work = asyncio.ensure_future(decide_all(desk, engine))
                    await asyncio.wait({work, desk.killed}, return_when=asyncio.FIRST_COMPLETED)
                    died = died or desk.killed.done()
                    if not work.done():
                        work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
                if (await desk.head("asker")).status == "done":
                    break
            head = await desk.head("asker")
            assert head.value == b'["X","Y"]', head
            if store is not None:
                await store.close()
            if not died:
                break
        else:
            raise AssertionError("it commits for ever")


async def decide_all(desk: Desk, engine: Any) -> None:
    """As somebody at a desk would, until all is answered."""
    run = await engine.get("c")
    told: set[str] = set()
    while (await desk.head("asker")).status != "done":
        for letter in await desk.store.inbox("c", 0):
            text = "x" if letter.mail.value == b'{"text":"x"}' else "y"
            if letter.kept and text not in told:
                told.add(text)
                await run.tell(Decide(text))
        await asyncio.sleep(0.001)


async def test_responders_that_cant_be() -> None:
    class Wrongly(Actor[None]):
        @segue.on
        async def told(self, note: Decide, reply: Responder[str]) -> None:
            """A note wants no answer."""

    desk = Desk()
    async with desk.engine() as engine:
        with pytest.raises(BadSignature, match="only a request is answered"):
            await engine.start(Wrongly(), id="w")


# ---------------------------------------------------------------- forwarding
@dataclass
class Start:
    text: str


class Front(Actor[list[str]]):
    """Asks another, goes on listening, and gets the answer as a message."""

    back: segue.Run[Any]
    got: list[str] = segue.field(default_factory=list)

    @segue.on
    async def start(self, d: Decide) -> None:
        await self.back.request(Question(d.text)).forward(tag=f"tag {d.text}")

    @segue.on
    async def answered(self, r: Response[Question]) -> Any:
        self.got.append(f"{r.tag}: {r.value if r.error is None else repr(r.error)}")
        return segue.Done(self.got) if len(self.got) == 3 else None


class Back(Actor[None]):
    @segue.on
    async def asked(self, q: Question) -> str:
        if q.text == "bad":
            raise ValueError("no")
        return q.text * 2


async def test_an_answer_as_a_message() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        back = await engine.start(Back(), id="back")
        front = await engine.start(Front(back), id="front")
        for text in ("a", "bad"):
            await front.tell(Decide(text))
        await desk.parked("front")
        await back.request(Question("from outside")).forward(front, tag="third")
        assert await front == ["tag a: aa", "tag bad: ValueError('no')", "third: from outsidefrom outside"]
        with pytest.raises(WrongPlace, match="needs the run that gets the answer"):
            await back.request(Question("x")).forward()
        with pytest.raises(InvalidValue, match="none where it is forwarded: nobody waits for its answer"):
            await back.request(Question("x"), timeout=timedelta(days=1)).forward(front)


class Repeating(Actor[None]):
    """Answers more than once."""

    reply: Responder[str] | None = None

    @segue.on
    async def asked(self, q: Question, reply: Responder[str]) -> None:
        if q.text == "later":
            self.reply = reply
            await self.me.tell(Decide(""), after=timedelta(minutes=1))
            return
        await reply.send("first")
        await segue.sleep(timedelta(minutes=1))
        if q.text == "and fails":
            raise ValueError("too late")
        await reply.send("second")

    @segue.on
    async def decide(self, d: Decide) -> None:
        assert self.reply is not None
        await self.reply.send("first")
        await segue.sleep(timedelta(minutes=1))
        await self.reply.send("second")


@segue.flow
async def all_answers(run: segue.Run[Any], how: str) -> list[str]:
    await run.request(Question(how)).forward()
    answers: list[str] = []
    with contextlib.suppress(TimeoutError):
        while True:
            answers.append((await segue.receive(Response[Question], timeout=timedelta(hours=1))).result())
    return answers


@pytest.mark.parametrize("how", ["at once", "and fails", "later"])
async def test_the_first_answer_to_a_forwarded_request_counts(how: str, tmp_path: Path) -> None:
    """Each further one was another message."""

    async def begin(engine: segue.Engine) -> None:
        await engine.start(all_answers(await engine.start(Repeating(), id="r"), how), id="f")

    def check(_: Desk, head: Head) -> None:
        assert head.value == b'["first"]'

    await at_every_commit(begin, "f", check, kind="memory", path=tmp_path)


class Register(Actor[list[str]]):
    heard: list[str] = segue.field(default_factory=list)

    @segue.on
    async def asked(self, q: Question) -> str:
        self.heard.append(f"asked {q.text}")
        return q.text

    @segue.on
    async def told(self, d: Decide) -> None:
        self.heard.append(f"told {d.text}")

    @segue.on
    async def quit(self, _: Quit) -> segue.Done[list[str]]:
        return segue.Done(self.heard)


@segue.flow
async def asks_and_tells(run: segue.Run[Any]) -> None:
    await segue.receive(Decide)
    await asyncio.gather(
        run.tell(Decide("1")), run.request(Question("2")), run.tell(Decide("3")), run.request(Question("4"))
    )
    await run.tell(Quit())


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_what_a_run_sends_comes_in_the_order_in_which_it_was_sent(park: str) -> None:
    """In a later life, what was told came before what had been asked."""
    desk = Desk()
    async with desk.engine(park=park) as engine:
        heard = await engine.start(Register(), id="heard")
        flow = await engine.start(asks_and_tells(heard), id="f")
        await desk.parked("f")
        await flow.tell(Decide(""))
        assert await heard == ["told 1", "asked 2", "told 3", "asked 4"]


@segue.flow
async def forwarding_flow(back: segue.Run[Any]) -> str:
    await back.request(Question("a")).forward(tag="t")
    response = await segue.receive(Response[Question])
    return f"{response.tag} {response.result()}"


async def test_in_a_flow() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        back = await engine.start(Back(), id="back")
        assert await engine.run(forwarding_flow(back), id="f") == "t aa"
    async with desk.engine() as engine:
        assert await engine.run(forwarding_flow(back), id="f") == "t aa"


# ---------------------------------------------------------------- deadlocks
class Middle(Actor[None]):
    """Keeps its caller's reply and asks another, by forwarding or by waiting."""

    to: segue.Run[Any]
    how: str
    open: list[Responder[str]] = segue.field(default_factory=list)

    @segue.on
    async def asked(self, q: Question, reply: Responder[str]) -> None:
        self.open.append(reply)
        if self.how == "forward":
            await self.to.request(Question("?")).forward()
        else:
            await segue.me().tell(Decide("go"))

    @segue.on
    async def decide(self, d: Decide) -> None:
        await self._answer(self.to.request(Question("?")))

    @segue.on
    async def answered(self, r: Response[Question]) -> None:
        if r.error is not None:
            await self.open.pop().fail(r.error)

    async def _answer(self, asking: Any) -> None:
        reply = self.open.pop()
        try:
            await reply.send(await asking)
        except Exception as error:
            await reply.fail(error)


class AsksBack(Actor[None]):
    """Asks whoever waits for it."""

    first: str = "first"

    @segue.on
    async def asked(self, q: Question) -> str:
        return await segue.Run(None, self.first).request(Question("round"))


class First(Actor[None]):
    middle: segue.Run[Any]

    @segue.on
    async def asked(self, q: Question) -> str:
        return await self.middle.request(Question("?"))


@pytest.mark.parametrize("how", ["forward", "wait"])
async def test_a_circle_through_a_kept_answer(how: str) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        last = await engine.start(AsksBack(), id="last")
        middle = await engine.start(Middle(last, how), id="middle")
        first = await engine.start(First(middle), id="first")
        with pytest.raises(Deadlock, match=r"first"):
            await asyncio.wait_for(first.request(Question("x")), 20)


class Passes(Request[str]):
    """To be passed on to whoever asks it."""


class Clerk(Clerkship):
    @segue.on
    async def passes(self, _: Passes) -> str:
        await segue.Run(None, "asks").request(Question("back")).forward()
        return "passed"


class AsksClerk(Actor[str]):
    clerk: segue.Run[Any]

    @segue.on
    async def begin_to_ask(self, note: Decide) -> segue.Done[str]:
        return segue.Done(await self.clerk.request(Passes()))

    @segue.on
    async def asked(self, q: Question) -> str:
        return q.text


class AskBack(segue.Envelope, Request[str]):
    """It comes beside the handler at work, and takes longer than its caller waits."""

    urgent = True

    async def carry_out(self, actor: object, turn: segue.Turn) -> str:
        await segue.sleep(timedelta(minutes=2))
        assert isinstance(actor, Patient)
        await actor.me.tell(Quit())
        actor.said.append(await segue.Run(None, "impatient").request(Question("back")))
        return "late"


class Impatient(Actor[None]):
    """Gives up on whom it asks, and is asked back by that one later."""

    patient: segue.Run[Any]
    heard: str = ""

    @segue.on
    async def decide(self, d: Decide) -> None:
        asked = AskBack() if d.text == "urgent" else Question(d.text)
        with contextlib.suppress(TimeoutError):
            await self.patient.request(asked, timeout=timedelta(minutes=1))

    @segue.on
    async def asked(self, q: Question) -> str:
        return "here"


class Patient(Actor[list[str]]):
    open: list[Responder[str]] = segue.field(default_factory=list)
    said: list[str] = segue.field(default_factory=list)

    @segue.on
    async def asked(self, q: Question, reply: Responder[str]) -> None:
        self.open.append(reply)
        if q.text == "long":
            await segue.sleep(timedelta(minutes=5))
        elif q.text == "keep":
            await self.me.tell(Decide("later"), after=timedelta(minutes=2))
        else:
            await segue.sleep(timedelta(minutes=2))
            await self.me.tell(Quit())
            self.said.append(await segue.Run(None, "impatient").request(Question("back")))

    @segue.on
    async def decide(self, d: Decide) -> segue.Done[list[str]]:
        return segue.Done([await segue.Run(None, "impatient").request(Question("back"))])

    @segue.on
    async def quit(self, _: Quit) -> segue.Done[list[str]]:
        return segue.Done(self.said)


@pytest.mark.parametrize("how", ["keep", "at work", "urgent"])
async def test_who_has_given_up_may_be_asked_back(how: str, tmp_path: Path) -> None:
    """It counted as one that waits: a false `Deadlock`."""

    async def begin(engine: segue.Engine) -> None:
        patient = await engine.start(Patient(), id="p")
        impatient = await engine.start(Impatient(patient), id="impatient")
        if how == "urgent":
            await patient.tell(Question("long"))
        await impatient.tell(Decide(how))

    def check(_: Desk, head: Head) -> None:
        assert head.value == b'["here"]'

    await at_every_commit(begin, "p", check, kind="memory", path=tmp_path)


async def test_a_request_that_failed_is_not_kept_and_closes_no_circle() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        with pytest.raises(ValueError, match="a bad question"):
            await clerk.request(Question("bad"))
        asks = await engine.start(AsksClerk(clerk), id="asks")
        await asks.tell(Decide("now"))
        async with asyncio.timeout(5):
            assert await asks == "passed"


class Round(segue.Envelope, Request[str]):
    """Has whoever asked it asked."""

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        return await segue.Run(None, "first").request(Question("round"))


class RoundAtOnce(Round):
    urgent = True


class AsksRound(Actor[None]):
    how: str

    @segue.on
    async def asked(self, q: Question) -> str:
        return await segue.Run(None, "last").request(Round() if self.how == "queued" else RoundAtOnce())


class Decides(Actor[None]):
    @segue.on
    async def decide(self, note: Decide) -> None:
        await segue.ask(note.text)


@pytest.mark.parametrize("how", ["queued", "urgent", "beside"])
async def test_a_circle_through_an_envelope(how: str) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        last = await engine.start(Decides(), id="last")
        if how == "beside":  # a handler that waits
            await last.tell(Decide("?"))
            while not await engine.open_asks():
                await asyncio.sleep(0.001)
        first = await engine.start(AsksRound(how), id="first")
        with pytest.raises(Deadlock, match="first → last → first"):
            await asyncio.wait_for(first.request(Question("x")), 10)


class Heard(segue.Envelope, Request[str]):
    """Answered once a person has."""

    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        return await segue.ask("Heard?")


class Asks(Actor[str]):
    other: str

    @segue.on
    async def decide(self, note: Decide) -> segue.Done[str]:
        if note.text == "wait":
            await segue.ask("Wait?")
        return segue.Done(await segue.Run(None, self.other).request(Question("x")))


class Hears(Actor[None]):
    other: str

    @segue.on
    async def decide(self, note: Decide) -> None:
        await segue.Run(None, self.other).request(Heard())

    @segue.on
    async def asked(self, q: Question) -> str:
        return q.text


@pytest.mark.parametrize("how", ["after", "beside"])
async def test_what_waits_for_an_urgent_message_alone_is_no_circle(how: str) -> None:
    """The handler beside asks who waits for that, or does so once it is answered."""
    desk = Desk()
    async with desk.engine() as engine:
        one, two = await engine.start(Asks("two"), id="one"), await engine.start(Hears("one"), id="two")
        if how == "beside":
            await one.tell(Decide("wait"))
            (waits,) = await opened(engine, 1)
        await two.tell(Decide("go"))
        heard = next(ask for ask in await opened(engine, 1 + (how == "beside")) if ask.question == "Heard?")
        if how == "beside":
            await waits.answer("now")
            await desk.until("one", "parked")
        await heard.answer("yes")
        if how == "after":
            await one.tell(Decide("now"))
        assert await asyncio.wait_for(asyncio.ensure_future(finished(one)), 10) == "x"


class Glance(segue.Envelope, Request[str]):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        return f"{turn.at_work} is at work"


@segue.flow
async def forwards_a_glance(at: segue.Run[Any]) -> str:
    await at.request(Glance()).forward()
    return (await segue.receive(Response[Glance])).result()


async def test_an_urgent_request_that_is_forwarded_is_urgent() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        busy = await engine.start(Decides(), id="busy")
        await busy.tell(Decide("?"))
        await opened(engine, 1)
        asked = await engine.start(forwards_a_glance(busy))
        assert await asyncio.wait_for(finished(asked), 5) == "decide is at work"


async def finished(run: segue.Run[str]) -> str:
    return await run


async def opened(engine: Any, count: int) -> list[Any]:
    while len(asks := await engine.open_asks()) < count:
        await asyncio.sleep(0.001)
    return asks


# ---------------------------------------------------------------- exchanges
class Talker(Actor[None]):
    @segue.on
    async def asked(self, q: Question) -> str:
        await segue.emit(q.text)
        return await segue.generate(f"say {q.text}")

    @segue.on
    async def aside(self, note: Decide) -> None:
        await segue.generate(f"say {note.text}")


async def test_the_tokens_of_one_request() -> None:
    desk = Desk()
    desk.fake.when("say").reply(lambda call: call.text.removeprefix("say ").upper())
    async with desk.engine() as engine:
        run = await engine.start(Talker(), id="t")
        await run.tell(Decide("before us"))
        one, two = run.request(Question("one and one")), run.request(Question("two and two"))
        texts = await asyncio.gather(read(one.text()), read(two.text()))
        assert ["".join(text) for text in texts] == ["ONE AND ONE", "TWO AND TWO"]
        assert len(texts[0]) > 1  # they came piece by piece
        assert [await one, await two] == ["ONE AND ONE", "TWO AND TWO"]
        three = run.request(Question("three"))
        events = [event async for event in three]
        assert "".join(event.text for event in events if isinstance(event, Token)) == "THREE"
        assert [event.value for event in events if isinstance(event, Emitted)] == ["three"]
        assert [event.kind for event in events if isinstance(event, Recorded)] == ["generate"]
        assert await three == "THREE"


async def read(text: Any) -> list[str]:
    return [piece async for piece in text]


async def test_a_text_without_tokens_comes_whole() -> None:
    desk = Desk()
    desk.fake.when("say").reply("batched")
    async with desk.engine() as engine:
        run = await engine.start(Talker(), id="t", mode="batch")
        assert await read(run.request(Question("x")).text()) == ["batched"]
        back = await engine.start(Back(), id="back")
        with pytest.raises(ValueError, match="no"):
            await read(back.request(Question("bad")).text())


async def test_what_was_awaited_cant_be_looked_on_at() -> None:
    """There was nothing to be seen, and then the answer was None."""
    async with segue.Engine() as engine:
        asked = (await engine.start(Back(), id="back")).request(Question("a"))
        assert await asked == "aa"
        with pytest.raises(RuntimeError, match="awaited already"):
            await read(asked.text())


async def test_a_request_that_is_over_gives_no_none() -> None:
    """A task that awaited it once more, as `asyncio.wait_for` makes one, got None in place of the answer."""
    async with segue.Engine() as engine:
        back = await engine.start(Back(), id="back")
        asked = back.request(Question("a"))
        assert await asked == "aa"
        with pytest.raises(RuntimeError, match="awaited already"):
            await asyncio.create_task(asked)
        watched = back.request(Question("b"))
        assert await read(watched.text()) == ["bb"]
        assert [await asyncio.create_task(watched), await asyncio.create_task(watched)] == ["bb", "bb"]
        seen = back.request(Question("c"))
        reading = asyncio.create_task(read(seen.text()))
        await asyncio.sleep(0)
        assert await asyncio.gather(asyncio.create_task(seen), reading, seen) == ["cc", ["cc"], "cc"]


gate = asyncio.Event()


class Gated(Actor[None]):
    @segue.on
    async def asked(self, q: Question) -> str:
        await segue.emit(q.text)
        await segue.step(gate.wait)()
        return await segue.generate(f"say {q.text}")


async def test_two_look_on_and_one_again() -> None:
    """Who was first saw nothing more once another looked, and who looked again saw nothing."""
    desk = Desk()
    desk.fake.when("say").reply("one two three")
    async with desk.engine() as engine:
        run = await engine.start(Gated(), id="t")
        gate.set()
        asked = run.request(Question("x"))
        texts = await asyncio.gather(read(asked.text()), read(asked.text()))
        assert texts == [["one ", "two ", "three"]] * 2
        gate.clear()
        asked = run.request(Question("y"))
        async for event in asked:
            assert isinstance(event, Emitted)
            break
        gate.set()
        assert await read(asked.text()) == ["one ", "two ", "three"]


async def test_whoever_looks_on_no_longer_is_told_of_no_error() -> None:
    """As a browser that is gone: asyncio said that an exception was never retrieved."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    desk = Desk()
    async with desk.engine() as engine:
        late = await engine.start(Talker(), id="t", mode="batch")
        asked = late.request(Question("x"), timeout=timedelta(seconds=1))
        reading = asyncio.create_task(read(asked.text()))
        await desk.parked("t")
        reading.cancel()
        await asyncio.wait({reading})
        del asked, reading
        desk.fake.clock.advance(2)
        await asyncio.sleep(0.01)
        gc.collect()
    assert told == []


async def test_a_request_is_a_coroutine() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        back = await engine.start(Back(), id="back")
        task = asyncio.create_task(back.request(Question("a")))
        assert await asyncio.wait_for(back.request(Question("b")), 10) == "bb"
        assert await task == "aa"
        assert await back.request(Question("c"), timeout=timedelta(days=1)) == "cc"


# ---------------------------------------------------------------- pings
class Busy(Actor[None]):
    @segue.on
    async def asked(self, q: Question) -> str:
        return await segue.ask(q.text)


async def test_a_ping_is_answered_while_a_handler_waits() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Busy(), id="b")
        asking = asyncio.ensure_future(run.request(Question("Well?")))
        while not await engine.open_asks():
            await asyncio.sleep(0.001)
        pong = await run.ping()
        assert pong.handled >= pong.sent
        assert pong.waited == pong.handled - pong.sent
        assert not asking.done()
        await (await engine.open_asks())[0].answer("yes")
        assert await asking == "yes"
        flow = await engine.start(pinging_flow(run), id="f")
        assert await flow is True
        with pytest.raises(RunEnded):
            await flow.ping()


@segue.flow
async def pinging_flow(run: segue.Run[Any]) -> bool:
    pong = await run.ping(timeout=timedelta(days=1))
    return pong.waited >= timedelta(0)


async def test_a_cancellation_that_comes_with_mail_isnt_lost() -> None:
    """It is read at the rest at which the message's handling is committed."""
    desk = Desk()
    async with desk.engine(worker=False) as engine:
        run = await engine.start(Clerkship(), id="c")
    async with desk.engine() as engine:
        await desk.parked("c")
    async with desk.engine(worker=False) as engine:
        run = await engine.get("c")
        await run.tell(Question("told, not asked"))
        await run.cancel()
    async with desk.engine() as engine:
        assert (await desk.until("c", "cancelled", "parked", "done")).status == "cancelled"


class Poked(segue.Envelope):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        return None


@dataclass
class Lap: ...


class Winding(Actor[None]):
    """Says where it has been by what it asks."""

    rounds: int = 0
    tears_down: bool = True

    @segue.on
    async def asked(self, q: Question) -> str:
        self.rounds += 1
        return q.text

    @segue.on
    async def decide(self, d: Decide) -> None:
        self.rounds += 1
        if d.text == "wait":
            await segue.ask("decide?")

    @segue.state(every=timedelta(seconds=1))
    async def goes_round(self, lap: Lap) -> segue.Again:
        self.rounds += 1
        if self.rounds > 1:
            await segue.ask("again?")
        return segue.Again()

    async def teardown(self) -> None:
        if self.tears_down:
            await segue.ask("tear down?")


class Circling(Winding):
    def begin(self) -> Lap:
        return Lap()


@pytest.mark.parametrize("message", [Decide("now"), Poked()])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_cancellation_that_comes_with_mail_to_an_actor_that_listens_isnt_lost(
    message: Any, kind: str, tmp_path: Path
) -> None:
    store = open_store("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db")
    desk = Desk(store)
    async with desk.engine() as engine:
        run = await engine.start(Winding(tears_down=False), id="it")
        await run.request(Question("there?"))
        await asyncio.gather(run.tell(message), run.cancel())
        assert (await asyncio.wait_for(engine.wait("it"), 5)).status == "cancelled"
    await store.close()


@pytest.mark.parametrize("what", ["mail", "a time"])
async def test_a_cancellation_comes_before_what_else_is_there(what: str) -> None:
    """What comes after it is found again by a later life."""
    desk = Desk()
    async with desk.engine(linger=60.0) as engine:
        run = await engine.start(Winding() if what == "mail" else Circling(), id="it")
        if what == "mail":
            await run.request(Question("there?"))
        while not getattr(engine.worker.awake.get("it"), "open", None):  # until it waits
            await asyncio.sleep(0)
        now = desk.fake.clock.now()
        mail = [Mail("it", "client", 1, "cancel", at=now)]
        if what == "mail":
            mail.append(Mail("it", "client", 2, "tell", "Decide", b'{"text":"wait"}', at=now))
        await desk.store.deliver(mail, now=now)
        if what == "a time":
            desk.fake.clock.advance(1.1)
        asks = await opened(engine, 1)
    async with desk.engine() as engine:
        assert [ask.question for ask in asks] == ["tear down?"]
        await engine.answer(asks[0].id, "yes")
        assert (await desk.until("it", "cancelled", "held")).status == "cancelled"


# ---------------------------------------------------------------- many in one handler
class Add(Request[int]):
    n: int


class Sum(Actor[None]):
    total: int = 0

    @segue.on
    async def add(self, a: Add) -> int:
        self.total += a.n
        return self.total


@dataclass
class Counting:
    times: int


class Counter(Actor[int]):
    sums: segue.Run[None]
    times: int

    def begin(self) -> Counting:
        return Counting(self.times)

    @segue.state
    async def count(self, c: Counting) -> segue.Done[int]:
        for _ in range(c.times):
            total = await self.sums.request(Add(1))
        return segue.Done(total)


@segue.flow
async def counted(sums: segue.Run[None], times: int) -> int:
    for _ in range(times):
        total = await sums.request(Add(1))
    return total


@pytest.mark.parametrize("asker", [Counter, counted])
async def test_a_handler_that_asks_again_and_again_isnt_replayed_for_each_answer(asker: Any) -> None:
    """Each wake goes through all that was asked before: with one for each answer, the cost is square."""
    async with segue.Engine() as engine:
        sums = await engine.start(Sum(), id="sums")
        run = await engine.start(asker(sums, 300), id="r")
        assert await run == 300
        assert (await run.head()).fence < 20  # wakes; the machine may be slow now and then


async def test_a_flow_that_takes_message_after_message_isnt_replayed_for_each() -> None:
    @segue.flow(name="requests.taker")
    async def taker(times: int) -> int:
        for _ in range(times):
            await segue.receive(Decide)
        return times

    async with segue.Engine() as engine:
        run = await engine.start(taker(200), id="r")
        for _ in range(200):
            await run.tell(Decide(""))
            await asyncio.sleep(0.002)
        assert await run == 200
        assert (await run.head()).fence < 60


class Pressing(segue.Envelope, Request[str]):
    urgent = True

    async def carry_out(self, actor: object, turn: segue.Turn) -> object:
        return "done"


class Sight(segue.Subscription[int, int]): ...


async def test_a_flow_answers_no_requests() -> None:
    """Whoever asked one waited until it ended, and it for messages."""

    @segue.flow(name="requests.deaf")
    async def deaf() -> str:
        return (await segue.receive(Question | Decide | Pressing)).text

    @segue.flow(name="requests.asks")
    async def asks(run: segue.Run[str], pressing: bool) -> str:
        return await run.request(Pressing() if pressing else Question("a"))

    @segue.flow(name="requests.forwards")
    async def forwards(run: segue.Run[str]) -> str:
        await run.request(Question("a")).forward()
        return str((await segue.receive(Response[Question])).error)

    says = "run 'deaf' is of a flow, which answers no requests"
    async with segue.Engine() as engine, asyncio.timeout(10):
        run = await engine.start(deaf(), id="deaf")
        for request in (Question("a"), Pressing()):
            with pytest.raises(WrongPlace, match=says):
                await run.request(request)
        for pressing in (False, True):
            with pytest.raises(WrongPlace, match=says):
                await engine.run(asks(run, pressing))
        assert says in await engine.run(forwards(run))
        with pytest.raises(WrongPlace, match=says):
            async with run.subscribe(Sight()):
                pass
        await run.tell(Question("told"))
        assert await run == "told"


class Desks(Enum):
    FRONT = 1


class Manager(Actor[None]):
    groups = Desks

    @segue.on
    async def asked(self, q: Question) -> str:
        return (await segue.spawn(deaf_too(), group=Desks.FRONT, id=q.text)).id


@segue.flow(name="requests.deaf_too")
async def deaf_too() -> str:
    return (await segue.receive(Question)).text


async def test_nor_does_one_that_is_supervised() -> None:
    async with segue.Engine() as engine, asyncio.timeout(10):
        manager = await engine.start(Manager(), id="manager")
        deaf = await engine.get(await manager.request(Question("deaf")))
        with pytest.raises(
            WrongPlace, match=r"run 'deaf' is of a flow, which answers no requests: make it an actor"
        ):
            await deaf.request(Question("a"))


async def test_a_request_that_nobody_awaits_is_told_of() -> None:
    @segue.flow
    async def inside(sums: segue.Run[None]) -> None:
        sums.request(Add(5))

    async with segue.Engine() as engine:
        sums = await engine.start(Sum(), id="sums")
        says = r"the request Add to run 'sums' was never awaited, so it wasn't sent; write"
        with pytest.warns(RuntimeWarning, match=says):
            await engine.run(inside(sums))
        with pytest.warns(RuntimeWarning, match=says):
            sums.request(Add(5))
        await sums.request(Add(1)).forward(to=await engine.start(Busy(), id="busy"))
        asyncio.create_task(sums.request(Add(5))).cancel()
        sums.request(Add(5)).close()
        await asyncio.sleep(0)
        assert await sums.request(Add(1)) == 2


class Total(Request[int]):
    """To be answered by who is told of it."""


class HandedOn(Note):
    reply: Responder[int]


class Ask(Request[int]):
    of: segue.Run[None]


class Told(Request[int]): ...


class Behind(Actor[None]):
    @segue.on
    async def told(self, note: HandedOn) -> None:
        await note.reply.send(7)


class InFront(Actor[None]):
    behind: segue.Run[None]

    @segue.on
    async def asked(self, _: Total, reply: Responder[int]) -> None:
        await self.behind.tell(HandedOn(reply))
        await segue.sleep(timedelta(minutes=1))

    @segue.on
    async def asks(self, ask: Ask) -> int:
        return await ask.of.request(Told())


class Client(Actor[None]):
    front: segue.Run[None]
    sum: int = 0

    def begin(self) -> str:
        return "asking"

    @segue.state
    async def ask(self, _: str) -> None:
        self.sum = await self.front.request(Total())

    @segue.on
    async def told(self, _: Told) -> int:
        return self.sum


@segue.flow
async def asks_back(front: segue.Run[None], client: segue.Run[None]) -> int:
    assert await client.request(Told()) == 7  # once it has been answered itself
    return await front.request(Ask(client))


async def test_a_request_that_another_answers_while_its_handler_is_at_work_is_over_with_it(
    tmp_path: Path,
) -> None:
    """Kept, it would lie there for ever, and whoever asked would seem to wait: to ask it back was a deadlock."""
    left: list[Awaitable[list[Letter]]] = []

    async def begin(engine: segue.Engine) -> None:
        front = await engine.start(InFront(await engine.start(Behind(), id="behind")), id="front")
        client = await engine.start(Client(front), id="client")
        await engine.start(asks_back(front, client), id="it")

    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.value) == ("done", b"7")
        left.append(desk.store.inbox("front", 0))

    await at_every_commit(begin, "it", check, kind="memory", path=tmp_path)
    assert [await inbox for inbox in left] == [[]] * len(left)
