from __future__ import annotations

import asyncio
import builtins
import importlib.util
import resource
import socket
import tempfile
import threading
import tracemalloc
from collections.abc import AsyncIterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from aiohttp import web

import segue
from segue.model.errors import MissingExtra
from segue.ports.provider import CallFault
from segue.ports.transport import Transport
from segue.transports import pooled
from segue.transports.pooled import Pooled
from tests.transports.serving import Server, hang_up

BLOCK = b"x" * 1_000 + b"\n"


def fits(pool: Pooled) -> Transport:
    """For type checkers: it is what the contract wants."""
    return pool


async def blocks(many: int) -> AsyncIterator[bytes]:
    for _ in range(many):
        yield BLOCK


async def test_get_and_post(server: Server, pool: Pooled):
    server.answers({"a": 1})
    async with pool.request("GET", server.url + "/x?y=1", headers={"X-A": "b"}) as response:
        assert (response.status, await response.read()) == (200, b'{"a": 1}')
        assert response.headers["content-type"].startswith("application/json")
    async with pool.request("POST", server.url, headers={}, body=b"{}") as response:
        await response.read()
    first, second = server.requests
    assert (first.method, first.path_qs, first.headers["X-A"]) == ("GET", "/x?y=1", "b")
    assert (second.headers["Content-Type"], second.headers["Content-Length"]) == ("application/json", "2")
    assert server.bodies == [b"", b"{}"]


async def test_a_large_body_is_sent_without_a_warning_and_with_its_length(server: Server, pool: Pooled):
    server.answers()
    body = b'"' + b"a" * 3_000_000 + b'"'
    async with pool.request("POST", server.url, headers={}, body=body) as response:
        assert response.status == 200
    assert server.bodies == [body]
    assert server.requests[0].headers["Content-Length"] == str(len(body))


async def test_cookies_arent_kept(server: Server, pool: Pooled):
    server.answers(Set_Cookie="a=b")
    for _ in range(2):
        async with pool.request("GET", server.url, headers={}) as response:
            await response.read()
    assert "Cookie" not in server.requests[1].headers


async def test_a_post_follows_no_redirect(server: Server, pool: Pooled):
    server.answers(status=307, Location="/elsewhere")
    async with pool.request("POST", server.url, headers={}, body=b"{}") as response:
        assert response.status == 307
    assert len(server.requests) == 1


async def test_lines_are_streamed(server: Server, pool: Pooled):
    server.streams(b"a\nb", b"c\n", b"d")
    async with pool.request("GET", server.url, headers={}) as response:
        assert [line async for line in response.lines()] == [b"a", b"bc", b"d"]


async def test_many_requests_at_once(server: Server, pool: Pooled):
    together = asyncio.Barrier(150)

    async def handler(request: web.Request) -> web.Response:
        await together.wait()  # which no smaller pool would pass
        return web.Response()

    server.handler = handler

    async def one() -> int:
        async with pool.request("GET", server.url, headers={}) as response:
            return response.status

    assert set(await asyncio.gather(*(one() for _ in range(150)))) == {200}


# ---------------------------------------------------------------- uploads
async def test_an_upload_is_a_form(server: Server, pool: Pooled):
    got: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.Response:
        got["length"] = request.headers["Content-Length"]
        form = await request.post()
        got.update(form)
        got["content"] = form["file"].file.read()  # type: ignore[union-attr]
        return web.Response(text="ok")

    server.handler = handler
    async with pool.upload(
        server.url, headers={"X": "y"}, fields={"purpose": "batch"}, name='a"b.jsonl', content=blocks(3)
    ) as response:
        assert await response.read() == b"ok"
    assert (got["purpose"], got["content"], int(got["length"]) > 3003) == ("batch", BLOCK * 3, True)


async def test_a_spooled_body_is_sent_with_its_length(server: Server, pool: Pooled):
    server.answers({})
    for many in (3, 6_000):  # in memory, and in a file
        async with pool.spool(blocks(many)) as spool:
            assert spool.size == many * len(BLOCK)
            for _ in range(2):
                async with pool.request("POST", server.url, headers={"X": "y"}, body=spool) as response:
                    assert response.status == 200
        for request, body in zip(server.requests[-2:], server.bodies[-2:], strict=True):
            assert body == BLOCK * many
            assert request.headers["Content-Length"] == str(many * len(BLOCK))
            assert (request.headers["Content-Type"], request.headers["X"]) == ("application/json", "y")


