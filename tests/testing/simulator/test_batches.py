from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import openai
import pytest

from segue.testing.simulator import Failure, Limits, Pace, SystemClock, VirtualClock
from tests.testing.simulator.world import World, ids, jsonl, read, row, says, submit

MINUTES = timedelta(minutes=1)
NAMES = [f"r{number}" for number in range(20)]


async def test_files_are_kept_listed_and_deleted(world: World):
    _, client = await world.pair()
    one = await client.files.create(file=("one.jsonl", b"1\n"), purpose="batch")
    two = await client.files.create(file=("two.txt", b"22\n"), purpose="user_data")
    assert (one.filename, one.bytes, one.purpose) == ("one.jsonl", 2, "batch")
    assert await client.files.retrieve(two.id) == two
    assert (await client.files.content(two.id)).content == b"22\n"
    assert [file.id async for file in client.files.list()] == [two.id, one.id]
    assert [file.id async for file in client.files.list(purpose="batch")] == [one.id]
    assert (await client.files.delete(two.id)).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            await call(two.id)


async def test_an_upload_without_a_purpose_or_a_file_is_refused(world: World):
    _, client = await world.pair()
    for files, body in (({"file": b"x"}, {}), ({"other": b"x"}, {"purpose": "batch"})):
        with pytest.raises(openai.BadRequestError):
            headers = {"Content-Type": "multipart/form-data"}
            await client.post("/files", cast_to=object, body=body, files=files, options={"headers": headers})


async def test_a_batch_goes_through_its_states(world: World):
    simulator, client = await world.pair()
    batch = await submit(client, *(row(name) for name in NAMES), metadata={"nonce": "n1"})
    seen = [batch.status]
    done = []
    for _ in range(6):
        await simulator.advance(10 * MINUTES)
        batch = await client.batches.retrieve(batch.id)
        seen.append(batch.status)
        done.append(batch.request_counts.completed)
    working = ["in_progress"] * 5
    assert seen == ["validating", *working, "completed"]
    assert done == sorted(done)
    assert 0 < done[0] < done[2] < 20
    assert batch.request_counts.model_dump() == {"total": 20, "completed": 20, "failed": 0}
    assert batch.metadata == {"nonce": "n1"}
    assert batch.model == "m"
    start = batch.created_at
    moments = (batch.in_progress_at, batch.finalizing_at, batch.completed_at, batch.expires_at)
    assert [moment - start for moment in moments] == [6 * 60, 54 * 60, 60 * 60, 24 * 60 * 60]
    assert batch.error_file_id is None


async def test_finalizing_is_seen(world: World):
    pace = Pace(validating=0, working=0, finalizing=60, cancelling=0)
    simulator, client = await world.pair(pace=pace)
    batch = await submit(client, row("a"))
    await simulator.advance(0 * MINUTES)
    assert (await client.batches.retrieve(batch.id)).status == "finalizing"


async def test_results_are_complete_and_shuffled_the_same_way_each_time(world: World):
    orders = []
    for _ in range(2):
        simulator, client = await world.pair(seed=7)
        batch = await submit(client, *(row(name) for name in NAMES))
        await simulator.finish()
        rows = await read(client, (await client.batches.retrieve(batch.id)).output_file_id)
        orders.append(ids(rows))
        for each in rows:
            body = each["response"]["body"]
            assert body["choices"][0]["message"]["content"] == f"You said: {each['custom_id']}"
            assert each["response"]["status_code"] == 200
            assert each["error"] is None
    assert sorted(orders[0]) == sorted(NAMES)
    assert orders[0] != NAMES
    assert orders[0] == orders[1]


