"""Gemini's generateContent as it looks on the wire: what is asked, as chat; what is said, as parts. Pure."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from .completion import tokens
from .replies import Failure

__all__ = ["answer", "as_chat", "camel", "check", "chunks", "embedding_request", "error", "usage_of"]

_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    409: "ABORTED", 413: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_FIELDS = frozenset(
    {"model", "contents", "systemInstruction", "tools", "toolConfig", "safetySettings", "generationConfig"}
    | {"cachedContent", "labels", "serviceTier", "store"}
)
_CONFIG = frozenset(
    {
        "stopSequences",
        "responseMimeType",
        "responseSchema",
        "responseJsonSchema",
        "responseModalities",
        "candidateCount",
    }
    | {
        "maxOutputTokens",
        "temperature",
        "topP",
        "topK",
        "seed",
        "presencePenalty",
        "frequencyPenalty",
        "logprobs",
    }
    | {
        "responseLogprobs",
        "speechConfig",
        "thinkingConfig",
        "mediaResolution",
        "imageConfig",
        "routingConfig",
    }
)
_DATA = frozenset({"text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode"})
_FINISH = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}
_SIGNATURE = "c2lnbmVkLWJ5LXRoZS1zaW11bGF0b3I="


def error(failure: Failure) -> dict[str, Any]:
    """The body that goes with a status other than 200."""
    status = _STATUS.get(failure.status, "INTERNAL" if failure.status >= 500 else "INVALID_ARGUMENT")
    told: dict[str, Any] = {"code": failure.status, "message": failure.message, "status": status}
    if failure.retry_after is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        told["details"] = [{"@type": kind, "retryDelay": f"{failure.retry_after:g}s"}]
    return {"error": told}


def camel(value: dict[str, Any]) -> dict[str, Any]:
    """Names as the service writes them; it takes `snake_case` too."""
    return {re.sub(r"_([a-z])", lambda found: found[1].upper(), name): each for name, each in value.items()}


# ---------------------------------------------------------------- what is asked
def check(model: str, body: Any) -> Failure | None:
    """What is wrong with a request, if anything."""
    if not isinstance(body, dict):
        return Failure(400, "Invalid JSON payload received.")
    body = camel(body)
    config = camel(body.get("generationConfig") or {})
    for known, given, where in ((_FIELDS, body, ""), (_CONFIG, config, " at 'generation_config'")):
        if unknown := sorted(given.keys() - known):
            return Failure(
                400, f'Invalid JSON payload received. Unknown name "{unknown[0]}"{where}: Cannot find field.'
            )
    if not isinstance(body.get("contents"), list) or not body["contents"]:
        return Failure(400, "* GenerateContentRequest.contents: contents is not specified")
    json_wanted = config.get("responseMimeType") == "application/json"
    if (config.get("responseJsonSchema") or config.get("responseSchema")) and not json_wanted:
        return Failure(400, "A response schema requires response_mime_type application/json")
    if json_wanted and body.get("tools") and not _signs(model):
        return Failure(400, "Function calling with a response mime type: 'application/json' is unsupported")
    return _check_contents(model, body["contents"])


def _signs(model: str) -> bool:
    """Whether a model insists on having its signatures back: from the third generation on."""
    found = re.match(r"gemini-(\d+)", model)
    return found is not None and int(found[1]) >= 3


def _check_contents(model: str, contents: list[Any]) -> Failure | None:
    called = 0
    for at, content in enumerate(contents):
        if content.get("role", "user") not in ("user", "model"):
            return Failure(400, "Please use a valid role: user, model.")
        parts = content.get("parts") or []
        if not parts or any(not (_DATA & camel(part).keys()) for part in parts):
            return Failure(
                400, f"* GenerateContentRequest.contents[{at}].parts: contents.parts must not be empty."
            )
        answers = sum("functionResponse" in part for part in parts)
        if answers != called:
            return Failure(
                400,
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn.",
            )
        calls = [part for part in parts if "functionCall" in part]
        called = len(calls)
        if calls and _signs(model) and calls[0].get("thoughtSignature") != _SIGNATURE:
            name = calls[0]["functionCall"].get("name")
            return Failure(
                400,
                f"Function call `default_api:{name}` in the {at}. content block is missing a `thought_signature`.",
            )
    return None


def as_chat(model: str, body: dict[str, Any]) -> dict[str, Any]:
    """The same request in the words of Chat Completions, in which replies are thought of."""
    body = camel(body)
    config = camel(body.get("generationConfig") or {})
    messages: list[dict[str, Any]] = []
    if system := _text((body.get("systemInstruction") or {}).get("parts") or []):
        messages.append({"role": "system", "content": system})
    for at, content in enumerate(body["contents"]):
        messages.extend(_messages(at, content))
    chat: dict[str, Any] = {"model": model, "messages": messages}
    declared = [
        each for tool in body.get("tools") or () for each in camel(tool).get("functionDeclarations") or ()
    ]
    if declared:
        chat["tools"] = [{"type": "function", "function": _function(camel(each))} for each in declared]
    calling = camel(camel(body.get("toolConfig") or {}).get("functionCallingConfig") or {})
    if calling.get("mode") == "ANY":
        allowed = calling.get("allowedFunctionNames") or []
        only = {"type": "function", "function": {"name": allowed[0]}} if len(allowed) == 1 else "required"
        chat["tool_choice"] = only
    if schema := config.get("responseJsonSchema") or config.get("responseSchema"):
        made = {"name": "answer", "schema": _lower(schema), "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": made}
    elif config.get("responseMimeType") == "application/json":
        chat["response_format"] = {"type": "json_object"}
    for name, chats in (
        ("temperature", "temperature"),
        ("maxOutputTokens", "max_tokens"),
        ("stopSequences", "stop"),
    ):
        if name in config:
            chat[chats] = config[name]
    return chat


def _lower(schema: Any) -> Any:
    """A schema with its types in lower case: `responseSchema` has them in upper case."""
    if isinstance(schema, list):
        return [_lower(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: each.lower() if name == "type" and isinstance(each, str) else _lower(each)
        for name, each in schema.items()
    }


def _function(declared: dict[str, Any]) -> dict[str, Any]:
    parameters = declared.get("parametersJsonSchema") or _lower(declared.get("parameters") or {})
    return {
        "name": declared.get("name", ""),
        "description": declared.get("description", ""),
        "parameters": parameters,
    }


def _messages(at: int, content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    parts = [camel(part) for part in content["parts"]]
    answers = [part["functionResponse"] for part in parts if "functionResponse" in part]
    for number, answer in enumerate(answers):
        told = answer.get("response") or {}
        only = next(iter(told.values())) if len(told) == 1 else told
        text = only if isinstance(only, str) else msgspec.json.encode(only).decode()
        yield {"role": "tool", "tool_call_id": f"call_{at - 1}_{number}", "content": text}
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    rest = [part for part in parts if "functionCall" not in part and "functionResponse" not in part]
    if not calls and not rest:
        return
    said: dict[str, Any] = {
        "role": "assistant" if content.get("role") == "model" else "user",
        "content": _text(rest),
    }
    if any("text" not in part for part in rest):
        said["content"] = [
            {"type": "text", "text": part["text"]}
            if "text" in part
            else {"type": "image_url", "image_url": {"url": _url(part)}}
            for part in rest
        ]
    if calls:
        said["tool_calls"] = [
            {
                "id": f"call_{at}_{number}",
                "type": "function",
                "function": {
                    "name": call.get("name", ""),
                    "arguments": msgspec.json.encode(call.get("args") or {}).decode(),
                },
            }
            for number, call in enumerate(calls)
        ]
    yield said


def _text(parts: list[dict[str, Any]]) -> str:
    return "\n".join(part["text"] for part in parts if "text" in part and not part.get("thought"))


def _url(part: dict[str, Any]) -> str:
    if "fileData" in part:
        return str(camel(part["fileData"]).get("fileUri", ""))
    data = camel(part.get("inlineData") or {})
    return f"data:{data.get('mimeType', '')};base64,{data.get('data', '')}"


def embedding_request(request: dict[str, Any]) -> dict[str, Any]:
    """An `EmbedContentRequest` in OpenAI's words."""
    request = camel(request)
    made: dict[str, Any] = {"input": _text((request.get("content") or {}).get("parts") or [])}
    if size := request.get("outputDimensionality"):
        made["dimensions"] = size
    return made