async def test_a_full_disk_says_which(server: Server, pool: Pooled):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            async with pool.spool(blocks(6_000)):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == tempfile.gettempdir()


async def test_memory_stays_flat_over_an_upload_and_a_download(server: Server, pool: Pooled):
    many = 20_000
    got = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal got
        async for chunk in request.content.iter_any():
            got += len(chunk)
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(many // 100):
            await response.write(BLOCK * 100)
        return response

    server.handler = handler
    tracemalloc.start()
    try:
        async with pool.upload(server.url, headers={}, fields={}, name="f", content=blocks(many)) as response:
            lines = 0
            async for _ in response.lines():
                lines += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (lines, got > many * len(BLOCK)) == (many, True)
    assert peak < 12_000_000, f"{peak:,} bytes for a file of {many * len(BLOCK):,}"


async def test_nothing_is_sent_when_the_content_fails(server: Server, pool: Pooled):
    async def broken() -> AsyncIterator[bytes]:
        yield BLOCK
        raise LookupError("no such line")

    with pytest.raises(LookupError, match="no such line"):
        async with pool.upload(server.url, headers={}, fields={}, name="f", content=broken()):
            pass
    assert server.requests == []


async def test_an_upload_that_is_refused_midway_tells_the_refusal(server: Server, pool: Pooled):
    async def handler(request: web.Request) -> web.StreamResponse:
        await request.content.readany()
        return web.Response(status=413, text="too large")

    server.handler = handler
    async with pool.upload(server.url, headers={}, fields={}, name="f", content=blocks(100)) as response:
        assert (response.status, await response.read()) == (413, b"too large")


async def test_an_upload_that_nobody_takes_is_given_up(server: Server):
    pool = Pooled(idle=timedelta(seconds=0.1))
    done = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        await done.wait()
        return web.Response()

    server.handler = handler
    with pytest.raises(CallFault) as caught:
        async with pool.upload(server.url, headers={}, fields={}, name="f", content=blocks(30_000)):
            pass
    done.set()
    assert (caught.value.again, caught.value.code) == (True, "timeout")
    await pool.close()


# ---------------------------------------------------------------- faults
async def fault_of(pool: Pooled, url: str, **options: Any) -> CallFault:
    headers = {"Authorization": "Bearer very-secret-key"}
    with pytest.raises(CallFault) as caught:
        async with pool.request("POST", url, headers=headers, body=b"{}", **options) as response:
            await response.read()
    error: BaseException | None = caught.value
    while error is not None:  # nor may what it was caused by hold the request
        assert "very-secret-key" not in f"{error!r}{error}{vars(error)}"
        error = error.__context__
    assert caught.value.status == 0
    return caught.value


async def test_nobody_listens(pool: Pooled):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        fault = await fault_of(pool, f"http://127.0.0.1:{port}/v1")
    assert (fault.again, fault.code) == (True, "unreachable")
    assert f"no connection to 127.0.0.1:{port}" in str(fault)


async def test_no_such_host(pool: Pooled):
    fault = await fault_of(pool, "http://nowhere.invalid/v1")
    assert (fault.again, fault.code) == (True, "unreachable")


async def test_a_connection_that_cant_be_made_in_time():
    pool = Pooled(connect=timedelta(seconds=0.05))
    with socket.socket() as full:  # a backlog of none, and it is used up
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        crowd = [socket.socket() for _ in range(3)]
        for each in crowd:
            each.setblocking(False)
            each.connect_ex(address)
        fault = await fault_of(pool, f"http://127.0.0.1:{address[1]}")
        for each in crowd:
            each.close()
    await pool.close()
    assert (fault.again, fault.code) == (True, "unreachable")


async def test_a_url_that_is_none(pool: Pooled):
    fault = await fault_of(pool, "http://a:b@:0:0/v1")
    assert not fault.again


async def test_the_server_hangs_up_before_it_answers(server: Server, pool: Pooled):
    async def handler(request: web.Request) -> web.StreamResponse:
        hang_up(request)
        return web.Response()

    server.handler = handler
    fault = await fault_of(pool, server.url)
    assert (fault.again, fault.code) == (True, "lost")


async def test_a_post_is_never_repeated(server: Server, pool: Pooled):
    async def handler(request: web.Request) -> web.StreamResponse:
        if len(server.requests) > 1:
            hang_up(request)
        return web.Response()

    server.handler = handler
    async with pool.request("POST", server.url, headers={}, body=b"{}") as response:
        await response.read()  # and the connection is kept open
    fault = await fault_of(pool, server.url)
    assert (fault.again, fault.code, len(server.requests)) == (True, "lost", 2)


async def test_the_server_hangs_up_midway(server: Server, pool: Pooled):
    server.streams(b"a\n", cut=True)
    fault = await fault_of(pool, server.url)
    assert (fault.again, fault.code, "middle" in str(fault)) == (True, "lost", True)


async def test_a_body_shorter_than_it_was_to_be(server: Server, pool: Pooled):
    server.streams(b"half", cut=True, Content_Length="100")
    fault = await fault_of(pool, server.url)
    assert (fault.again, fault.code) == (True, "lost")


@pytest.mark.parametrize("begun", [False, True])
async def test_silence(server: Server, begun: bool):
    pool = Pooled(idle=timedelta(seconds=0.1))
    done = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if begun:
            await response.prepare(request)
            await response.write(b"a")
        await done.wait()
        return response

    server.handler = handler
    fault = await fault_of(pool, server.url)
    done.set()
    assert (fault.again, fault.code) == (True, "timeout")
    await pool.close()


async def test_a_slow_stream_is_no_silence(server: Server):
    pool = Pooled(idle=timedelta(seconds=0.3))

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(8):
            await asyncio.sleep(0.06)
            await response.write(b"a\n")
        return response

    server.handler = handler
    async with pool.request("GET", server.url, headers={}) as response:
        assert len([line async for line in response.lines()]) == 8
    await pool.close()


# ---------------------------------------------------------------- surroundings
async def test_the_environments_proxy_is_used(server: Server, pool: Pooled, monkeypatch: pytest.MonkeyPatch):
    server.answers("from the proxy")
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "inside.example")
    async with pool.request("GET", "http://outside.example/v1", headers={}) as response:
        assert await response.read() == b"from the proxy"
    assert pool._proxy("http://inside.example/v1") is None