async def test_lines_that_fail_are_in_the_error_file(world: World):
    simulator, client = await world.pair(rule=lambda body: Failure(429, code="rate_limit_exceeded"))
    simulator.when("good").reply("fine")
    streamed = row("streamed", says("good", stream=True))
    batch = await submit(client, row("good"), row("bad"), streamed, row("empty", {"model": "m"}))
    await simulator.finish()
    batch = await client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert batch.request_counts.model_dump() == {"total": 4, "completed": 1, "failed": 3}
    assert ids(await read(client, batch.output_file_id)) == ["good"]
    errors = {each["custom_id"]: each for each in await read(client, batch.error_file_id)}
    statuses = {name: each["response"]["status_code"] for name, each in errors.items()}
    assert statuses == {"bad": 429, "streamed": 400, "empty": 400}
    assert errors["bad"]["response"]["body"]["error"]["code"] == "rate_limit_exceeded"
    assert simulator.ledger.counts()["batch_paid"] == 1
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (
        simulator.ledger.counts()["tokens_in"],
        simulator.ledger.counts()["tokens_out"],
    )


async def test_without_a_good_line_there_is_no_output_file(world: World):
    simulator, client = await world.pair(rule=lambda body: Failure(500))
    batch = await submit(client, row("a"))
    await simulator.finish()
    batch = await client.batches.retrieve(batch.id)
    assert (batch.status, batch.output_file_id) == ("completed", None)


async def test_embeddings_can_be_batched(world: World):
    simulator, client = await world.pair()
    url = "/v1/embeddings"
    batch = await submit(client, row("a", {"model": "e", "input": "text"}, url=url), endpoint=url)
    await simulator.finish()
    [line] = await read(client, (await client.batches.retrieve(batch.id)).output_file_id)
    assert line["response"]["body"]["data"][0]["object"] == "embedding"


@pytest.mark.parametrize(
    ("rows", "code", "line", "param"),
    [
        ([row("a"), b"{nonsense"], "invalid_json_line", 2, None),
        ([b"[]"], "invalid_json_line", 1, None),
        ([row("a"), b"", row("a")], "duplicate_custom_id", 3, "custom_id"),
        ([row("a"), row("b", says("x") | {"model": "n"})], "model_mismatch", 2, "body.model"),
        ([row("a", {"messages": []})], "missing_required_parameter", 1, "body.model"),
        ([row("a") | {"body": None}], "missing_required_parameter", 1, "body"),
        ([row("")], "missing_required_parameter", 1, "custom_id"),
        ([row("a", url="/v1/embeddings")], "url_mismatch", 1, "url"),
        ([row("a", method="GET")], "invalid_method", 1, "method"),
        ([row("a", says("x") | {"model": "unknown"})], "model_not_found", 1, "body.model"),
        ([], "empty_file", None, None),
        ([row(name) for name in NAMES] + [row("one more")], "too_many_tasks", None, None),
    ],
)
async def test_one_bad_line_fails_the_whole_batch(
    world: World, rows: list[Any], code: str, line: int | None, param: str | None
):
    simulator, client = await world.pair(models=["m", "n"], limits=Limits(lines=20))
    batch = await submit(client, *rows)
    assert batch.status == "validating"
    await simulator.finish()
    batch = await client.batches.retrieve(batch.id)
    assert batch.status == "failed"
    assert batch.failed_at is not None
    [error] = batch.errors.data
    assert (error.code, error.line, error.param) == (code, line, param)
    assert error.message
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert simulator.ledger.lines() == []


async def test_a_file_that_is_not_there_is_found_out_late(world: World):
    simulator, client = await world.pair()
    batch = await client.batches.create(
        input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h"
    )
    await simulator.finish()
    batch = await client.batches.retrieve(batch.id)
    assert batch.status == "failed"
    assert batch.errors is not None


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
    ],
)
async def test_some_things_are_refused_at_once(world: World, more: dict[str, Any], param: str):
    simulator, client = await world.pair()
    with pytest.raises(openai.BadRequestError) as caught:
        await submit(client, row("a"), **more)
    assert caught.value.param == param
    assert simulator.batches() == []


