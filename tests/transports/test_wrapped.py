"""An author's own httpx2 transport, as the transport contract has it."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from segue.ports.provider import CallFault
from segue.transports.wrapped import Wrapped

URL = "http://user:hidden@far.example/v1/x"


def wrapped(answer: Any) -> Wrapped:
    return Wrapped(httpx2, httpx2.MockTransport(answer))


async def test_a_request_and_its_lines():
    seen: list[httpx2.Request] = []

    async def content() -> AsyncIterator[bytes]:
        yield b"one\r\ntw"
        yield b"o\nthree"

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(203, headers={"X-Name": "Value"}, content=content())

    async with wrapped(answer).request("POST", URL, headers={"Authorization": "k"}, body=b"{}") as response:
        assert response.status == 203
        assert response.headers["x-name"] == "Value"
        assert [line async for line in response.lines()] == [b"one", b"two", b"three"]
    assert seen[0].headers["authorization"] == "k"
    assert seen[0].headers["content-type"] == "application/json"
    assert seen[0].extensions["timeout"]["read"] == 600.0  # the SDK's own doesn't hold


async def test_a_compressed_body_is_read():
    body = gzip.compress(b"hello")
    answer = httpx2.Response(200, headers={"content-encoding": "gzip"}, content=body)
    async with wrapped(lambda _: answer).request("GET", URL, headers={}) as response:
        assert await response.read() == b"hello"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (httpx2.ConnectError, "unreachable"),
        (httpx2.ConnectTimeout, "unreachable"),
        (httpx2.ReadTimeout, "timeout"),
        (httpx2.RemoteProtocolError, "lost"),
    ],
)
async def test_what_keeps_a_response_from_coming(error: type[httpx2.TransportError], code: str):
    def answer(request: httpx2.Request) -> httpx2.Response:
        raise error("Bearer hidden", request=request)

    with pytest.raises(CallFault) as caught:
        async with wrapped(answer).request("POST", URL, headers={"Authorization": "hidden"}, body=b"{}"):
            pass
    fault = caught.value
    assert (fault.status, fault.code, fault.again) == (0, code, True)
    assert "far.example" in fault.message
    assert "hidden" not in repr((fault, fault.__cause__, fault.__context__))


async def test_a_body_that_breaks_off():
    async def content() -> AsyncIterator[bytes]:
        yield b"one\n"
        raise httpx2.ReadError("gone")

    answer = httpx2.Response(200, content=content())
    async with wrapped(lambda _: answer).request("GET", URL, headers={}) as response:
        with pytest.raises(CallFault, match="in the middle of its answer") as caught:
            await response.read()
    assert caught.value.code == "lost"
