"""Files and batches over a real connection: what is sent, and what can come back."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from segue.ports.provider import CallFault, LineResult, RemoteJob
from segue.providers.batches import job_line
from segue.providers.openai import OpenAI
from tests.providers.conftest import KEY
from tests.transports.serving import Server


def job(id: str = "batch_1", status: str = "in_progress", **more: Any) -> dict[str, Any]:
    return {"id": id, "object": "batch", "status": status, "created_at": 1000, **more}


async def each(*lines: tuple[str, bytes]) -> AsyncIterator[tuple[str, bytes]]:
    for line in lines:
        yield line


async def many(count: int, body: bytes) -> AsyncIterator[tuple[str, bytes]]:
    for number in range(count):
        yield f"line-{number}", body


# ---------------------------------------------------------------- upload and submit
async def test_an_upload(server: Server, provider: OpenAI):
    got: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.Response:
        form = await request.post()
        got.update(path=request.path, purpose=form["purpose"], name=form["file"].filename)  # type: ignore[union-attr]
        got["content"] = form["file"].file.read()  # type: ignore[union-attr]
        return web.json_response({"id": "file-1"})

    server.handler = handler
    raw = b'{"model":"m", "x" : 1.50}'
    lines = each(("a", raw), ('b"', b'{"model":\r\n "m"}'))
    assert await provider.upload(lines, "chat", "nonce-1") == "file-1"
    first, second, end = got.pop("content").split(b"\n")
    assert got == {"path": "/v1/files", "purpose": "batch", "name": "nonce-1.jsonl"}
    assert first == b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":' + raw + b"}"
    assert json.loads(second) == {
        "custom_id": 'b"',
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m"},
    }
    assert end == b""


def test_a_line_keeps_the_bytes_of_its_body():
    body = b'{"a": 1.0, "b":"\\u00e9"}'
    assert body in job_line("x", "/v1/embeddings", body)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_body_of_several_lines_is_one_line_of_a_file(end: bytes):
    (line,) = job_line("x", "/v1/embeddings", b'{"a":%s 1}' % end).splitlines()
    assert json.loads(line)["body"] == {"a": 1}


async def test_memory_stays_flat_over_an_upload(server: Server, provider: OpenAI):
    size = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal size
        async for chunk in request.content.iter_any():
            size += len(chunk)
        return web.json_response({"id": "file-1"})

    server.handler = handler
    body = json.dumps({"model": "m", "text": "x" * 1900}).encode()
    tracemalloc.start()
    try:
        await provider.upload(many(10_000, body), "chat", "n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 20_000_000
    assert peak < 12_000_000, f"{peak:,}"


async def test_a_submission(server: Server, provider: OpenAI):
    server.answers(job(status="validating", input_file_id="file-1", metadata={"segue": "n"}))
    assert await provider.submit("file-1", "embed", "n") == RemoteJob(
        id="batch_1", status="validating", over=False, nonce="n", file="file-1"
    )
    assert server.requests[0].path == "/v1/batches"
    assert json.loads(server.bodies[0]) == {
        "input_file_id": "file-1",
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
        "metadata": {"segue": "n"},
    }


CALLS = {
    "upload": lambda provider: provider.upload(each(("a", b"{}")), "chat", "n"),
    "submit": lambda provider: provider.submit("f", "chat", "n"),
    "find": lambda provider: provider.find("n", "f", 0),
    "poll": lambda provider: provider.poll("j"),
    "cancel": lambda provider: provider.cancel("j"),
    "results": lambda provider: read(provider, RemoteJob("j", "completed", True, files=("f",))),
}


async def read(provider: OpenAI, job: RemoteJob) -> list[LineResult | str]:
    return [line async for line in provider.results(job)]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("status", "again"),
    [(401, False), (403, False), (404, False), (422, False), (429, True), (500, True), (529, True)],
)
async def test_statuses(server: Server, provider: OpenAI, call: str, status: int, again: bool):
    server.answers({"error": {"message": f"no: {KEY}", "code": "c"}}, status=status, retry_after="3")
    with pytest.raises(CallFault) as caught:
        await CALLS[call](provider)
    fault = caught.value
    message, _, place = fault.message.partition("; ")
    assert (fault.status, fault.again, fault.after, fault.code, message) == (
        status,
        again,
        3.0,
        "c",
        "no: ***",
    )
    assert place == (f"'{server.url}/v1/files' was asked" if (call, status) == ("upload", 404) else "")


@pytest.mark.parametrize(
    "call", [each for each in CALLS if each != "results"]
)  # its lines are judged one by one
@pytest.mark.parametrize(
    "body", [f"<html>busy {KEY}</html>", "", '{"id": ', "[]", '{"id": 7, "data": 7}', "null"]
)
async def test_garbage(server: Server, provider: OpenAI, call: str, body: str):
    server.answers(body, Content_Type="text/html" if "html" in body else "application/json")
    with pytest.raises(CallFault) as caught:
        await CALLS[call](provider)
    assert (caught.value.status, caught.value.again, KEY in str(caught.value)) == (200, True, False)


async def test_a_web_page_instead_of_results(server: Server, provider: OpenAI):
    server.answers(f"<html>busy {KEY}</html>", Content_Type="text/html; charset=utf-8")
    with pytest.raises(CallFault, match="busy") as caught:
        await CALLS["results"](provider)
    assert (caught.value.again, KEY in str(caught.value)) == (True, False)


@pytest.mark.parametrize("call", CALLS)
async def test_a_lost_connection(server: Server, provider: OpenAI, call: str):
    server.streams(b'{"id": ', cut=True, Content_Type="application/json")
    with pytest.raises(CallFault) as caught:
        await CALLS[call](provider)
    assert (caught.value.again, caught.value.code) == (True, "lost")


# ---------------------------------------------------------------- poll
@pytest.mark.parametrize(
    ("status", "over"),
    [
        ("validating", False),
        ("in_progress", False),
        ("finalizing", False),
        ("cancelling", False),
        ("something_new", False),
        ("completed", True),
        ("COMPLETED", True),
        ("failed", True),
        ("expired", True),
        ("cancelled", True),
        ("CANCELED", True),
    ],
)
async def test_statuses_of_jobs(server: Server, provider: OpenAI, status: str, over: bool):
    server.answers(job(status=status))
    assert (await provider.poll("batch_1")).over is over


async def test_a_finished_job(server: Server, provider: OpenAI):
    counts = {"total": 3, "completed": 2, "failed": 1}
    server.answers(job("batch/1", "completed", output_file_id="o", error_file_id="e", request_counts=counts))
    found = await provider.poll("batch/1")
    assert server.requests[0].raw_path == "/v1/batches/batch%2F1"
    assert (found.done, found.failed, found.total, found.files, found.rejected) == (2, 1, 3, ("o", "e"), "")


@pytest.mark.parametrize(("output", "error"), [(None, None), ("", ""), (None, "")])
async def test_ids_that_are_none(server: Server, provider: OpenAI, output: Any, error: Any):
    server.answers(
        job(
            status="completed", output_file_id=output, error_file_id=error, request_counts=None, metadata=None
        )
    )
    found = await provider.poll("batch_1")
    assert found.files == ()
    assert await read(provider, found) == []


async def test_a_rejected_job(server: Server, provider: OpenAI):
    errors = [
        {"code": "invalid_json_line", "message": f"no JSON; {KEY}", "line": 2, "param": None},
        {"code": "duplicate_custom_id", "message": None, "line": 7},
        {"code": "token_limit_exceeded", "message": "too much is enqueued", "line": None},
        *({"code": "x", "message": "y", "line": number} for number in range(20, 30)),
    ]
    server.answers(job(status="failed", errors={"object": "list", "data": errors}))
    found = await provider.poll("batch_1")
    assert found.bad_lines == (2, 7, *range(20, 30))
    assert found.faults[2] == "no JSON; *** (invalid_json_line)"
    assert found.faults[7] == "duplicate_custom_id"
    assert found.rejected.startswith(
        "line 2: no JSON; *** (invalid_json_line); line 7: duplicate_custom_id; too much is enqueued (token_limit"
    )
    assert found.rejected.endswith("and 8 more")


@pytest.mark.parametrize("errors", [None, {"data": None}, {"data": []}])
async def test_a_rejection_without_a_reason_is_one(server: Server, provider: OpenAI, errors: Any):
    server.answers(job(status="failed", errors=errors))
    assert "no reason" in (await provider.poll("batch_1")).rejected


async def test_a_failed_job_with_results_isnt_rejected(server: Server, provider: OpenAI):
    server.answers(job(status="failed", output_file_id="o"))
    found = await provider.poll("batch_1")
    assert (found.rejected, found.files) == ("", ("o",))


# ---------------------------------------------------------------- find
def lists(server: Server, jobs: list[dict[str, Any]], *, told: bool = True, most: int = 1000) -> None:
    """Serve the list of jobs in pages; `most` is how many requests are fine."""

    async def handler(request: web.Request) -> web.Response:
        assert len(server.requests) <= most
        limit, after = int(request.query["limit"]), request.query.get("after")
        start = next((n + 1 for n, each in enumerate(jobs) if each["id"] == after), 0)
        page = jobs[start : start + limit]
        body: dict[str, Any] = {"object": "list", "data": page}
        if told:
            body["has_more"] = start + limit < len(jobs)
        return web.json_response(body)

    server.handler = handler


def history(count: int, *, newest: int = 100_000) -> list[dict[str, Any]]:
    return [job(f"b{n}", created_at=newest - 60 * n, input_file_id=f"f{n}") for n in range(count)]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("at", [0, 99, 100, 249])
async def test_an_orphan_is_found_on_any_page(server: Server, provider: OpenAI, at: int, told: bool):
    jobs = history(250)
    jobs[at]["metadata"] = {"segue": "mine", "other": 1}
    lists(server, jobs, told=told)
    found = await provider.find("mine", "", 80_000)
    assert found is not None
    assert (found.id, found.nonce) == (f"b{at}", "mine")
    by_file = await provider.find("another nonce", f"f{at}", 80_000)
    assert by_file is not None
    assert by_file.id == f"b{at}"


async def test_there_is_none(server: Server, provider: OpenAI):
    for jobs in ([], history(3), history(200)):
        lists(server, jobs)
        assert await provider.find("mine", "", 0) is None


async def test_neither_nonce_nor_file_is_no_match(server: Server, provider: OpenAI):
    lists(
        server,
        [job(input_file_id="", metadata={"segue": ""}), job(metadata=None), job(metadata={"segue": 7})],
    )
    assert await provider.find("", "", 0) is None


async def test_old_pages_arent_read(server: Server, provider: OpenAI):
    lists(server, history(1000), most=2)
    assert (
        await provider.find("mine", "", 100_000 - 60 * 80) is None
    )  # an hour of slack reaches the second page
    assert len(server.requests) == 2


async def test_an_unsorted_list_is_read_to_its_end(server: Server, provider: OpenAI):
    jobs = history(250)[::-1]
    jobs[249]["metadata"] = {"segue": "mine"}
    lists(server, jobs)
    assert await provider.find("mine", "", 99_990) is not None


@pytest.mark.parametrize("many", [0, 3])
async def test_a_list_that_never_ends_ends(server: Server, provider: OpenAI, many: int):
    async def handler(request: web.Request) -> web.Response:
        assert len(server.requests) < 5
        return web.json_response({"data": history(many), "has_more": True})

    server.handler = handler
    assert await provider.find("mine", "", 0) is None


async def test_of_several_the_oldest_that_wasnt_refused(server: Server, provider: OpenAI):
    jobs = [
        job("new", metadata={"segue": "n"}, created_at=30),
        job("good", metadata={"segue": "n"}, created_at=20),
        job("refused", "failed", metadata={"segue": "n"}, created_at=10),
    ]
    lists(server, jobs)
    found = await provider.find("n", "", 0)
    assert found is not None
    assert found.id == "good"


# ---------------------------------------------------------------- results
def files(server: Server, **contents: bytes) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=contents[request.path.split("/")[3]])

    server.handler = handler


def done(*names: str, **more: Any) -> RemoteJob:
    return RemoteJob("j", "completed", True, files=names, **more)


def outcome(id: str, response: Any, error: Any = None) -> bytes:
    return json.dumps({"id": "r", "custom_id": id, "response": response, "error": error}).encode() + b"\n"


async def one(server: Server, provider: OpenAI, line: bytes) -> LineResult | str:
    files(server, o=line)
    (result,) = await read(provider, done("o"))
    return result


async def test_both_files_are_read(server: Server, provider: OpenAI):
    raw = b'{"choices": [ 1.0 ]}'
    files(
        server,
        o=b'{"custom_id":"a","response":{"status_code":200,"request_id":"q","body":'
        + raw
        + b'},"error":null}\r\n\n',
        e=outcome("b", {"status_code": 400, "body": {"error": {"code": "bad", "message": "m"}}}),
    )
    assert await read(provider, done("o", "e")) == [
        LineResult("a", 200, raw),
        LineResult("b", 400, b'{"error": {"code": "bad", "message": "m"}}', "bad"),
    ]


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        (outcome("a", None, {"code": "batch_expired", "message": "late"}), 0, "batch_expired"),
        (outcome("a", None, {"code": "batch_cancelled", "message": "c"}), 0, "batch_cancelled"),
        (outcome("a", None), 0, "no_response"),
        (b'{"custom_id":"a"}', 0, "no_response"),
        (outcome("a", None, {"message": "x"}), 0, "no_response"),
        (outcome("a", {"status_code": 0, "body": ""}, {"code": "broken"}), 0, "broken"),
        (outcome("a", {"status_code": None, "body": None}), 0, ""),
        (outcome("a", {"status_code": 429, "body": {"error": {"type": "tokens"}}}), 429, "tokens"),
        (outcome("a", {"status_code": 500, "body": "oops"}), 500, ""),
        (outcome("a", {"status_code": 500}), 500, ""),
        (outcome("a", {"status_code": 200}), 200, ""),
        (outcome("a", {"status_code": 200, "body": None}), 200, ""),
    ],
)
async def test_outcomes(server: Server, provider: OpenAI, line: bytes, status: int, code: str):
    result = await one(server, provider, line)
    assert isinstance(result, LineResult)
    assert (result.id, result.status, result.code) == ("a", status, code)


async def test_what_a_line_without_a_response_says_is_kept(server: Server, provider: OpenAI):
    result = await one(server, provider, outcome("a", None, {"code": "x", "message": "why"}))
    assert isinstance(result, LineResult)
    assert json.loads(result.body) == {"error": {"code": "x", "message": "why"}}


async def test_no_secret_is_told_in_a_failed_line(server: Server, provider: OpenAI):
    error = {"code": KEY, "message": f"Incorrect API key provided: {KEY}"}
    for line in (outcome("a", {"status_code": 401, "body": {"error": error}}), outcome("a", None, error)):
        result = await one(server, provider, line)
        assert isinstance(result, LineResult)
        assert KEY not in f"{result!r}"
        assert json.loads(result.body)["error"]["message"].endswith("***")


@pytest.mark.parametrize(
    "line",
    [
        outcome("a", {"status_code": 200, "body": {"x": 1}})[:-20],
        b"<html>",
        b"null",
        b"[]",
        b'"text"',
        b'{"response":{"status_code":200,"body":{}}}',
        b'{"custom_id":null,"response":null}',
        b'{"custom_id":7}',
        b'{"custom_id":""}',
        b'{"custom_id":"a","response":7}',
        b'{"custom_id":"\xff","response":null}',
        KEY.encode(),
    ],
)
async def test_lines_that_cant_be_read_are_told(server: Server, provider: OpenAI, line: bytes):
    good = outcome("ok", {"status_code": 200, "body": {}})
    files(server, o=good + line.rstrip(b"\n") + b"\n" + good)
    first, told, last = await read(provider, done("o"))
    assert isinstance(first, LineResult)
    assert isinstance(last, LineResult)
    assert isinstance(told, str)
    assert told.startswith("o, line 2: ")
    assert KEY not in told


async def test_a_file_that_ends_in_the_middle_of_a_line(server: Server, provider: OpenAI):
    files(server, o=outcome("a", {"status_code": 200, "body": {}}) + b'{"custom_id":"b","resp')
    first, told = await read(provider, done("o"))
    assert isinstance(first, LineResult)
    assert isinstance(told, str)


async def test_an_empty_file_isnt_believed_where_the_job_tells_of_outcomes(server: Server, provider: OpenAI):
    files(server, o=b"\n", e=b"")
    with pytest.raises(CallFault, match="empty") as caught:
        await read(provider, done("o", "e", done=2, failed=1))
    assert caught.value.again
    assert await read(provider, done("o", "e")) == []


async def test_lines_come_while_the_file_does(server: Server, provider: OpenAI):
    line = outcome("a", {"status_code": 200, "body": {}})
    came = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line[:10])
        await response.write(line[10:])
        await asyncio.wait_for(came.wait(), 5)
        await response.write(line * 2)
        return response

    server.handler = handler
    count = 0
    async for _ in provider.results(done("o")):
        count += 1
        came.set()
    assert count == 3


# ---------------------------------------------------------------- cancel
async def test_a_cancellation(server: Server, provider: OpenAI):
    server.answers(job(status="cancelling"))
    await provider.cancel("batch_1")
    assert (server.requests[0].method, server.requests[0].path) == ("POST", "/v1/batches/batch_1/cancel")


@pytest.mark.parametrize("status", [400, 409])
@pytest.mark.parametrize(("state", "fine"), [("completed", True), ("in_progress", False)])
async def test_a_cancellation_that_comes_too_late(
    server: Server, provider: OpenAI, status: int, state: str, fine: bool
):
    async def handler(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.json_response({"error": {"message": "cannot cancel"}}, status=status)
        return web.json_response(job(status=state))

    server.handler = handler
    if fine:
        await provider.cancel("batch_1")
    else:
        with pytest.raises(CallFault, match="cannot cancel"):
            await provider.cancel("batch_1")
