from __future__ import annotations

import pytest

from tests.cli.desk import Desk, Provider

SDK = """
import segue
from openai import AsyncOpenAI


@segue.flow
async def sdk(url: str, text: str) -> str:
    client = AsyncOpenAI(api_key="none", base_url=url, http_client=segue.http_client())
    parts = []
    stream = await client.chat.completions.create(
        model="test", messages=[{"role": "user", "content": text}], stream=True
    )
    async for chunk in stream:
        parts.append(chunk.choices[0].delta.content or "" if chunk.choices else "")
    return "".join(parts)
"""


ASKING = """
import segue

@segue.flow
async def asking(text: str) -> str:
    draft = await segue.generate(f"Draft: {text}")
    return draft + await segue.ask("Well?")
"""


def run(desk: Desk, provider: Provider, mode: str, id: str = "r") -> None:
    desk.write("rows.jsonl", '"My invoice is wrong"\n')
    words = ["map", "app.py:triage", "rows.jsonl", "--id", id, "--model", provider.model, f"--{mode}"]
    assert desk.segue(*words).code == 0


@pytest.mark.parametrize(("mode", "other"), [("live", "batch"), ("batch", "live")])
def test_both_modes_send_the_same(desk: Desk, provider: Provider, mode: str, other: str) -> None:
    run(desk, provider, mode)
    said = desk.segue("replay", "app.py", "r/0", "--against", other)
    assert (said.code, said.out) == (0, "")
    assert "2 model requests" in said.err
    assert f"{mode} and {other} send the same" in said.err
    (told,) = desk.segue("replay", "app.py", "r/0", "--against", other, "--json").rows
    assert told["same"]
    assert told["bytes"] > 100
    assert "was" in desk.segue("replay", "app.py", "r/0", "--against", mode).err


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_a_replay_wants_no_key(
    desk: Desk, provider: Provider, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("A_KEY", "secret-of-this-test")
    model = f"{provider.model}#A_KEY"
    desk.segue("run", "app.py:triage", "My invoice is wrong", "--id", "r", "--model", model, f"--{mode}")
    desk.write("asking.py", ASKING)
    assert desk.segue("run", "asking.py", "it", "--id", "s", "--model", model, f"--{mode}").code == 3
    monkeypatch.delenv("A_KEY")
    assert desk.segue("replay", "app.py", "r").code == 0
    other = "batch" if mode == "live" else "live"
    assert desk.segue("replay", "app.py", "r", "--against", other).code == 0
    assert "1 go on as they are" in desk.segue("check", "asking.py").err
    assert desk.segue("fork", "r", "--edit", "1='it'", "--id", "f").code == 2  # no JSON
    assert desk.segue("fork", "r", "--edit", '1="it"', "--id", "f").code == 0


def test_a_difference_is_shown(desk: Desk, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    from segue.runtime.calls import models

    run(desk, provider, "batch")
    plain = models.Models.line

    def line(self: object, *args: object) -> object:
        *before, make, data, digest, decode = args
        return plain(self, *before, lambda: make().replace(b"invoice", b"receipt"), data, digest, decode)  # type: ignore[arg-type,call-arg,operator]  # as it came

    monkeypatch.setattr(models.Models, "line", line)
    said = desk.segue("replay", "app.py", "r/0", "--against", "live")
    assert said.code == 1
    assert "call #0 of openai:test differs at byte" in said.err
    assert "batch: 'receipt is wrong" in said.err
    assert "live:  'invoice is wrong" in said.err


def test_code_that_looks_at_its_mode(desk: Desk, provider: Provider) -> None:
    run(desk, provider, "live")
    desk.change('f"Classify: {ticket}"', 'f"Classify now: {ticket}"')
    said = desk.segue("replay", "app.py", "r/0", "--against", "batch")
    assert said.code == 1
    assert "the code makes other calls" in said.err


def test_nothing_is_sent_for_an_sdk(desk: Desk, provider: Provider) -> None:
    desk.write("wired.py", SDK)
    url = provider.simulator.base_url
    assert desk.segue("run", "wired.py:sdk", f"url={url}", "text=hi", "--id", "s").code == 0
    paid = len(provider.simulator.ledger)
    assert paid
    said = desk.segue("replay", "wired.py", "s", "--against", "batch")
    assert said.code == 0, said.err
    assert "1 model requests" in said.err
    assert len(provider.simulator.ledger) == paid
