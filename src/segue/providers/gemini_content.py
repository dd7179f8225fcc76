"""The wire format of Gemini's generateContent and embeddings: requests and replies. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from ..model.chat import Answer, ChatReply, ChatRequest, Citation, File, Message, Stop, Tokens, ToolCall
from . import answer_tool
from .turns import object_of, text_of, turns

PROTOCOL = "gemini"

_BUDGETS = {"none": 0, "low": 1_024, "medium": 8_192, "high": 24_576}
_CONFIG = "generationConfig"


# ---------------------------------------------------------------- requests
def chat_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """The body of a request; `model` in it is what the path will name. The order of keys is always the same.

    `extra` goes in at its top, and what it says of `generationConfig` into that.
    """
    system = [
        {"text": text} for each in request.messages if each.role == "system" and (text := text_of(each))
    ]
    body: dict[str, Any] = {"model": model}
    if system:
        body["systemInstruction"] = {"parts": system}
    body["contents"] = _contents([each for each in request.messages if each.role != "system"])
    config: dict[str, Any] = {}
    if request.tools:
        declared = [
            {"name": each.name, "description": each.description, "parametersJsonSchema": each.parameters}
            for each in request.tools
        ]
        body["tools"] = [{"functionDeclarations": declared}]
    if request.answer is not None:
        _ask_for(body, config, request.answer, model)
    if request.temperature is not None:
        config["temperature"] = request.temperature
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.reasoning is not None:
        config["thinkingConfig"] = _thinking(request.reasoning, model)
    extra = dict(sorted(request.extra.items()))
    config |= extra.pop(_CONFIG, {})
    if config:
        body[_CONFIG] = config
    return body | extra


def generation(model: str) -> float:
    """Which generation a model is of; one of a name of its own is taken for a late one."""
    found = re.match(r"(?:models/)?gemini-(\d+(?:\.\d+)?)", model)
    return float(found[1]) if found else 99.0


def _thinking(reasoning: str, model: str) -> dict[str, Any]:
    """By budget up to the second generation, by level from the third on; which always thinks a little."""
    if generation(model) < 3:
        return {"thinkingBudget": _BUDGETS[reasoning], "includeThoughts": reasoning != "none"}
    return {
        "thinkingLevel": "minimal" if reasoning == "none" else reasoning,
        "includeThoughts": reasoning != "none",
    }


def _ask_for(body: dict[str, Any], config: dict[str, Any], answer: Answer, model: str) -> None:
    """In a promised form; as a call where the model can't have tools beside that."""
    if not body.get("tools") or generation(model) >= 3:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = answer.schema
        return
    declared = {
        "name": answer_tool.NAME,
        "description": answer_tool.described(answer),
        "parametersJsonSchema": answer.schema,
    }
    body["tools"][0]["functionDeclarations"].append(declared)
    body["toolConfig"] = {"functionCallingConfig": {"mode": "ANY"}}


def _contents(messages: list[Message]) -> list[dict[str, Any]]:
    """Messages in turns; a tool's result names the tool that was called before."""
    called: dict[str, ToolCall] = {}

    def parts(message: Message) -> list[dict[str, Any]]:
        called.update({call.id: call for call in message.tool_calls})
        return _parts(message, called)

    return [{"role": "model" if models else "user", "parts": said} for models, said in turns(messages, parts)]


def _parts(message: Message, called: dict[str, ToolCall]) -> list[dict[str, Any]]:
    if message.role == "tool":
        call = called.get(message.call)
        answer: dict[str, Any] = {"name": call.name if call else "", "response": {"result": text_of(message)}}
        if not _made_up(message.call):
            answer = {"id": message.call, **answer}
        return [{"functionResponse": answer}]
    if (kept := message.opaque.get(PROTOCOL)) is not None:
        return list(kept)
    said = message.content if isinstance(message.content, list) else [message.content]
    parts = [_part(each) for each in said if each]
    for call in message.tool_calls:
        made = {"name": call.name, "args": object_of(call.arguments)}
        parts.append({"functionCall": made if _made_up(call.id) else {"id": call.id, **made}})
    return parts


def _part(part: str | File) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if part.url:
        return {"fileData": {"mimeType": part.media, "fileUri": part.url}}
    return {"inlineData": {"mimeType": part.media, "data": part.data}}


def embed_body(texts: Sequence[str], model: str) -> dict[str, Any]:
    """The body of a request for embeddings."""
    name = f"models/{model.removeprefix('models/')}"
    requests = [{"model": name, "content": {"parts": [{"text": text}]}} for text in texts]
    return {"model": model, "requests": requests}


# ---------------------------------------------------------------- replies
class _Call(msgspec.Struct):
    name: str | None = None
    id: str | None = None
    args: dict[str, Any] | None = None


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    function_call: _Call | None = None
    thought_signature: str | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Web(msgspec.Struct):
    uri: str | None = None
    title: str | None = None


class _Chunk(msgspec.Struct):
    web: _Web | None = None


