"""A process without a key: what is recorded is read all the same, and what would be sent waits or says so."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

import segue
from segue.errors import MissingKey, RunHeld
from segue.model.mode import ModeLike
from segue.runtime.proof import verify
from segue.testing import Simulator

KEY = "KEY_OF_THIS_TEST"


@segue.flow
async def letter(name: str) -> str:
    draft = await segue.generate(f"Write to {name}")
    (vector,) = await segue.embed([draft])
    if await segue.ask("Send it?", returns=bool):
        return f"{draft} ({len(vector)})"
    return await segue.generate("Why not?")


@pytest.fixture
async def model(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setenv(KEY, "secret-of-this-test")
    async with Simulator(batch_time=timedelta(milliseconds=10)) as sim:
        yield f"openai:any@{sim.base_url}#{KEY}"


async def asked(engine: segue.Engine) -> str:
    """The question that is open, as soon as it is."""
    async for ask in engine.asks():
        return ask.id
    raise AssertionError("no question came")


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_what_is_recorded_is_replayed(
    mode: ModeLike, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = f"sqlite:{tmp_path / 'runs.db'}"
    async with segue.Engine(store, model=model, mode=mode) as engine:
        await engine.start(letter("Ada"), id="ada")
        await asked(engine)
    monkeypatch.delenv(KEY)
    async with segue.Engine(store) as engine:
        await engine.answer(await asked(engine), True)
        run = await engine.get("ada")
        assert "Write to Ada" in await run
        await verify.replay_stored(engine.worker, engine.store, await run.head())
        receipt = await run.receipt()
        assert sum(line.calls for line in receipt.lines) == 2
        fork = await engine.fork(
            "ada", id="fork", edit={"#0": "Dear Ada"}
        )  # what embed was asked is another now
        if mode == "live":
            with pytest.raises(MissingKey, match=KEY):
                await fork
    monkeypatch.setenv(KEY, "secret-of-this-test")
    async with segue.Engine(store) as engine:
        if mode == "live":
            await engine.resume("fork")
        assert (await (await engine.get("fork"))).startswith("Dear Ada")


async def test_a_line_waits_for_who_has_the_key(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    store = f"sqlite:{tmp_path / 'runs.db'}"
    async with segue.Engine(store, model=model, mode="batch", worker=False) as engine:
        await engine.start(letter("Ada"), id="ada")
    monkeypatch.delenv(KEY)
    with caplog.at_level(logging.WARNING, "segue"):
        async with segue.Engine(store, worker=False) as engine:
            assert await engine.advance()
            assert (await engine.head("ada")).status == "parked"
    assert f"set the environment variable {KEY}" in caplog.text
    monkeypatch.setenv(KEY, "secret-of-this-test")
    async with segue.Engine(store) as engine:
        await engine.answer(await asked(engine), True)
        assert "Write to Ada" in await (await engine.get("ada"))


async def test_a_row_without_a_key_is_held_until_there_is_one(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    @segue.flow
    async def once(name: str) -> str:
        return await segue.generate(name, model=model)

    store = f"sqlite:{tmp_path / 'runs.db'}"
    monkeypatch.delenv(KEY)
    async with segue.Engine(store) as engine:
        (row,) = [row async for row in engine.map(once, ["Ada"], id="j")]
        assert isinstance(row.error, RunHeld)
        assert f"set the environment variable {KEY}" in str(row.error)
        monkeypatch.setenv(KEY, "secret-of-this-test")
        await engine.resume("j/0")
        assert await engine.map(once, ["Ada"], id="j") == ["You said: Ada"]


async def test_a_run_with_a_model_that_has_no_key_isnt_started(model: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(KEY)
    async with segue.Engine("memory:", model=model) as engine:
        with pytest.raises(MissingKey, match=KEY):
            await engine.start(letter("Ada"))
    async with segue.Engine("memory:") as engine:
        with pytest.raises(MissingKey, match=KEY):
            await engine.start(letter("Ada"), model=model)


async def test_a_place_that_isnt_told_is_lacked_too(monkeypatch: pytest.MonkeyPatch):
    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    @segue.flow
    async def somewhere() -> str:
        return await segue.generate("Hello", model="azure:mine", mode="batch")

    async with segue.Engine("memory:") as engine:
        with pytest.raises(MissingKey, match="AZURE_OPENAI_ENDPOINT"):
            await engine.run(somewhere())
