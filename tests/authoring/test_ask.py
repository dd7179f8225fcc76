"""Questions: typed, to somebody, with a default or an end, answered once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import pytest

import segue
from segue.model.errors import AskClosed, BadSignature, InvalidValue, NotEncodable, NotInRun, UnknownName
from segue.model.run import Head
from tests.runtime.lives import Desk, everywhere

DAY = timedelta(days=1)


@dataclass
class Order:
    item: str
    count: int = 1


async def test_a_question_is_answered_where_it_is_seen() -> None:
    @segue.flow
    async def flow() -> str:
        return "yes" if await segue.ask("Sure?", returns=bool) else "no"

    async with segue.Engine() as engine:
        run = await engine.start(flow(), id="r")
        async for event in run:
            if isinstance(event, segue.Asked):
                assert repr(event.ask) == f"<Ask {event.question.id}: Sure?>"
                await event.ask.answer(True)
        assert await run == "yes"


async def test_typed_answers() -> None:
    @segue.flow
    async def flow() -> list[Any]:
        return [
            await segue.ask("Which?", returns=Order),
            await segue.ask("Colour?", returns=Literal["red", "blue"]),
            await segue.ask("How many?", returns=int | None),
            await segue.ask("Name?"),
        ]

    desk = Desk()
    for question, value in (
        ("Which?", Order("pen", 2)),
        ("Colour?", "blue"),
        ("How many?", None),
        ("Name?", "Ada"),
    ):
        desk.fake.answer(question, value)
    assert await desk.run(flow()) == [{"item": "pen", "count": 2}, "blue", None, "Ada"]


async def test_what_an_open_question_shows() -> None:
    @segue.flow
    async def flow() -> str:
        return await segue.ask("Ship it?", returns=str, show=Order("pen"), to="boss", timeout=DAY)

    desk = Desk()
    desk.fake.clock.busy = lambda sleeping: True
    async with desk.engine() as engine:
        desk.fake.clock.busy = lambda sleeping: True
        run = await engine.start(flow(), id="it")
        await desk.parked()
        (ask,) = await engine.open_asks(to="boss")
        assert not await engine.open_asks(to="clerk")
        assert (ask.question, ask.to, ask.run) == ("Ship it?", "boss", "it")
        assert ask.show == {"item": "pen", "count": 1}
        assert ask.schema == {"type": "string"}
        assert ask.deadline is not None
        with pytest.raises(InvalidValue, match=r"string.*got 3"):
            await ask.answer(3)
        await ask.answer("yes")
        assert await run == "yes"
        with pytest.raises(AskClosed, match="answered already"):
            await ask.answer("no")
        with pytest.raises(UnknownName, match="no ask"):
            await engine.answer("nobody:7", 1)


async def test_two_answers_at_once() -> None:
    @segue.flow
    async def flow() -> int:
        return await segue.ask("How many?", returns=int)

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await desk.parked()
        (ask,) = await engine.open_asks()
        results = await asyncio.gather(*(ask.answer(n) for n in range(5)), return_exceptions=True)
        assert sum(isinstance(result, AskClosed) for result in results) == 4
        won = next(n for n, result in enumerate(results) if result is None)
        assert await run == won


async def test_an_answer_to_a_run_that_is_over() -> None:
    @segue.flow
    async def flow() -> None:
        await segue.ask("How many?", returns=int)

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await desk.parked()
        (ask,) = await engine.open_asks()
        await run.cancel()
        await desk.until("it", "cancelled")
        with pytest.raises(
            AskClosed, match="its run is cancelled; `segue resume it` has it go on, and ask again"
        ):
            await ask.answer(1)


async def test_default_after_timeout() -> None:
    @segue.flow
    async def flow() -> list[Any]:
        return [
            await segue.ask("Which?", returns=Order, timeout=DAY, default=Order("none", 0)),
            await segue.ask("Which?", returns=int | None, timeout=DAY, default=None),
        ]

    desk = Desk()
    assert await desk.run(flow()) == [{"item": "none", "count": 0}, None]
    assert not await desk.store.asks()


async def test_timeout_without_a_default() -> None:
    @segue.flow
    async def flow() -> str:
        try:
            await segue.ask("Which?", timeout=DAY)
        except TimeoutError as error:
            return str(error)
        return "?"

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b"\"the question 'Which?' timed out\""

    await everywhere(flow, lambda desk: None, check)


async def test_a_late_answer_is_refused() -> None:
    @segue.flow
    async def flow() -> str:
        first = await segue.ask("Which?", timeout=DAY, default="none")
        return first + await segue.ask("Sure?")

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        for _ in range(1000):
            if [ask.question for ask in await engine.open_asks()] == ["Sure?"]:
                break
            await asyncio.sleep(0.001)
        with pytest.raises(AskClosed):
            await engine.answer("it:0", "late")
        await engine.answer("it:1", "!")
        assert await run == "none!"


async def test_a_question_that_lost_a_race_is_closed() -> None:
    @segue.flow
    async def flow() -> str:
        asking = [asyncio.create_task(segue.ask(text)) for text in ("Left?", "Right?")]
        done, lost = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
        await segue.sleep(DAY)
        return done.pop().result()

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await desk.parked()
        left, right = await engine.open_asks()
        await right.answer("r")
        assert await run == "r"
        with pytest.raises(AskClosed):
            await left.answer("l")


async def test_many_at_once() -> None:
    @segue.flow
    async def flow() -> list[int]:
        return await asyncio.gather(*(segue.ask(f"{n}?", returns=int) for n in range(50)))

    def begin(desk: Desk) -> None:
        for n in range(50):
            desk.fake.answer(f"{n}?", n)
            desk.fake.answer("0?", 0)

    desk = Desk()
    begin(desk)
    desk.fake._answers = {f"{n}?": n for n in reversed(range(50))}
    answers = await desk.run(flow())
    assert sorted(answers)[0] == 0
    assert len(answers) == 50


async def test_what_cant_be_asked() -> None:
    @segue.flow
    async def shows() -> None:
        await segue.ask("?", show=object())

    @segue.flow
    async def wants() -> None:
        await segue.ask("?", returns=asyncio.Lock)

    with pytest.raises(NotEncodable, match=r"what ask\(\) shows"):
        await Desk().run(shows())
    with pytest.raises(BadSignature):
        await Desk().run(wants())
    with pytest.raises(NotInRun):
        await segue.ask("?")


async def test_answers_survive_crashes() -> None:
    @segue.flow
    async def flow() -> list[str]:
        return [await segue.ask("First?"), *await asyncio.gather(segue.ask("Left?"), segue.ask("Right?"))]

    def begin(desk: Desk) -> None:
        for text in ("First", "Left", "Right"):
            desk.fake.answer(f"{text}?", text)

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b'["First","Left","Right"]'

    await everywhere(flow, begin, check)
