"""An engine belongs to one event loop; whoever uses it on another is told so, and harms nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import segue


class Ring(segue.Request[str]): ...


class Level(segue.Subscription[int, int]): ...


class Bell(segue.Actor[None]):
    @segue.on
    async def ring(self, _: Ring) -> str:
        return "dong"

    @segue.on
    async def level(self, _: Level) -> int:
        return 0


@segue.flow
async def asking() -> str:
    return await segue.ask("Well?")


class Seen:
    """What a program holds."""

    def __init__(
        self, engine: segue.Engine, run: segue.Run[str], bell: segue.Run[None], ask: segue.Ask
    ) -> None:
        self.engine, self.run, self.bell, self.ask = engine, run, bell, ask


async def each(source: Any) -> list[Any]:
    return [item async for item in source]


async def entered(feed: Any) -> None:
    async with feed:
        pass


async def awaited(it: Awaitable[Any]) -> Any:
    return await it


USES: dict[str, Callable[[Seen], Awaitable[Any]]] = {
    "await run": lambda it: awaited(it.run),
    "iterate run": lambda it: each(it.run),
    "text": lambda it: each(it.run.text()),
    "tell": lambda it: it.bell.tell(Ring()),
    "request": lambda it: awaited(it.bell.request(Ring())),
    "text of a request": lambda it: each(it.bell.request(Ring()).text()),
    "subscribe": lambda it: entered(it.bell.subscribe(Level())),
    "ping": lambda it: it.bell.ping(),
    "cancel": lambda it: it.run.cancel(),
    "head": lambda it: it.run.head(),
    "receipt": lambda it: it.run.receipt(),
    "unschedule": lambda it: it.bell.unschedule("key"),
    "get": lambda it: it.engine.get(it.run.id),
    "asks": lambda it: each(it.engine.asks()),
    "open_asks": lambda it: it.engine.open_asks(),
    "answer": lambda it: it.engine.answer(it.ask.id, "x"),
    "ask.answer": lambda it: it.ask.answer("x"),
    "resume": lambda it: it.engine.resume(it.run.id),
    "fork": lambda it: it.engine.fork(it.run.id),
    "advance": lambda it: it.engine.advance(),
    "dead_letters": lambda it: it.engine.dead_letters(),
    "resend": lambda it: it.engine.resend(1),
    "forget": lambda it: it.engine.forget(),
    "fund": lambda it: it.engine.fund(segue.Budget(tokens=1)),
    "run": lambda it: it.engine.run(asking()),
}


@pytest.mark.parametrize("use", USES)
async def test_on_another_loop_it_says_so(use: str):
    async with segue.Engine() as engine:
        run, bell = await engine.start(asking()), await engine.start(Bell())
        ask = await anext(aiter(engine.asks()))
        it = Seen(engine, run, bell, ask)

        async def there() -> Any:
            async with asyncio.timeout(5):
                return await USES[use](it)

        with pytest.raises(RuntimeError, match="open on another event loop: give it the work with"):
            await asyncio.to_thread(asyncio.run, there())
        await ask.answer("fine")
        assert await run == "fine"
        assert await bell.request(Ring()) == "dong"
