"""OpenAI's dialect: chat, embeddings, models, files and batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any, Literal

import msgspec
from aiohttp import BodyPartReader, web

from . import completion, openai_batches
from .batches import Batch, Checked, Row
from .completion import tokens, usage_of
from .dialect import ModelFault
from .files import File
from .model import ENDPOINTS, RESPONSES, Answer
from .replies import Failure
from .responses_desk import Responses
from .service import Service, json_of, json_response

__all__ = ["OpenAI"]


class OpenAI:
    """`Dialect` of OpenAI."""

    name = "openai"
    batch_prefix = "batch_"
    validates = True
    prefix = ""  #: what its paths begin with
    #: What a file may be for.
    purposes = frozenset({"assistants", "batch", "evals", "fine-tune", "user_data", "vision"})
    usual_purpose = ""  #: of a file that comes without one; none may

    def __init__(self, service: Service) -> None:
        self._service = service
        self._responses = Responses(service)

    def routes(self) -> Iterable[web.RouteDef]:
        at = f"{self.prefix}/v1"
        return [
            web.post(f"{at}/chat/completions", self._chat),
            web.post(f"{at}/embeddings", self._embed),
            web.get(f"{at}/models", self._list_models),
            *self._responses.routes(self.prefix),
            *self.file_routes(at),
            *self.batch_routes(at),
        ]

    def file_routes(self, at: str) -> list[web.RouteDef]:
        """Of files."""
        return [
            web.post(f"{at}/files", self._upload),
            web.get(f"{at}/files", self._list_files),
            web.get(f"{at}/files/{{id}}", self._file),
            web.delete(f"{at}/files/{{id}}", self._delete_file),
            web.get(f"{at}/files/{{id}}/content", self._content),
        ]

    def batch_routes(self, at: str) -> list[web.RouteDef]:
        """Of batches."""
        return [
            web.post(f"{at}/batches", self._create_batch),
            web.get(f"{at}/batches", self._list_batches),
            web.get(f"{at}/batches/{{id}}", self._batch),
            web.post(f"{at}/batches/{{id}}/cancel", self._cancel_batch),
        ]

    def speaks(self, request: web.Request) -> bool:
        return request.path.startswith(f"{self.prefix}/v1/")

    def asks_model(self, path: str) -> bool:
        return path.removeprefix(self.prefix) in ENDPOINTS

    def key(self, request: web.Request) -> str:
        return request.headers.get("Authorization", "").removeprefix("Bearer ")

    def error(self, failure: Failure) -> Any:
        return completion.error(failure)

    def usage(self, body: dict[str, Any]) -> tuple[int, int]:
        return usage_of(body)

    # The model.

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await json_of(request)
        await self._service.think()
        if isinstance(body, dict) and body.get("stream"):
            return await self._stream(request, body)
        return await self._answered(request, body)

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = await json_of(request)
        await self._service.think()
        return await self._answered(request, body)

    async def _answered(self, request: web.Request, body: Any) -> web.StreamResponse:
        path = request.path.removeprefix(self.prefix)
        answer = await self._service.model.answer(path, body)
        self._service.enter(path, body, answer.status, usage_of(answer.body))
        return self._send(answer)

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        stream = await self._service.model.stream(body)
        if isinstance(stream, Answer):
            self._service.enter(request.path.removeprefix(self.prefix), body, stream.status)
            return self._send(stream)
        said = _Said(body)
        try:
            return await self._service.stream(
                request, _events(said.each(stream)), b"data: [DONE]\n\n", error=_broken
            )
        finally:
            self._service.enter(request.path.removeprefix(self.prefix), body, 200, said.usage())

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        known = self._service.model.models or ("simulated",)
        return json_response(
            _page([{"id": name, "object": "model", "created": 0, "owned_by": "segue"} for name in known])
        )

    # Files.

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        purpose, filename, content = await _form(request)
        purpose = purpose or self.usual_purpose
        if content is None or not purpose:
            missing = "file" if content is None else "purpose"
            raise Failure(400, f"Missing required parameter: {missing!r}.", param=missing)
        if purpose not in self.purposes:
            raise Failure(400, f"Invalid purpose: {purpose!r}.", param="purpose")
        if len(content) > (most := self._service.limits.bytes):
            raise Failure(413, f"The file has more than {most} bytes.", param="file")
        file = self._service.files.add(
            content, purpose=purpose, filename=filename, now=self._service.clock.now(), owner=self.name
        )
        return json_response(self.file_view(file))

    def file_view(self, file: File) -> dict[str, Any]:
        """A file as this provider shows it."""
        return file.view()

    def batch_view(self, batch: Batch) -> dict[str, Any]:
        """A batch as this provider shows it."""
        return openai_batches.view(batch)

    async def _list_files(self, request: web.Request) -> web.StreamResponse:
        purpose = request.query.get("purpose")
        found = [
            file.view() for file in self._service.files.all(self.name) if purpose in (None, file.purpose)
        ]
        return json_response(_cut(found, request, most=10_000, usual=10_000))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return json_response(self.file_view(self._found(request)))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        content = self._service.files.content(self._found(request).id)
        return web.Response(body=content, content_type="application/octet-stream")

    async def _delete_file(self, request: web.Request) -> web.StreamResponse:
        file = self._found(request)
        if self._service.processor.uses(file.id):
            raise Failure(
                409, f"The file {file.id!r} is used by a batch that isn't over.", type="invalid_request_error"
            )
        self._service.files.delete(file.id)
        return json_response({"id": file.id, "object": "file", "deleted": True})

    def _found(self, request: web.Request) -> File:
        file = self._service.files.get(request.match_info["id"])
        if file is None or file.owner != self.name:
            raise Failure(404, f"No such File object: {request.match_info['id']}", param="id")
        return file

    # Batches.

    async def _create_batch(self, request: web.Request) -> web.StreamResponse:
        asked = await json_of(request)
        if not isinstance(asked, dict):
            raise Failure(400, "The body must be a JSON object", code="invalid_json")
        return json_response(self.batch_view(self._made(asked)))

    def window(self, asked: dict[str, Any]) -> timedelta:
        """How long a batch may take. Raises `Failure` where it isn't one that can be made."""
        return openai_batches.window_of(asked)

    def _made(self, asked: dict[str, Any]) -> Batch:
        return self._service.processor.create(
            self.name,
            window=self.window(asked),
            endpoint=asked["endpoint"],
            input_file_id=asked["input_file_id"],
            asked={
                "completion_window": asked["completion_window"],
                "metadata": asked.get("metadata"),
            },
        )

    async def _list_batches(self, request: web.Request) -> web.StreamResponse:
        views = [self.batch_view(batch) for batch in self._service.processor.all(self.name)]
        return json_response(_cut(views, request, most=100, usual=20))

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        return json_response(self.batch_view(self._known(request)))

    async def _cancel_batch(self, request: web.Request) -> web.StreamResponse:
        return json_response(self.batch_view(self._service.processor.cancel(self._known(request).id)))

    def _known(self, request: web.Request) -> Batch:
        batch = self._service.processor.get(request.match_info["id"])
        if batch is None or batch.dialect != self.name:
            raise Failure(404, f"No batch found with id {request.match_info['id']!r}.")
        return batch

    def read(self, batch: Batch, content: bytes, model_fault: ModelFault) -> Checked:
        most = self._service.limits.lines
        return openai_batches.check(content, batch.endpoint, model_fault=model_fault, most_lines=most)

    async def work(self, endpoint: str, body: Any) -> Answer:
        if body.get("stream"):
            return Answer.failed(Failure(400, "Streaming is not supported in a batch.", param="stream"))
        if endpoint == RESPONSES:
            return await self._responses.answer(body, batch=True)
        return await self._service.model.answer(endpoint, body)

    def row(self, batch: Batch, row: Row) -> tuple[Literal["output", "error"], dict[str, Any]]:
        return openai_batches.row(batch, row)

    def _send(self, answer: Answer) -> web.Response:
        headers = {"x-request-id": f"req_{next(self._service.ids)}"}
        if answer.retry_after is not None:
            headers["retry-after"] = f"{answer.retry_after:g}"
        return json_response(answer.body, status=answer.status, headers=headers)


