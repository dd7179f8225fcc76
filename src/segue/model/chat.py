"""A model call in words that fit every provider: the author's side of the wire."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from . import checks
from .errors import InvalidValue

Role = Literal["system", "user", "assistant", "tool"]
_ROLES = get_args(Role)


class File(msgspec.Struct, frozen=True, tag="file", omit_defaults=True):
    """A picture, sound or document as part of a message.

    `File("chart.png")` reads a path, `File(data, media="image/png")` takes bytes, and a URL is left for the
    provider to fetch. `data` is base64; `source` stays for a URL only.
    """

    source: Any = ""
    media: str = ""
    data: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        source = self.source
        if isinstance(source, bytes):
            self._take(source, "", "application/octet-stream")
        elif source and not self.url:
            kind = mimetypes.guess_type(source)[0] or "application/octet-stream"
            self._take(Path(source).read_bytes(), Path(source).name, kind)
        elif source and not self.media:
            kind = mimetypes.guess_type(source)[0] or "application/octet-stream"
            msgspec.structs.force_setattr(self, "media", kind)

    def _take(self, content: bytes, name: str, media: str) -> None:
        put = msgspec.structs.force_setattr
        put(self, "source", "")
        put(self, "data", base64.b64encode(content).decode())
        put(self, "name", self.name or name)
        put(self, "media", self.media or media)

    @property
    def url(self) -> str:
        """Where the provider finds it; empty if its content is here."""
        source = self.source
        return source if isinstance(source, str) and source.startswith(("http://", "https://")) else ""


class ToolCall(msgspec.Struct, frozen=True):
    """A model's wish to have a tool called; `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation. `call` is, of a `tool` message, the id of the call that it answers.

    `opaque` is what a provider wants to have back with its message, such as signed thoughts, by the name of
    its protocol; other providers leave it out.
    """

    role: Role
    content: str | list[str | File] = ""
    tool_calls: list[ToolCall] = []
    call: str = ""
    opaque: dict[str, Any] = {}

    def __post_init__(self) -> None:
        checks.one_of("role of Message()", self.role, _ROLES)


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as a model is told of it. `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]


class Answer(msgspec.Struct, frozen=True):
    """The form in which an answer is wanted: a JSON schema fit for strict mode, and a name for it."""

    name: str
    schema: dict[str, Any]


class ChatRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked of a model, before a provider's dress."""

    messages: list[Message]
    tools: list[ToolSpec] = []
    answer: Answer | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    reasoning: Literal["none", "low", "medium", "high"] | None = None
    extra: dict[str, Any] = {}


Stop = Literal["end", "length", "refusal", "tool", "filter"]


class Tokens(msgspec.Struct, frozen=True):
    """Tokens of one call. Of `input`, `cached` were read from the provider's cache and `written` into it."""

    input: int = 0
    output: int = 0
    cached: int = 0
    written: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.output + other.output,
            self.cached + other.cached,
            self.written + other.written,
        )


class Citation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a part of an answer comes from: a place on the web, or a file.

    `start` and `end` say which part of the text it backs, in characters, where the provider tells; `quote` is
    what the source says, `file` its name or id.
    """

    url: str = ""
    title: str = ""
    file: str = ""
    quote: str = ""
    start: int | None = None
    end: int | None = None


class ChatReply(msgspec.Struct, frozen=True):
    """What a model said; `opaque` as in `Message`. `reused`: for a request that was answered before."""

    text: str
    tool_calls: list[ToolCall] = []
    stop: Stop = "end"
    tokens: Tokens = Tokens()
    model: str = ""
    reasoning: str | None = None
    opaque: dict[str, Any] = {}
    citations: list[Citation] = []
    reused: bool = False


def as_messages(prompt: str | File | Sequence[Message | str | File]) -> list[Message]:
    """A prompt as messages: loose texts and files side by side are one message of the user.

    Raises `InvalidValue` for what is none of these, and for nothing.
    """
    if isinstance(prompt, str):
        return [Message("user", prompt)]
    items = [prompt] if isinstance(prompt, File | Message) else prompt
    _check_prompt(items)
    out: list[Message] = []
    for loose, group in groupby(items, key=_is_loose):
        parts = list(group)
        if not loose:
            out.extend(part for part in parts if isinstance(part, Message))
        else:
            content = [part for part in parts if not isinstance(part, Message)]
            only = content[0] if len(content) == 1 else None
            out.append(Message("user", only if isinstance(only, str) else content))
    return out


def _check_prompt(items: Any) -> None:
    wanted = 'a text, or a list of segue.Message("user", …), texts and segue.File(…)'
    if not isinstance(items, Sequence) or isinstance(items, bytes) or not items:
        problem = "it is empty" if isinstance(items, Sequence) and not items else f"it is {items!r:.80}"
        raise InvalidValue("the prompt of generate()", wanted, problem)
    for item in items:
        if not isinstance(item, Message | str | File):
            raise InvalidValue("the prompt of generate()", wanted, f"one of it is {item!r:.80}")


def _is_loose(item: Message | str | File) -> bool:
    return not isinstance(item, Message)
