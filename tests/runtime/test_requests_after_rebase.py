"""An answer to a request that the code no longer makes isn't taken for the answer to the one it makes now."""

from __future__ import annotations

from pathlib import Path

import segue
from segue.model.message import Mail
from segue.runtime.handles import Run


class Say(segue.Request[str]):
    text: str


class Registrar(segue.Actor[None]):
    @segue.on
    async def say(self, message: Say) -> str:
        return f"{await segue.ask(message.text)} to {message.text}"


def flow_that_says(text: str) -> object:
    @segue.flow(name="says to a registrar")
    async def says(clerk: str) -> str:
        engine = ENGINES[-1]
        return await (await engine.get(clerk)).request(Say(text))

    return says


ENGINES: list[segue.Engine] = []


async def answer(engine: segue.Engine, text: str) -> None:
    async for ask in engine.asks():
        if ask.question == text:
            await ask.answer("answer")
            return


async def test_an_old_answer_is_not_taken_for_a_new_request(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(store) as engine:
        ENGINES.append(engine)
        await engine.start(Registrar(), id="clerk")
        await engine.start(flow_that_says("one")("clerk"), id="it")  # type: ignore[operator]
        async for ask in engine.asks():
            assert ask.question == "one"
            break
    async with segue.Engine(store) as engine:
        ENGINES.append(engine)
        again = flow_that_says("two")
        engine.worker.register(again.__segue__)  # type: ignore[attr-defined]
        await engine.store.deliver([Mail("it", "poke", 1, "tell", "x", b"1")], now=0.0)
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it")
        await answer(engine, "one")
        await answer(engine, "two")
        assert await Run(engine, "it") == "answer to two"
