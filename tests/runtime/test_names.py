"""What was meant by an id that isn't there."""

from __future__ import annotations

from typing import Any

import pytest

import segue
from segue.errors import UnknownName
from segue.runtime.ground.names import LOOKS
from segue.stores.memory import MemoryStore
from segue.testing.store_contract.acts import create


class Guarded(MemoryStore):
    """Whose runs, with all that they were given and gave, aren't to be read."""

    async def runs(self, **which: Any) -> Any:
        raise AssertionError("runs are read")

    async def newest(self, **which: Any) -> Any:
        raise AssertionError("runs are read")

    async def asks(self, **which: Any) -> Any:
        raise AssertionError("all questions are read")


@pytest.mark.parametrize("name", ["letter-0123x", "letter-012", "lettre-0123", "zetter-0123"])
async def test_of_what_is_not_there_ids_alone_are_looked_at(name: str) -> None:
    """A service is asked for it at any time, by links that are old."""
    async with segue.Engine(Guarded(), worker=False) as engine:
        await create(engine.store, *(f"{word}-{n:04}" for word in ("art", "mail") for n in range(LOOKS)))
        await create(engine.store, "letter-0123")
        with pytest.raises(UnknownName) as told:
            await engine.get(name)
        meant = "letter-0123" if name != "zetter-0123" else None  # far from all that is looked at
        assert (f"did you mean {meant!r}?" in str(told.value)) == (meant is not None)
        with pytest.raises(UnknownName, match="there is no ask 'it:0'"):
            await engine.answer("it:0", "yes")


@segue.flow(name="names.asks")
async def asks() -> str:
    return await segue.ask("Where?")


async def test_who_gives_a_run_for_its_question_is_told_the_question() -> None:
    """It was asked whether it meant what it had said."""
    async with segue.Engine() as engine:
        await engine.start(asks(), id="it")
        ask = await anext(aiter(engine.asks()))
        with pytest.raises(UnknownName, match=f"the run of that id asks '{ask.id}'"):
            await engine.answer("it", "here")
