"""Gemini's dialect: generateContent, embeddings, files and batches."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any, Literal

import msgspec
from aiohttp import web

from . import completion, gemini_batches
from . import gemini_content as wire
from .batches import Batch, Checked, Row
from .dialect import ModelFault
from .files import File
from .model import Answer
from .replies import Failure
from .service import Service, json_of, json_response

__all__ = ["Gemini"]

_WINDOW = timedelta(hours=48)
_MODEL = re.compile(r"/v1(?:beta)?/models/([^/:]+):(\w+)")
_CALLS = frozenset({"generateContent", "streamGenerateContent", "embedContent", "batchEmbedContents"})


class Gemini:
    """`Dialect` of Gemini."""

    name = "gemini"
    batch_prefix = ""
    validates = True

    def __init__(self, service: Service) -> None:
        self._service = service
        self._uploads: dict[str, dict[str, Any]] = {}

    def routes(self) -> Iterable[web.RouteDef]:
        return [route for version in ("/v1beta", "/v1") for route in self._versioned(version)]

    def _versioned(self, root: str) -> list[web.RouteDef]:
        file, batch = f"{root}/files/{{id}}", f"{root}/batches/{{id}}"
        return [
            web.post(f"{root}/models/{{model}}:{{verb}}", self._asked),
            web.post(f"/upload{root}/files", self._upload),
            web.get(f"{root}/files", self._list_files),
            web.get(file, self._file),
            web.delete(file, self._delete_file),
            web.get(f"{file}:download", self._download),
            web.get(f"/download{file}:download", self._download),
            web.get(f"{root}/batches", self._list_batches),
            web.get(batch, self._batch),
            web.delete(batch, self._delete_batch),
            web.post(f"{batch}:cancel", self._cancel_batch),
        ]

    def speaks(self, request: web.Request) -> bool:
        """Under `/v1` its headers tell it from OpenAI, whose batches and files are there too."""
        if request.path.startswith(("/v1beta/", "/upload/", "/download/")) or _MODEL.fullmatch(request.path):
            return True
        told = "key" in request.query or any(name.lower().startswith("x-goog-") for name in request.headers)
        return request.path.startswith("/v1/") and told

    def asks_model(self, path: str) -> bool:
        found = _MODEL.fullmatch(path)
        return found is not None and found[2] in _CALLS

    def key(self, request: web.Request) -> str:
        if request.path.startswith("/upload/") and request.query.get("upload_id") in self._uploads:
            return str(self._uploads[request.query["upload_id"]]["key"])  # it stands for the key
        return request.headers.get("x-goog-api-key") or request.query.get("key", "")

    def error(self, failure: Failure) -> Any:
        return wire.error(failure)

    def usage(self, body: dict[str, Any]) -> tuple[int, int]:
        return wire.usage_of(body)

    # The model.

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        model, verb = request.match_info["model"], request.match_info["verb"]
        body = await json_of(request)
        match verb:
            case "generateContent" | "streamGenerateContent":
                return await self._generate(request, model, body, streams=verb.startswith("stream"))
            case "embedContent" | "batchEmbedContents":
                return await self._embed(request, model, body, many=verb.startswith("batch"))
            case "batchGenerateContent":
                return await self._create_batch(request, model, body)
        raise Failure(404, f"Method not found: {verb}")

    async def _generate(
        self, request: web.Request, model: str, body: Any, *, streams: bool
    ) -> web.StreamResponse:
        await self._service.think()
        try:
            if streams:
                return await self._stream(request, model, body)
            answer = await self._answer(model, body)
        except Failure as failure:
            self._service.enter(request.path, body, failure.status, model=model)
            raise
        self._service.enter(request.path, body, 200, wire.usage_of(answer), model=model)
        return json_response(answer)

    def _chat(self, model: str, body: Any) -> dict[str, Any]:
        wrong = wire.check(model, body) or self._service.model.check_model(model)
        if wrong is not None:
            raise wrong
        return wire.as_chat(model, body)

    async def _answer(self, model: str, body: Any) -> dict[str, Any]:
        completed = await self._service.model.backend.complete(self._chat(model, body))
        return wire.answer(model, completed, id=next(self._service.ids), thoughts=_thoughts(body))

    async def _stream(self, request: web.Request, model: str, body: Any) -> web.StreamResponse:
        chat = self._chat(model, body)
        heard: dict[str, Any] = {}
        chunks = wire.chunks(
            model,
            await self._service.model.backend.stream(chat),
            id=next(self._service.ids),
            asked=completion.tokens(chat["messages"]),
            thoughts=_thoughts(body),
            heard=heard,
        )
        try:
            if request.query.get("alt") == "sse":
                return await self._service.stream(request, _events(chunks), error=_broken)
            return json_response([chunk async for chunk in chunks])
        finally:
            self._service.enter(request.path, body, 200, wire.usage_of({"usageMetadata": heard}), model=model)

    async def _embed(self, request: web.Request, model: str, body: Any, *, many: bool) -> web.StreamResponse:
        await self._service.think()
        asked = body.get("requests") if many else [body]
        if not asked or not all(isinstance(each, dict) and each.get("content") for each in asked):
            raise Failure(400, "* EmbedContentRequest.content: content is not specified")
        made = [completion.embeddings(wire.embedding_request(each)) for each in asked]
        vectors = [{"values": each["data"][0]["embedding"]} for each in made]
        counted = sum(each["usage"]["prompt_tokens"] for each in made)
        self._service.enter(request.path, body, 200, (counted, 0), model=model)
        usage = {"usageMetadata": {"promptTokenCount": counted}}
        return json_response({"embeddings": vectors, **usage} if many else {"embedding": vectors[0], **usage})

    # Files.

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        """The two requests of a resumable upload: what it will be, and its bytes."""
        commands = request.headers.get("X-Goog-Upload-Command", "").replace(" ", "").split(",")
        if "start" in commands:
            told = await json_of(request) if request.can_read_body else {}
            about = wire.camel((told or {}).get("file") or {})
            ident = next(self._service.ids)
            self._uploads[ident] = {
                "name": about.get("displayName") or "",
                "mime": request.headers.get("X-Goog-Upload-Header-Content-Type")
                or "application/octet-stream",
                "size": request.headers.get("X-Goog-Upload-Header-Content-Length"),
                "key": self.key(request),
                "content": bytearray(),
            }
            url = f"{request.scheme}://{request.host}{request.path}?upload_id={ident}"
            return web.Response(headers={"X-Goog-Upload-URL": url, "X-Goog-Upload-Status": "active"})
        upload = self._uploads.get(request.query.get("upload_id", ""))
        if upload is None:
            raise Failure(404, "No such upload.")
        if int(request.headers.get("X-Goog-Upload-Offset", "-1")) != len(upload["content"]):
            raise Failure(400, "The offset is not where the upload stands.")
        upload["content"] += await request.read()
        if len(upload["content"]) > self._service.limits.bytes:
            raise Failure(413, f"The file has more than {self._service.limits.bytes} bytes.")
        if "finalize" not in commands:
            return web.Response(headers={"X-Goog-Upload-Status": "active"})
        if upload["size"] is not None and int(upload["size"]) != len(upload["content"]):
            raise Failure(400, "The upload has another length than was announced.")
        del self._uploads[request.query["upload_id"]]
        file = self._service.files.add(
            bytes(upload["content"]),
            purpose="upload",
            filename=upload["name"],
            now=self._service.clock.now(),
            owner=self.name,
            mime=upload["mime"],
        )
        return json_response({"file": self._shown(request, file)}, headers={"X-Goog-Upload-Status": "final"})

    def _shown(self, request: web.Request, file: File) -> dict[str, Any]:
        uploaded = file.purpose == "upload"
        made = gemini_batches.moment(file.created_at)
        return {
            "name": f"files/{file.id}",
            "displayName": file.filename,
            "mimeType": file.mime,
            "sizeBytes": str(file.size),
            "createTime": made,
            "updateTime": made,
            "uri": f"{request.scheme}://{request.host}/v1beta/files/{file.id}",
            "state": "ACTIVE",
            "source": "UPLOADED" if uploaded else "GENERATED",
        }

    async def _list_files(self, request: web.Request) -> web.StreamResponse:
        shown = [
            self._shown(request, file)
            for file in self._service.files.all(self.name)
            if file.purpose != "requests"
        ]
        return json_response(_page(shown, "files", request))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return json_response(self._shown(request, self._found(request)))

    async def _delete_file(self, request: web.Request) -> web.StreamResponse:
        self._service.files.delete(self._found(request).id)
        return json_response({})

    async def _download(self, request: web.Request) -> web.StreamResponse:
        file = self._found(request)
        if file.purpose == "upload":
            raise Failure(400, "Uploaded files can't be downloaded.")
        content = self._service.files.content(file.id)
        return web.Response(body=content, content_type="application/octet-stream")

    def _found(self, request: web.Request) -> File:
        file = self._service.files.get(request.match_info["id"])
        if file is None or file.owner != self.name:
            message = f"You do not have permission to access the File {request.match_info['id']} or it may not exist."
            raise Failure(403, message)
        return file

    # Batches.

    async def _create_batch(self, request: web.Request, model: str, body: Any) -> web.StreamResponse:
        service = self._service
        name, file, inline = gemini_batches.asked_of(body)
        total = 0
        ident = file.removeprefix("files/")
        if inline:
            content = b"".join(msgspec.json.encode(each) + b"\n" for each in inline)
            if len(content) > gemini_batches.INLINE:
                raise Failure(400, "Request payload size exceeds the limit: 20971520 bytes.")
            total = len(inline)
            ident = service.files.add(
                content, purpose="requests", filename="inline", now=service.clock.now(), owner=self.name
            ).id
        known = service.files.get(ident)
        if known is None or known.owner != self.name:
            raise Failure(404, f"File {file} not found.")
        if message := service.processor.over_quota(model, known.size // 4):
            raise Failure(429, message)
        batch = service.processor.create(
            self.name,
            endpoint=f"/v1beta/models/{model}:generateContent",
            input_file_id=ident,
            window=_WINDOW,
            asked={"name": name, "file": file},
            model=model,
            total=total,
            ordered=bool(inline),
        )
        return json_response(self._view(batch))

    async def _list_batches(self, request: web.Request) -> web.StreamResponse:
        views = [self._view(batch) for batch in self._service.processor.all(self.name)]
        return json_response(_page(views, "operations", request))

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        return json_response(self._view(self._known(request)))

    async def _cancel_batch(self, request: web.Request) -> web.StreamResponse:
        batch = self._known(request)
        if batch.final:
            raise Failure(400, f"Batch {batch.id} is over.")
        if batch.status != "finalizing":
            self._service.processor.cancel(batch.id)
        return json_response({})

    async def _delete_batch(self, request: web.Request) -> web.StreamResponse:
        batch = self._known(request)
        if not batch.final:
            raise Failure(400, f"Batch {batch.id} is not over.")
        self._service.processor.forget(batch.id)
        return json_response({})

    def _known(self, request: web.Request) -> Batch:
        batch = self._service.processor.get(request.match_info["id"])
        if batch is None or batch.dialect != self.name:
            raise Failure(404, f"Batch {request.match_info['id']} not found.")
        return batch

    def _view(self, batch: Batch) -> dict[str, Any]:
        inline = batch.ordered and batch.output_file_id
        return gemini_batches.view(batch, self._service.files.content(inline) if inline else b"")

    def read(self, batch: Batch, content: bytes, model_fault: ModelFault) -> Checked:
        return gemini_batches.read(batch, content, self._service.limits.lines)

    async def work(self, endpoint: str, body: Any) -> Answer:
        found = _MODEL.fullmatch(endpoint)
        assert found is not None  # `_create_batch` wrote it
        try:
            return Answer(200, await self._answer(found[1], body))
        except Failure as failure:
            return Answer(failure.status, wire.error(failure))

    def row(self, batch: Batch, row: Row) -> tuple[Literal["output", "error"], dict[str, Any]]:
        return gemini_batches.row(batch, row)


def _thoughts(body: dict[str, Any]) -> bool:
    config = wire.camel(wire.camel(body).get("generationConfig") or {})
    return bool(wire.camel(config.get("thinkingConfig") or {}).get("includeThoughts"))


async def _events(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield b"data: " + msgspec.json.encode(chunk) + b"\r\n\r\n"


def _broken(failure: Failure) -> bytes:
    return b"data: " + msgspec.json.encode(wire.error(failure)) + b"\r\n\r\n"


def _page(rows: list[dict[str, Any]], name: str, request: web.Request) -> dict[str, Any]:
    try:
        size, start = int(request.query.get("pageSize", 50)), int(request.query.get("pageToken") or 0)
    except ValueError:
        raise Failure(400, "The page can't be read.") from None
    if not 0 <= size <= 1000 or start < 0:
        raise Failure(400, "page_size must be from 0 to 1000.")
    end = start + (size or 50)
    return {name: rows[start:end]} | ({"nextPageToken": str(end)} if end < len(rows) else {})
