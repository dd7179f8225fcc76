"""What the simulated model says: scripted, by a rule, or by inventing something valid."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import msgspec

from segue.core.codec import encode
from segue.model.errors import InvalidValue, NotEncodable

from .schema import instance

if TYPE_CHECKING:
    from ..fake_model import ToolUse

__all__ = [
    "Failure",
    "Reply",
    "Rule",
    "Said",
    "Script",
    "ToolCall",
    "ToolCalls",
    "as_reply",
    "default_rule",
    "text_of",
]


class Failure(Exception):
    """An answer other than 200, in the provider's shape. A rule returns or raises it."""

    def __init__(
        self,
        status: int,
        message: str = "",
        *,
        code: str | None = None,
        type: str = "",
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.message = message or f"The simulator was told to answer {status}"
        self.code = code
        self.type = type or ("server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error"))
        self.param = param
        self.retry_after = retry_after
        super().__init__(self.message)


_TYPES = {401: "invalid_api_key", 429: "rate_limit_error"}


class ToolCall:
    """A call that the model asks for; without `id` it is given one."""

    def __init__(self, name: str, arguments: dict[str, Any] | None = None, *, id: str | None = None) -> None:
        self.name = name
        self.arguments = arguments or {}
        self.id = id


class ToolCalls:
    """Several calls at once, with or without a text."""

    def __init__(self, *calls: ToolCall, text: str | None = None) -> None:
        self.calls = calls
        self.text = text


class Said:
    """An answer with all that may come with one.

    `stop` is `stop`, `length`, `tool_calls`, `content_filter` or `refusal`; without one it follows from the rest.
    `cites` are URLs that back the text, `cached` is how many tokens of the prompt were read from a cache.
    """

    def __init__(
        self,
        text: str = "",
        *calls: ToolCall,
        thinking: str = "",
        stop: str = "",
        cites: Sequence[str] = (),
        cached: int = 0,
    ) -> None:
        self.text = text
        self.calls = calls
        self.thinking = thinking
        self.cites = tuple(cites)
        self.cached = cached
        self.stop = stop or ("tool_calls" if calls else "stop")


#: A string is said as it is, other JSON values as JSON; a dict that is a `chat.completion` is the answer.
Reply: TypeAlias = (
    "str | dict[str, Any] | list[Any] | int | float | bool | ToolCall | ToolCalls | Said | Failure | None"
)

#: From the request's body to what is said.
Rule: TypeAlias = "Callable[[dict[str, Any]], Reply | Awaitable[Reply]]"


class Script:
    """Replies for requests that contain a text.

    The `when` with the longest text that stands in the request's messages answers, of equal ones the last, as
    with a `FakeModel`; its replies are given in turn, the last one for ever.
    """

    def __init__(self) -> None:
        self._scenes: list[Scene] = []

    def when(self, contains: str) -> Scene:
        """Begin a scene: what is said when the messages contain this text."""
        self._scenes.append(scene := Scene(contains))
        return scene

    def load(self, path: Path) -> None:
        """Scenes from a file; of one text the lines answer in turn. Raises `InvalidValue`."""
        scenes: dict[str, Scene] = {}
        for told in _read(path):
            scene = scenes.get(told.when) or scenes.setdefault(told.when, self.when(told.when))
            scene.reply(told.said())

    def next(self, body: dict[str, Any]) -> tuple[bool, Reply]:
        """Whether a scene fits, and what it says."""
        text = text_of(body)
        fitting = [scene for scene in reversed(self._scenes) if scene.fits(text)]
        if not fitting:
            return False, None
        return True, max(fitting, key=lambda scene: len(scene.contains)).next()


class _Told(msgspec.Struct, forbid_unknown_fields=True):
    """A line of a script."""

    when: str
    reply: Any = msgspec.UNSET
    tool: str = ""
    arguments: dict[str, Any] = {}
    status: int = 0
    message: str = ""

    def __post_init__(self) -> None:
        kinds = (
            self.reply is not msgspec.UNSET,
            bool(self.tool or self.arguments),
            bool(self.status or self.message),
        )
        if sum(kinds) != 1:
            raise ValueError("it says nothing" if not any(kinds) else "it says more than one")
        if kinds[1] and not self.tool:
            raise ValueError("its arguments are of no tool")
        if kinds[2] and not 400 <= self.status <= 599:
            raise ValueError(f"{self.status} is the status of no error: they go from 400 to 599")

    def said(self) -> Reply:
        if self.status:
            return Failure(self.status, self.message)
        made: Reply = ToolCall(self.tool, self.arguments) if self.tool else self.reply
        return made