# ---------------------------------------------------------------- what is said
def answer(model: str, completion: dict[str, Any], *, id: str, thoughts: bool) -> dict[str, Any]:
    """A `GenerateContentResponse` that says what a completion says. `thoughts`: they were asked for."""
    choice = completion["choices"][0]
    said = choice["message"]
    parts = list(_parts(model, said, thoughts=thoughts))
    candidate: dict[str, Any] = {
        "finishReason": _FINISH.get(choice.get("finish_reason") or "", "STOP"),
        "index": 0,
    }
    if parts:
        candidate["content"] = {"role": "model", "parts": parts}
    usage = completion.get("usage") or {}
    thought = tokens(said.get("reasoning_content") or "")
    return {
        "candidates": [candidate],
        "usageMetadata": _usage(
            usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0, thought
        ),
        "modelVersion": model,
        "responseId": id,
    }


def _usage(asked: int, said: int, thought: int) -> dict[str, Any]:
    """Of what was said, thoughts are counted apart."""
    usage = {
        "promptTokenCount": asked,
        "candidatesTokenCount": said - thought,
        "totalTokenCount": asked + said,
    }
    return usage | ({"thoughtsTokenCount": thought} if thought else {})


def _parts(model: str, said: dict[str, Any], *, thoughts: bool) -> Iterator[dict[str, Any]]:
    if thoughts and said.get("reasoning_content"):
        yield {"text": said["reasoning_content"], "thought": True}
    if text := said.get("content") or said.get("refusal"):
        yield {"text": text}
    for number, call in enumerate(said.get("tool_calls") or ()):
        yield _call(model, number, call["id"], call["function"]["name"], call["function"]["arguments"])