async def test_netrc_is_not_read(server: Server, pool: Pooled, monkeypatch: pytest.MonkeyPatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password pass\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.answers()
    async with pool.request("GET", server.url, headers={"Authorization": "Bearer k"}) as response:
        await response.read()
    assert server.requests[0].headers["Authorization"] == "Bearer k"


async def test_without_aiohttp(pool: Pooled, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name == "aiohttp":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match=r"segue\[http\]"):
        async with pool.request("GET", "http://127.0.0.1", headers={}):
            pass


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_without_aiohttp_a_call_fails_and_waits_for_no_lane(
    mode: Literal["live", "batch"], monkeypatch: pytest.MonkeyPatch
):
    @segue.flow(name="pooled.none")
    async def flow() -> str:
        return await segue.generate("hi")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    async with segue.Engine("memory:", model="openai:x@http://127.0.0.1:1/v1", mode=mode) as engine:
        with pytest.raises(MissingExtra, match=r"segue\[http\]"):
            await engine.run(flow())


async def test_it_can_be_used_after_close(server: Server, pool: Pooled):
    server.answers()
    for _ in range(2):
        async with pool.request("GET", server.url, headers={}) as response:
            assert response.status == 200
        await pool.close()


async def test_aiohttp_is_imported_beside_the_loop(
    server: Server, pool: Pooled, monkeypatch: pytest.MonkeyPatch
):
    threads: list[int] = []
    imported = pooled._import

    def watched() -> Any:
        threads.append(threading.get_ident())
        return imported()

    server.answers()
    monkeypatch.setattr(pooled, "_import", watched)
    monkeypatch.setattr(pooled, "sys", SimpleNamespace(modules={}))
    async with pool.request("GET", server.url, headers={}) as response:
        await response.read()
    assert threads[0] != threading.get_ident()
