"""rerun(): exported runs against the code as it is now."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import segue
from segue.core import export
from segue.model.errors import InvalidValue, ReplayMismatch, ResultMismatch, UnknownName
from segue.runtime.wake.rebase import entries_of
from segue.testing import FakeModel, rerun

PROMPT = "Say {}"
SUFFIX = "!"


@segue.step
async def shout(text: str) -> str:
    return text.upper()


@segue.flow
async def greet(name: str) -> str:
    texts = await asyncio.gather(*(segue.generate(f"{PROMPT.format(name)} {i}") for i in range(2)))
    if await segue.ask("Loud?", returns=bool):
        return await shout(" ".join(texts)) + SUFFIX
    return " ".join(texts)


@segue.flow
async def other(name: str) -> str:
    return name


async def recorded(directory: Path, mode: str) -> Path:
    fake = FakeModel()
    fake.when("Say").reply("hello", "hi").answer("Loud", True)
    async with fake:
        run = await fake.engine.start(greet("Ann"), id="g", mode=mode)
        assert await run == "HELLO HI!"
        entries = await entries_of(fake.engine.store, "g")
        file = directory / f"{mode}.jsonl"
        file.write_bytes(b"\n".join(export.write(await run.head(), entries)) + b"\n")
    return file


@pytest.fixture(params=["live", "batch"])
async def journal(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return await recorded(tmp_path, request.param)


async def test_the_same_code(journal: Path) -> None:
    await rerun(greet, str(journal.parent / "*.jsonl"))


async def test_another_prompt(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PROMPT", "Write {}")
    with pytest.raises(ReplayMismatch) as failed:
        await rerun(greet, str(journal))
    assert '"content": "Say Ann 0"' in str(failed.value)
    assert '"content": "Write Ann 0"' in str(failed.value)
    assert failed.value.__notes__ == [f"The recorded run is that of {journal}."]


async def test_another_result(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SUFFIX", "?")
    with pytest.raises(ResultMismatch, match=r"HELLO HI!.*HELLO HI\?"):
        await rerun(greet, str(journal))


async def test_what_is_not_there_or_not_that(journal: Path) -> None:
    with pytest.raises(UnknownName, match="segue export"):
        await rerun(greet, str(journal.parent / "*.json"))
    with pytest.raises(UnknownName, match="greet"):
        await rerun(other, str(journal))
    journal.write_text("nonsense")
    with pytest.raises(InvalidValue, match="line 1"):
        await rerun(greet, str(journal))