def _call(model: str, number: int, id: str, name: str, arguments: str) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "args": msgspec.json.decode(arguments or "{}")}
    if _signs(model):
        made = {"id": id, **made}
    part: dict[str, Any] = {"functionCall": made}
    return part | ({"thoughtSignature": _SIGNATURE} if number == 0 else {})


def usage_of(body: dict[str, Any]) -> tuple[int, int]:
    """Tokens in and out."""
    usage = body.get("usageMetadata")
    if not isinstance(usage, dict):
        return 0, 0
    return usage.get("promptTokenCount") or 0, sum(
        usage.get(name) or 0 for name in ("candidatesTokenCount", "thoughtsTokenCount")
    )


async def chunks(
    model: str,
    completion: AsyncIterator[dict[str, Any]],
    *,
    id: str,
    asked: int,
    thoughts: bool,
    heard: dict[str, Any],
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of an answer whose chunks come as a completion's. A function call comes whole.

    What was counted at last is written into `heard`.
    """
    told = _Telling(model, id, asked, thoughts, heard)
    async for each in completion:
        for chunk in told.of(each):
            yield chunk
    for chunk in told.end():
        yield chunk


class _Telling:
    """An answer that is told as it comes."""

    def __init__(self, model: str, id: str, asked: int, thoughts: bool, heard: dict[str, Any]) -> None:
        self._model, self._id, self._asked, self._thoughts, self._heard = model, id, asked, thoughts, heard
        self._said = self._thought = 0
        self._finish = ""
        self._calls: dict[int, dict[str, str]] = {}
        self._stated: dict[str, Any] = {}
        heard.update(_usage(asked, 0, 0))

    def of(self, chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What a completion's chunk says."""
        self._stated = chunk.get("usage") or self._stated
        for choice in chunk.get("choices") or ():
            self._finish = choice.get("finish_reason") or self._finish
            delta = choice.get("delta") or {}
            if thinking := delta.get("reasoning_content"):
                self._thought += 1
                self._said += 1
                if self._thoughts:
                    yield self._chunk([{"text": thinking, "thought": True}])
            if text := delta.get("content") or delta.get("refusal"):
                self._said += 1
                yield self._chunk([{"text": text}])
            for call in delta.get("tool_calls") or ():
                self._said += 1
                self._gather(call)

    def end(self) -> Iterator[dict[str, Any]]:
        """The calls, and why it ends."""
        self._asked = self._stated.get("prompt_tokens") or self._asked
        self._said = self._stated.get("completion_tokens") or self._said
        if self._calls:
            yield self._chunk(
                [
                    _call(self._model, at, call["id"], call["name"], call["arguments"])
                    for at, call in sorted(self._calls.items())
                ]
            )
        yield self._chunk([], finishReason=_FINISH.get(self._finish, "STOP"))

    def _gather(self, piece: dict[str, Any]) -> None:
        """A call is made of pieces, which say which one they are of."""
        made = self._calls.setdefault(piece.get("index") or 0, {"id": "", "name": "", "arguments": ""})
        function = piece.get("function") or {}
        made["id"] = made["id"] or piece.get("id") or ""
        made["name"] = made["name"] or function.get("name") or ""
        made["arguments"] += function.get("arguments") or ""

    def _chunk(self, parts: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
        usage = _usage(self._asked, self._said, self._thought)
        self._heard.update(usage)
        content = {"content": {"role": "model", "parts": parts}} if parts else {}
        return {
            "candidates": [{**content, "index": 0, **rest}],
            "usageMetadata": usage,
            "modelVersion": self._model,
            "responseId": self._id,
        }