async def test_what_was_done_before_a_cancel_is_returned_and_paid(world: World):
    simulator, client = await world.pair()
    batch = await submit(client, *(row(name) for name in NAMES))
    await simulator.advance(30 * MINUTES)
    assert (await client.batches.cancel(batch.id)).status == "cancelling"
    await simulator.advance(5 * MINUTES)
    assert (await client.batches.retrieve(batch.id)).status == "cancelling"
    await simulator.advance(1 * MINUTES)
    batch = await client.batches.retrieve(batch.id)
    assert batch.status == "cancelled"
    output = await read(client, batch.output_file_id)
    errors = await read(client, batch.error_file_id)
    assert len(output) == 10 == batch.request_counts.completed
    assert sorted(ids(output) + ids(errors)) == sorted(NAMES)
    assert {each["error"]["code"] for each in errors} == {"batch_cancelled"}
    paid = [entry.custom_id for entry in simulator.ledger.lines("batch") if entry.paid]
    assert sorted(paid, key=str) == sorted(ids(output))
    assert (await client.batches.cancel(batch.id)).status == "cancelled"


async def test_a_batch_can_be_cancelled_before_it_is_validated(world: World):
    simulator, client = await world.pair()
    batch = await submit(client, row("a"))
    await client.batches.cancel(batch.id)
    await simulator.finish()
    batch = await client.batches.retrieve(batch.id)
    assert batch.status == "cancelled"
    assert batch.output_file_id is None
    assert ids(await read(client, batch.error_file_id)) == ["a"]


async def test_a_batch_that_is_over_can_not_be_cancelled(world: World):
    simulator, client = await world.pair()
    batch = await submit(client, row("a"))
    await simulator.finish()
    with pytest.raises(openai.ConflictError):
        await client.batches.cancel(batch.id)


async def test_what_was_done_before_it_expired_is_returned_and_paid(world: World):
    simulator, client = await world.pair(window=30 * MINUTES)
    batch = await submit(client, *(row(name) for name in NAMES))
    await simulator.finish()
    batch = await client.batches.retrieve(batch.id)
    assert batch.status == "expired"
    assert batch.expired_at == batch.expires_at == batch.created_at + 30 * 60
    assert len(await read(client, batch.output_file_id)) == 10
    errors = await read(client, batch.error_file_id)
    assert {(each["response"], each["error"]["code"]) for each in errors} == {(None, "batch_expired")}
    assert simulator.ledger.counts()["batch_asked"] == 20
    assert simulator.ledger.counts()["batch_paid"] == 10


async def test_a_batch_can_expire_before_it_is_validated(world: World):
    simulator, client = await world.pair(window=MINUTES)
    batch = await submit(client, row("a"), row("b"))
    await simulator.finish()
    batch = await client.batches.retrieve(batch.id)
    assert (batch.status, batch.output_file_id) == ("expired", None)
    assert sorted(ids(await read(client, batch.error_file_id))) == ["a", "b"]


async def test_other_windows_can_be_asked_for(world: World):
    _, client = await world.pair()
    batch = await submit(client, row("a"), completion_window="7d")
    assert batch.expires_at - batch.created_at == 7 * 24 * 60 * 60


async def test_enqueued_tokens_have_a_limit_that_counts_all_batches_of_a_model(world: World):
    simulator, client = await world.pair(limits=Limits(enqueued_tokens=100))
    long = says("x" * 250)
    first = await submit(client, row("a", long))
    second = await submit(client, row("b", long))
    third = await submit(client, row("c", long | {"model": "other"}))
    await simulator.advance(10 * MINUTES)
    assert [batch.status for batch in simulator.batches()] == ["in_progress", "failed", "in_progress"]
    assert simulator.batches()[1].errors[0].code == "token_limit_exceeded"
    await simulator.finish()
    again = await submit(client, row("b", long))
    await simulator.finish()
    ended = [(await client.batches.retrieve(each.id)).status for each in (first, second, third, again)]
    assert ended == ["completed", "failed", "completed", "completed"]


async def test_batches_are_listed_newest_first_page_by_page(world: World):
    _, client = await world.pair()
    made = [(await submit(client, row("a"))).id for _ in range(5)]
    page = await client.batches.list(limit=2)
    assert [batch.id for batch in page.data] == made[:2:-1]
    assert page.has_more
    rest = await client.batches.list(limit=3, after=page.data[-1].id)
    assert [batch.id for batch in rest.data] == made[2::-1]
    assert not rest.has_more
    assert [batch.id async for batch in client.batches.list(limit=2)] == made[::-1]
    for wrong in ({"limit": 101}, {"limit": 0}, {"after": "batch_none"}):
        with pytest.raises(openai.BadRequestError):
            await client.batches.list(**wrong)
    with pytest.raises(openai.NotFoundError):
        await client.batches.retrieve("batch_none")