class _Segment(msgspec.Struct, rename="camel"):
    start_index: int | None = None
    end_index: int | None = None
    text: str | None = None


class _Support(msgspec.Struct, rename="camel"):
    segment: _Segment | None = None
    grounding_chunk_indices: list[int] | None = None


class _Grounding(msgspec.Struct, rename="camel"):
    grounding_chunks: list[_Chunk] | None = None
    grounding_supports: list[_Support] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    grounding_metadata: _Grounding | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Usage(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None


class _Reply(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None


class _Vector(msgspec.Struct):
    values: list[float]


class _Vectors(msgspec.Struct, rename="camel"):
    embeddings: list[_Vector]
    usage_metadata: _Usage | None = None


class _RawContent(msgspec.Struct):
    parts: list[dict[str, Any]] = []


class _RawCandidate(msgspec.Struct):
    content: _RawContent


class _Raw(msgspec.Struct):
    candidates: list[_RawCandidate]


_reply = msgspec.json.Decoder(_Reply)
_raw = msgspec.json.Decoder(_Raw)
_vectors = msgspec.json.Decoder(_Vectors)

_STOPS: dict[str, Stop] = {"STOP": "end", "MAX_TOKENS": "length"}
#: Ends of an answer that is none: asked again, the model may do better.
_BROKEN = frozenset(
    {"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "MISSING_THOUGHT_SIGNATURE"}
    | {"TOO_MANY_TOOL_CALLS", "OTHER", "FINISH_REASON_UNSPECIFIED"}
)


def chat_reply(body: bytes) -> ChatReply:
    """What a body says. Raises `ValueError` with the problem where it isn't a reply."""
    reply = _reply.decode(body)
    if not reply.candidates:
        reason = reply.prompt_feedback.block_reason if reply.prompt_feedback is not None else None
        if reason is None:
            raise ValueError("it has no candidates")
        return ChatReply(
            "", stop="filter", tokens=_tokens(reply.usage_metadata), model=reply.model_version or ""
        )
    candidate = reply.candidates[0]
    finish = candidate.finish_reason
    if finish is None or finish in _BROKEN:
        told = f" ({candidate.finish_message})" if candidate.finish_message else ""
        raise ValueError(f"it isn't whole: finishReason {finish or 'missing'}{told}")
    parts = (candidate.content.parts if candidate.content is not None else None) or []
    calls = [
        _called(part.function_call, at) for at, part in enumerate(parts) if part.function_call is not None
    ]
    answers = [call for call in calls if call.name == answer_tool.NAME]
    calls = [call for call in calls if call.name != answer_tool.NAME]
    text = "".join(part.text for part in parts if part.text and not part.thought)
    thoughts = "".join(part.text for part in parts if part.text and part.thought)
    stop: Stop = "tool" if calls else _STOPS.get(finish, "filter")
    signed = bool(calls) and any(part.thought_signature for part in parts)
    return ChatReply(
        text=answers[0].arguments if answers and not calls else text,
        tool_calls=calls,
        stop=stop,
        tokens=_tokens(reply.usage_metadata),
        model=reply.model_version or "",
        reasoning=thoughts or None,
        opaque={PROTOCOL: _raw.decode(body).candidates[0].content.parts} if signed else {},
        citations=_citations(candidate.grounding_metadata, text),
    )


def _called(call: _Call, number: int) -> ToolCall:
    if not call.name:
        raise ValueError(f"its function call {number} has no name")
    return ToolCall(call.id or f"call_{number}", call.name, msgspec.json.encode(call.args or {}).decode())


def _made_up(ident: str) -> bool:
    """Whether an id is ours: earlier models give none, and take none."""
    return re.fullmatch(r"call_\d+", ident) is not None


def _citations(grounding: _Grounding | None, text: str) -> list[Citation]:
    """Where parts of the text come from. The service counts in bytes of UTF-8."""
    if grounding is None:
        return []
    chunks = [chunk.web for chunk in grounding.grounding_chunks or ()]
    data = text.encode()
    found: list[Citation] = []
    for support in grounding.grounding_supports or ():
        segment = support.segment or _Segment()
        start, end = segment.start_index or 0, segment.end_index or 0
        for number in support.grounding_chunk_indices or ():
            web = chunks[number] if number < len(chunks) else None
            if web is not None:
                place = len(data[:start].decode("utf-8", "ignore")), len(data[:end].decode("utf-8", "ignore"))
                found.append(Citation(url=web.uri or "", title=web.title or "", start=place[0], end=place[1]))
    return found


def _tokens(usage: _Usage | None) -> Tokens:
    if usage is None:
        return Tokens()
    return Tokens(
        (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
        (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0),
        usage.cached_content_token_count or 0,
    )


def embed_reply(body: bytes) -> tuple[list[list[float]], int]:
    """Vectors in the order of the texts, and input tokens, 0 where they aren't told. Raises `ValueError`."""
    reply = _vectors.decode(body)
    if not reply.embeddings:
        raise ValueError("it has no embeddings")
    return [each.values for each in reply.embeddings], _tokens(reply.usage_metadata).input
