"""xAI's jobs: counts for a status, a name for a label, outcomes and lists page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from segue.ports.provider import LineResult
from segue.providers import make, resolve
from segue.providers.xai import XAIFormat
from segue.testing.simulator import Failure, Simulator, VirtualClock
from segue.transports.pooled import Pooled

HOUR = timedelta(hours=1)
STATE = {"num_requests": 0, "num_pending": 0, "num_success": 0, "num_error": 0, "num_cancelled": 0}


def rule(body: dict[str, Any]) -> Any:
    text = body["messages"][-1]["content"]
    return Failure(400, f"no {text}", code="bad") if text == "evil" else f"said {text}"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(clock=VirtualClock(), plays="xai", rule=rule, batch_time=HOUR) as sim:
        yield sim


@pytest.fixture
async def xai(sim: Simulator) -> AsyncIterator[Any]:
    provider = make(resolve(f"xai:m@{sim.base_url}", {"XAI_API_KEY": "k"}), {"XAI_API_KEY": "k"}, Pooled())
    yield provider
    await provider.close()


async def lines(*texts: str) -> AsyncIterator[tuple[str, bytes]]:
    for text in texts:
        yield text, msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": text}]})


async def submitted(xai: Any, nonce: str, *texts: str) -> Any:
    return await xai.submit(await xai.upload(lines(*texts), "chat", nonce), "chat", nonce)


async def test_outcomes_of_all_pages_good_and_bad(sim: Simulator, xai: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("segue.providers.xai._ROWS", 2)
    job = await submitted(xai, "n", "a", "b", "evil", "c", "d")
    assert (job.status, job.over, job.nonce, job.total) == ("validating", False, "n", 0)
    await sim.finish()
    job = await xai.poll(job.id)
    assert (job.status, job.over, job.done, job.failed, job.total) == ("completed", True, 4, 1, 5)
    found = {line.id: line async for line in xai.results(job)}
    assert {ident: line.status for ident, line in found.items()} == {
        "a": 200, "b": 200, "c": 200, "d": 200, "evil": 400,
    }  # fmt: skip
    assert xai.chat_reply(found["a"].body).text == "said a"
    assert b"no evil" in found["evil"].body


async def test_a_job_is_found_by_its_name_on_whatever_page(
    sim: Simulator, xai: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("segue.providers.xai.PAGE", 2)
    monkeypatch.setattr("segue.providers.jobs.PAGE", 2)
    jobs = [await submitted(xai, f"n{i}", "a") for i in range(5)]
    for number, job in enumerate(jobs):
        assert (await xai.find(f"n{number}", "", sim.clock.now())).id == job.id
    assert (await xai.find("", jobs[0].file, sim.clock.now())).id == jobs[0].id
    assert await xai.find("n9", "file-9", sim.clock.now()) is None


async def test_a_file_that_is_refused(sim: Simulator, xai: Any):
    sim.faults.fail_batch("invalid_line", "line 1 is no request")
    job = await submitted(xai, "n", "a")
    await sim.finish()
    job = await xai.poll(job.id)
    assert (job.status, job.over, job.rejected, job.files) == ("failed", True, "line 1 is no request", ())


async def test_what_was_done_of_a_cancelled_job_is_used(sim: Simulator, xai: Any):
    job = await submitted(xai, "n", *"abcdefgh")
    await sim.advance(HOUR / 2)
    await xai.cancel(job.id)
    await sim.finish()
    job = await xai.poll(job.id)
    assert (job.status, job.over) == ("cancelled", True)
    statuses = [line.status async for line in xai.results(job)]
    assert 0 < statuses.count(200) == job.done < 8
    await xai.cancel(job.id)  # which is over


@pytest.mark.parametrize(
    ("told", "status", "files"),
    [
        ({}, "validating", False),
        ({"state": None}, "validating", False),
        ({"state": STATE | {"num_requests": 2, "num_pending": 1, "num_success": 1}}, "in_progress", False),
        ({"state": STATE | {"num_requests": 2, "num_success": 2}}, "completed", True),
        ({"state": STATE | {"num_requests": 2, "num_error": 2}}, "completed", True),
        ({"state": STATE | {"num_requests": 2, "num_success": 1, "num_cancelled": 1}}, "cancelled", True),
        ({"state": STATE, "cancel_time": "2026-09-23"}, "cancelled", False),
        ({"state": STATE, "cancel_by_xai_message": "bad"}, "failed", False),
    ],
)
def test_counts_tell_the_status(told: dict[str, Any], status: str, files: bool):
    body = {"batch_id": "b", "create_time": "2026-09-23T00:00:00Z", "state": STATE} | told
    job = XAIFormat().job(msgspec.json.encode(body))
    assert (job.status, job.output_file_id) == (status, "b" if files else None)
    assert job.created_at == 1790121600


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"error": {"code": 8, "message": "slow down"}}, 429),
        ({"error": {"code": "8", "message": "odd"}}, 500),
        ({"error": {}}, 500),
        ({"response": {}}, 500),
        ({}, 500),
    ],
)
def test_a_line_that_failed(row: dict[str, Any], expected: int):
    page = {"results": [{"batch_request_id": "r", "batch_result": row}], "pagination_token": ""}
    (line,), following = XAIFormat().rows(msgspec.json.encode(page))
    told = msgspec.json.decode(line)
    assert (told["custom_id"], told["response"]["status_code"], following) == ("r", expected, "")


async def test_a_line_that_cannot_be_read_is_told_and_the_rest_is_used(sim: Simulator, xai: Any):
    sim.faults.half_line()
    job = await submitted(xai, "n", "a", "b")
    await sim.finish()
    results = [line async for line in xai.results(await xai.poll(job.id))]
    assert [type(line) for line in results] == [LineResult, str]