async def test_a_file_in_use_is_not_deleted(world: World):
    simulator, client = await world.pair()
    batch = await submit(client, row("a"))
    with pytest.raises(openai.ConflictError):
        await client.files.delete(batch.input_file_id)
    await simulator.finish()
    await client.files.delete(batch.input_file_id)


async def test_on_the_machine_s_clock_batches_go_on_by_themselves(world: World):
    simulator, client = await world.pair(clock=SystemClock(), batch_time=timedelta(milliseconds=40))
    first = await submit(client, *(row(name) for name in NAMES))
    second = await submit(client, *(row(name) for name in NAMES))
    for batch in (first, second):
        while (now := await client.batches.retrieve(batch.id)).status != "completed":
            await asyncio.sleep(0.005)
        assert len(await read(client, now.output_file_id)) == 20
    assert simulator.ledger.counts()["batch_paid"] == 40


async def test_lines_go_upstream_a_few_at_a_time(world: World):
    at_once: list[int] = [0]
    gate = asyncio.Event()

    async def slow(body: dict[str, Any]) -> str:
        at_once.append(at_once[-1] + 1)
        await gate.wait()
        at_once.append(at_once[-1] - 1)
        return "done"

    behind = await world.simulator(rule=slow)
    simulator, client = await world.pair(
        clock=SystemClock(), batch_time=timedelta(0), upstream=behind.base_url, concurrency=3
    )
    batch = await submit(client, *(row(name) for name in NAMES))
    other = await submit(client, *(row(name) for name in NAMES))
    while at_once[-1] < 3:
        await asyncio.sleep(0.002)
    assert (await client.batches.retrieve(batch.id)).request_counts.completed == 0
    await asyncio.sleep(0.02)
    await client.batches.cancel(other.id)
    await client.batches.cancel(batch.id)
    assert (await client.batches.retrieve(batch.id)).status == "cancelling"
    gate.set()
    while (now := await client.batches.retrieve(batch.id)).status != "cancelled":
        await asyncio.sleep(0.002)
    assert max(at_once) == 3
    assert len(await read(client, now.output_file_id)) == 3
    assert simulator.ledger.counts()["batch_paid"] == behind.ledger.counts()["paid"] == 3


async def test_a_batch_upstream_ends_when_its_lines_have(world: World):
    behind = await world.simulator(rule=lambda body: "done")
    simulator, client = await world.pair(upstream=behind.base_url)
    batch = await submit(client, *(row(name) for name in NAMES))
    await simulator.advance(6 * MINUTES)
    assert (await client.batches.retrieve(batch.id)).request_counts.completed == 20
    await simulator.finish()
    assert (await client.batches.retrieve(batch.id)).status == "completed"
    assert behind.ledger.counts()["paid"] == 20


async def test_a_rule_that_gives_what_is_no_reply_fails_its_lines(world: World):
    _, client = await world.pair(clock=SystemClock(), batch_time=timedelta(0), rule=lambda body: object())
    batch = await submit(client, row("a"), row("b"))
    async with asyncio.timeout(5):
        while (batch := await client.batches.retrieve(batch.id)).status != "completed":
            await asyncio.sleep(0.01)
    assert batch.error_file_id
    rows = await read(client, batch.error_file_id)
    assert {line["response"]["status_code"] for line in rows} == {500}


async def test_a_file_may_end_without_a_line_break(world: World):
    simulator, client = await world.pair()
    content = jsonl(row("a"), row("b")).rstrip()
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    await simulator.finish()
    assert simulator.ledger.counts()["batch_paid"] == 2


async def test_a_clock_that_somebody_else_moves_moves_the_batches(world: World):
    clock = VirtualClock()
    _, client = await world.pair(clock=clock)
    batch = await submit(client, row("a"))
    clock.move_to(clock.now() + 7 * 60)
    assert (await client.batches.retrieve(batch.id)).status == "in_progress"
