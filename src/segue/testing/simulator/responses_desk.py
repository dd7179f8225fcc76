"""OpenAI's Responses: live, streamed, as lines of a batch, and in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

import msgspec
from aiohttp import web

from . import completion
from . import responses as wire
from .ledger import Entry, digest
from .model import RESPONSES, Answer
from .replies import Failure
from .service import Service, json_of, json_response

__all__ = ["Responses"]

#: How long an answer takes in the background, by its window, as a share of a batch's time.
_SHARES = {"soonest": 0.0, "2h": 0.25, "8h": 0.5}
_WINDOWS = {"soonest": timedelta(minutes=10), "2h": timedelta(hours=2), "8h": timedelta(hours=8)}


class Responses:
    """The routes of `/v1/responses`. What runs in the background is gone with the simulator."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stored: dict[str, dict[str, Any]] = {}
        self._working: dict[str, asyncio.Task[None]] = {}

    def routes(self, prefix: str = "") -> Iterable[web.RouteDef]:
        """All of them, below a prefix."""
        whole = prefix + RESPONSES
        one = f"{whole}/{{id}}"
        return [
            web.post(whole, self._create),
            web.get(one, self._retrieve),
            web.delete(one, self._delete),
            web.post(f"{one}/cancel", self._cancel),
        ]

    async def answer(self, body: Any, *, batch: bool = False) -> Answer:
        """The whole answer to a request, live or as a line of a batch."""
        model = self._service.model
        wrong = model.check(RESPONSES, body) or wire.check(body, batch=batch)
        if wrong is not None:
            return Answer.failed(wrong)
        try:
            said = await model.backend.complete(wire.as_chat(body))
        except Failure as failure:
            return Answer.failed(failure)
        ident = f"resp_{next(self._service.ids)}"
        return Answer(200, wire.response(body, said, id=ident, now=self._service.clock.now()))

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await json_of(request)
        await self._service.think()
        wrong = self._service.model.check(RESPONSES, body) or wire.check(body)
        if wrong is None and body.get("background"):
            return json_response(self._begin(body))
        answer = await self.answer(body)
        self._service.enter(RESPONSES, body, answer.status, completion.usage_of(answer.body))
        if answer.status != 200:
            raise _again(answer)
        if body.get("store", True):
            self._stored[answer.body["id"]] = answer.body
        if body.get("stream"):
            return await self._service.stream(request, _events(answer.body), error=_broken)
        return json_response(answer.body, headers={"x-request-id": f"req_{next(self._service.ids)}"})

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        return json_response(self._known(request))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        known = self._known(request)
        del self._stored[known["id"]]
        return json_response({"id": known["id"], "object": "response", "deleted": True})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        known = self._known(request)
        if not known["background"]:
            raise Failure(400, "Only responses created with background=true can be cancelled.", param="id")
        if known["status"] in ("queued", "in_progress"):
            self._working[known["id"]].cancel()
            self._stored[known["id"]] = known | {"status": "cancelled"}
        return json_response(self._known(request))

    def _known(self, request: web.Request) -> dict[str, Any]:
        known = self._stored.get(request.match_info["id"])
        if known is None:
            raise Failure(404, f"Response with id {request.match_info['id']!r} not found.", param="id")
        return known

    # In the background.

    def _begin(self, body: dict[str, Any]) -> dict[str, Any]:
        window = wire.background(body)
        ident = f"resp_{next(self._service.ids)}"
        begun = self._stored[ident] = wire.waiting(body, id=ident, now=self._service.clock.now())
        within = _WINDOWS[window].total_seconds()
        takes = min(self._service.processor.pace.whole * _SHARES[window], within)
        task = self._working[ident] = asyncio.create_task(self._work(ident, body, window, takes))
        self._service.tasks.add(task)
        task.add_done_callback(self._service.tasks.discard)
        return begun

    async def _work(self, ident: str, body: dict[str, Any], window: str, takes: float) -> None:
        clock = self._service.clock
        await clock.sleep(takes)
        self._stored[ident] |= {"status": "in_progress"}
        try:
            said = await self._service.model.backend.complete(wire.as_chat(body))
        except Failure as failure:
            self._enter(body, window, failure.status, {})
            self._stored[ident] |= wire.failed(body, failure, id=ident, now=self._stored[ident]["created_at"])
            return
        done = wire.response(body, said, id=ident, now=clock.now())
        self._stored[ident] = done | {"created_at": self._stored[ident]["created_at"]}
        self._enter(body, window, 200, done)

    def _enter(self, body: dict[str, Any], window: str, status: int, answer: dict[str, Any]) -> None:
        asked, said = completion.usage_of(answer)
        self._service.ledger.add(
            Entry(
                time=self._service.clock.now(),
                kind="background" if window != "soonest" else "live",
                endpoint=RESPONSES,
                status=status,
                sha256=digest(body),
                model=str(body["model"]),
                tokens_in=asked,
                tokens_out=said,
                custom_id=(body.get("metadata") or {}).get("segue"),
            )
        )


def _again(answer: Answer) -> Failure:
    error = answer.body["error"]
    return Failure(
        answer.status,
        error["message"],
        code=error["code"],
        type=error["type"],
        param=error["param"],
        retry_after=answer.retry_after,
    )


async def _events(whole: dict[str, Any]) -> AsyncIterator[bytes]:
    for event in wire.events(whole):
        yield b"event: %s\ndata: %s\n\n" % (event["type"].encode(), msgspec.json.encode(event))


def _broken(failure: Failure) -> bytes:
    error = completion.error(failure)["error"]
    told = {"type": "error", "code": error["code"], "message": error["message"], "param": error["param"]}
    return b"event: error\ndata: %s\n\n" % msgspec.json.encode(told)