def _broken(failure: Failure) -> bytes:
    return b"data: " + msgspec.json.encode(completion.error(failure)) + b"\n\n"


async def _events(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield b"data: " + msgspec.json.encode(chunk) + b"\n\n"


class _Said:
    """What a stream said, and what of it the client wants to hear."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = body
        self._wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._pieces: list[Any] = []
        self._stated: tuple[int, int] | None = None

    async def each(self, stream: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        async for chunk in stream:
            if chunk.get("usage"):
                self._stated = usage_of(chunk)
            self._pieces.extend(choice.get("delta", {}) for choice in chunk.get("choices", []))
            if self._wants_usage:
                yield {"usage": None, **chunk}
            elif chunk.get("choices"):
                yield chunk

    def usage(self) -> tuple[int, int]:
        """As the stream stated it; an estimate when it ended before that."""
        if self._stated is not None:
            return self._stated
        text = "".join(piece.get("content") or "" for piece in self._pieces)
        calls = [piece["tool_calls"] for piece in self._pieces if piece.get("tool_calls")]
        return tokens(self._body.get("messages", [])), tokens(text) + tokens(calls or "")


async def _form(request: web.Request) -> tuple[str, str, bytes | None]:
    """The purpose, the file's name and its content."""
    if not request.content_type.startswith("multipart/"):
        raise Failure(400, "The body must be multipart/form-data.")
    purpose, filename, content = "", "upload", None
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            continue
        if part.name == "purpose":
            purpose = await part.text()
        elif part.name == "file":
            filename = part.filename or filename
            content = bytes(await part.read())
    return purpose, filename, content


def _cut(rows: list[dict[str, Any]], request: web.Request, *, most: int, usual: int) -> dict[str, Any]:
    """The page that `after` and `limit` ask for."""
    try:
        limit = int(request.query.get("limit", usual))
    except ValueError:
        limit = 0
    if not 1 <= limit <= most:
        raise Failure(400, f"The limit must be from 1 to {most}.", param="limit")
    after = request.query.get("after")
    if after is not None:
        places = [index for index, row in enumerate(rows) if row["id"] == after]
        if not places:
            raise Failure(400, f"No object with id {after!r}.", param="after")
        rows = rows[places[0] + 1 :]
    return _page(rows[:limit], has_more=len(rows) > limit)


def _page(rows: list[dict[str, Any]], *, has_more: bool = False) -> dict[str, Any]:
    ends = (
        {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]}
        if rows
        else {"first_id": None, "last_id": None}
    )
    return {"object": "list", "data": rows, **ends, "has_more": has_more}
