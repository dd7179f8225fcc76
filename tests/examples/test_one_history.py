"""The assistant in memory and on SQLite, live and in batch: one history, path by path."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

import segue
from segue.core import journal
from segue.model.entry import Entry
from segue.testing import Simulator, compare
from segue.testing.simulator import ToolCall
from tests.acceptance.test_one_history import nameless

from .folders import Folder

assistant = Folder("assistant").assistant


@segue.flow
async def talk_with_aide(texts: list[str]) -> list[str]:
    aide = await segue.spawn(assistant.Aide("Ada"), id="aide")
    said = []
    for text in texts:
        said.append(await aide.request(assistant.Say(text)))
        await aide.tell(assistant.Configure(style=f"{len(said)} words."))
    return said


def rule(body: dict[str, Any]) -> Any:
    last, system = body["messages"][-1], body["messages"][0]["content"]
    if last["role"] == "user" and "later" in last["content"]:
        return ToolCall("schedule", {"prompt": "Tea!", "seconds": 3600.0, "every_day": False}, id="call_1")
    return f"{system} {last['content']}"


async def lived(sim: Simulator, store: str, mode: Literal["live", "batch"]) -> tuple[Any, ...]:
    async with segue.Engine(store, mode=mode, model=f"openai:m@{sim.base_url}", verify=True) as engine:
        said = await engine.run(talk_with_aide(["Hello", "Remind me later", "And now?"]), id="talk")
        heads = {head.id: head for head in await engine.store.runs(limit=100)}
        entries: dict[str, list[Entry]] = {}
        for run in sorted(heads):
            rows = journal.read(
                (await engine.store.history(run)).rows
            )  # what was archived at checkpoints, too
            contents = await engine.store.get_blobs(journal.blobs_of(rows))
            whole = journal.merged(journal.load_large(rows, contents))
            entries[run] = [
                nameless(entry) for entry in whole if entry.path != "!hand"
            ]  # a letter's number in its inbox
        return said, entries


@pytest.mark.slow
async def test_an_actor_has_one_history(tmp_path: Path) -> None:
    async with Simulator(rule=rule, batch_time=timedelta(seconds=0.05)) as sim:
        first = await lived(sim, "memory:", "live")
        assert sim.ledger.counts()["batch_paid"] == 0
        assert first[0][0].startswith("You help Ada. Be brief. Hello")
        assert set(first[1]) == {"aide", "talk"}
        assert sum(len(entries) for entries in first[1].values()) >= 12
        for store, mode in (("memory:", "batch"), ("sqlite:", "live"), ("sqlite:", "batch")):
            place = store if store == "memory:" else f"{store}{tmp_path}/{mode}.db"
            other = await lived(sim, place, mode)  # type: ignore[arg-type]  # live or batch
            assert other[0] == first[0]
            for run in first[1]:
                assert compare.differences(first[1][run], other[1][run], ("first", f"{store} {mode}")) == []
        assert sim.ledger.counts()["batch_paid"] == sim.ledger.counts()["live_paid"]
