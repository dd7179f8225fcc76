"""One flow, every provider, live and in batch: the same results, whoever answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Literal, NamedTuple

import msgspec
import pytest

import segue
from segue.errors import ContextOverflow, Refused, Truncated
from segue.model.chat import ChatRequest
from segue.providers import make, resolve
from segue.testing.simulator import Failure, Said, Simulator, ToolCall
from segue.transports.pooled import Pooled


class Label(msgspec.Struct):
    topic: Literal["billing", "bug"]
    urgent: bool


async def look_up(order: str) -> str:
    """Where an order is."""
    return f"{order} is on its way"


class Kind(NamedTuple):
    """A provider's name in segue, whose part the simulator plays, whether it has a batch API, and calls without it."""

    name: str
    plays: str
    batches: bool = True
    live: int = 0


KINDS = [
    Kind("openai", "openai"),
    Kind("openai-responses", "openai"),
    Kind("azure", "azure"),
    Kind("azure-responses", "azure"),
    Kind("groq", "groq"),
    Kind("mistral", "mistral"),
    Kind("together", "together"),
    Kind("xai", "xai", live=1),  # embeddings
    Kind("vllm", "without", batches=False),
]


def rule(body: dict[str, Any]) -> Any:
    last = body["messages"][-1]
    text = str(last.get("content"))
    if body.get("response_format"):
        return {"topic": "bug", "urgent": True}
    if last["role"] == "tool":
        return f"It says: {text}"
    if "order" in text:
        return Said("", ToolCall("look_up", {"order": "o1"}), thinking="I should look.")
    if "story" in text:
        return Said("Once upon", stop="length")
    if "bomb" in text:
        return Said("I won't.", stop="refusal")
    if "book" in text:
        return Failure(
            400, "Your input exceeds the context window of this model.", code="context_length_exceeded"
        )
    if "cite" in text:
        return Said("Paris", cites=["https://a.b"], cached=3, thinking="Hm.")
    return f"said {len(text)}"


@segue.flow(name="alike.all")
async def everything(text: str) -> dict[str, Any]:
    """A typed answer, tools, thoughts, citations, a picture, vectors, and every way in which an answer is none."""
    label = await segue.generate(f"Classify: {text}", returns=Label)
    found = await segue.generate("Find the order.", tools=[look_up], system="Be brief.")
    cited = await segue.generate("cite", returns=segue.Reply[str])
    seen = await segue.generate(["What is it?", segue.File(b"png", media="image/png")])
    vectors = await segue.embed(["a", "b", "a"])
    failed = []
    for prompt in ("story", "bomb", "book"):
        try:
            await segue.generate(prompt)
        except (Truncated, Refused, ContextOverflow) as error:
            failed.append(type(error).__name__)
    story = await segue.generate("story", returns=segue.Reply[str])
    return {
        "label": label.topic,
        "found": found,
        "cited": [cited.text, [each.url for each in cited.citations], cited.reasoning, cited.tokens.cached],
        "seen": seen,
        "vectors": [len(vectors), vectors[0] == vectors[2], vectors[0] == vectors[1]],
        "failed": failed,
        "story": [story.text, story.stop],
    }


EXPECTED = {
    "label": "bug",
    "found": "It says: o1 is on its way",
    "cited": ["Paris", ["https://a.b"], "Hm.", 3],
    "vectors": [3, True, False],
    "failed": ["Truncated", "Refused", "ContextOverflow"],
    "story": ["Once upon", "length"],
}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
async def kind(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Kind, Simulator]]:
    kind: Kind = request.param
    monkeypatch.setenv("SIM_KEY", "right")
    monkeypatch.setattr("segue.providers.jobs._SETTLING", 0.0)
    async with Simulator(rule=rule, plays=kind.plays, key="right", batch_time=timedelta(seconds=0.05)) as sim:
        yield kind, sim


@pytest.mark.parametrize("way", ["live", "streamed", "batch"])
async def test_every_provider_alike(kind: tuple[Kind, Simulator], way: str):
    known, sim = kind
    mode: Any = "batch" if way == "batch" else "live"
    model = f"{known.name}:m@{sim.base_url}#SIM_KEY"
    async with segue.Engine("memory:", model=model, mode=mode) as engine:
        async with asyncio.timeout(30):
            run = await engine.start(everything("It broke"), id="r")
            if way == "streamed":
                said = "".join([text async for text in run.text()])
                assert "It says: o1 is on its way" in said
            got = await run
    assert {name: got[name] for name in EXPECTED} == EXPECTED
    counts = sim.ledger.counts()
    assert counts["paid_twice"] == 0
    if mode == "batch" and known.batches:
        assert (counts["live_paid"], counts["batch_paid"]) == (known.live, 9 - known.live)
    else:
        assert (counts["live_paid"], counts["batch_paid"]) == (9, 0)


async def test_an_orphan_is_found_everywhere(kind: tuple[Kind, Simulator]):
    known, sim = kind
    if not known.batches:
        pytest.skip("it has no batches")
    environment = {"SIM_KEY": "right"}
    provider: Any = make(
        resolve(f"{known.name}:m@{sim.base_url}#SIM_KEY", environment), environment, Pooled()
    )

    async def lines() -> AsyncIterator[tuple[str, bytes]]:
        asked = ChatRequest([segue.Message("user", "four")])
        yield "a", msgspec.json.encode(provider.chat_body(asked, "m"))

    since = sim.clock.now()
    files = [await provider.upload(lines(), "chat", nonce) for nonce in ("one", "two")]
    jobs = [
        await provider.submit(file, "chat", nonce, lines())
        for file, nonce in zip(files, ("one", "two"), strict=True)
    ]
    for job, nonce in zip(jobs, ("one", "two"), strict=True):
        found = await provider.find(nonce, job.file, since)
        assert (found.id, found.file) == (job.id, job.file)
    assert await provider.find("three", "file-three", since) is None
    await provider.cancel(jobs[0].id)
    async with asyncio.timeout(5):
        while not (job := await provider.poll(jobs[1].id)).over:
            await asyncio.sleep(0.01)
    assert job.status == "completed"
    (line,) = [line async for line in provider.results(job)]
    assert provider.chat_reply(line.body).text == "said 4"
    await provider.close()