def _read(path: Path) -> list[_Told]:
    form = 'lines as {"when": TEXT, "reply": VALUE}, or with tool or status instead of reply'
    try:
        lines = list(enumerate(path.read_bytes().splitlines(), 1))
    except OSError as problem:
        raise InvalidValue(str(path), form, problem.strerror or repr(problem)) from None
    told: list[_Told] = []
    for number, line in lines:
        try:
            if line.strip():
                told.append(msgspec.json.decode(line, type=_Told))
        except msgspec.DecodeError as problem:
            raise InvalidValue(f"{path}, line {number}", form, str(problem)) from None
    return told


class Scene:
    """One `when` of a script."""

    def __init__(self, contains: str) -> None:
        self.contains = contains
        self._replies: list[Reply] = []
        self._given = 0

    def reply(self, *replies: Reply | ToolUse) -> Self:
        """Say these, one a request; called again it adds to them. Raises `TypeError` for what no reply can be.

        A `ToolUse`, as a `FakeModel` takes it, is a `ToolCall`; a list of either is one reply.
        """
        self._replies.extend(map(as_reply, replies))
        return self

    def fits(self, text: str) -> bool:
        """Whether this scene answers such a request."""
        return bool(self._replies) and self.contains in text

    def next(self) -> Reply:
        """The reply whose turn it is."""
        reply = self._replies[min(self._given, len(self._replies) - 1)]
        self._given += 1
        return reply


def as_reply(reply: Any) -> Reply:
    """What a script or a rule gives, as a reply. Raises `TypeError` for what none can be."""
    if isinstance(reply, str | ToolCall | ToolCalls | Said | Failure):
        return reply
    many: list[Any] = reply if isinstance(reply, list) and reply else [reply]
    if isinstance(many[0], ToolCall) or type(many[0]).__name__ == "ToolUse":
        calls = [use if isinstance(use, ToolCall) else ToolCall(use.name, use.arguments) for use in many]
        return calls[0] if reply is many[0] else ToolCalls(*calls)
    try:
        said: Reply = msgspec.json.decode(encode(reply))
    except NotEncodable as error:
        cure = "give a text, a JSON value, a ToolCall, ToolCalls, Said or Failure"
        problem = f"{error.path or 'it'} is {error.value_type}, which JSON can't carry"
        raise TypeError(f"{reply!r} is no reply: {problem}; {cure}") from None
    return said


def default_rule(body: dict[str, Any]) -> Reply:
    """Always the same for the same request, and valid for it.

    A JSON schema's smallest instance; the tool that had to be called, with the smallest arguments; else an
    echo of the last user message.
    """
    schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
    if schema is not None:
        return _invented(schema)
    if (body.get("response_format") or {}).get("type") == "json_object":
        return {}
    if (tool := _demanded(body)) is not None:
        return ToolCall(tool["name"], instance(tool.get("parameters") or {}))
    users = [message for message in body.get("messages", []) if message.get("role") == "user"]
    return f"You said: {text_of({'messages': users[-1:]})}"


def text_of(body: dict[str, Any]) -> str:
    """All text in a request's messages, a line each."""
    return "\n".join(_texts(message) for message in body.get("messages", []) if isinstance(message, dict))


def _texts(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part, dict) and "text" in part)
    return content if isinstance(content, str) else ""


def _invented(schema: dict[str, Any]) -> Reply:
    made: Reply = instance(schema)
    return made if not isinstance(made, str) else f'"{made}"'


def _demanded(body: dict[str, Any]) -> dict[str, Any] | None:
    choice = body.get("tool_choice")
    tools: list[dict[str, Any]] = [tool["function"] for tool in body.get("tools") or [] if "function" in tool]
    if choice == "required" and tools:
        return tools[0]
    if isinstance(choice, dict):
        name = choice.get("function", {}).get("name")
        return next((tool for tool in tools if tool["name"] == name), None)
    return None
