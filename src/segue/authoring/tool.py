"""Tools: plain typed functions that a model may call."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, ParamSpec

import msgspec

from ..core.codec import encode, encode_stable
from ..core.toolshape import ToolShape
from ..model.chat import ToolCall, ToolSpec
from ..model.errors import AuthorError, InvalidValue
from .ask import form_of, put
from .context import Branch, current
from .flow import FlowDef, definition
from .step import StepDef, carry_out, make

P = ParamSpec("P")


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person's word on a tool call, as it is stored."""

    decision: Literal["approve", "deny", "edit"]
    reason: str = ""
    arguments: dict[str, Any] = {}


def is_decision(form: Mapping[str, Any]) -> bool:
    """Whether that is the form of an answer which says whether a tool may be called."""
    return set(form.get("properties", ())) == set(Decision.__struct_fields__)


class Approve:
    """The tool may be called as the model wants."""

    def plain(self) -> Decision:
        return Decision("approve")


class Deny:
    """The tool isn't called; the model sees the reason."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason

    def plain(self) -> Decision:
        return Decision("deny", self.reason)


class Edit:
    """The tool is called with these arguments in place of the model's; others stay."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments

    def plain(self) -> Decision:
        return Decision("edit", arguments=self.arguments)


class Tool:
    """A function, and the conditions under which a model may call it."""

    def __init__(
        self, fn: Callable[..., Any], approve: bool | Callable[..., bool], to: str, options: Any
    ) -> None:
        self.approve, self.to = approve, to
        known = definition(fn)
        self.flow = known if isinstance(known, FlowDef) else None
        plain = known.fn if known is not None else fn
        self.shape = ToolShape.of(plain, name=options.get("name", ""))
        if isinstance(known, StepDef) and not options:
            self.step = known
        else:
            how: dict[str, Any] = {"name": self.shape.name, **options}
            self.step = make(plain, **how)

    @property
    def spec(self) -> ToolSpec:
        """As a model is told of it."""
        return ToolSpec(self.shape.name, self.shape.description, self.shape.schema)

    @functools.cached_property
    def form(self) -> dict[str, Any]:
        """The schema of a person's decision: what they edit are arguments of this tool."""
        arguments = {
            name: part for name, part in self.shape.plain.items() if name not in ("$defs", "required")
        }
        form = copy.deepcopy(form_of(Decision))
        form["properties"]["arguments"] = arguments | {"additionalProperties": False, "default": {}}
        return form | {"$defs": self.shape.plain["$defs"]} if "$defs" in self.shape.plain else form


def tool(
    fn: Callable[P, Any], /, *, approve: bool | Callable[P, bool] = False, to: str = "", **options: Any
) -> Tool:
    """Say more of a tool than its function does.

    `approve`: whether a person must agree, always or for some arguments; `to` says who. They may edit the
    arguments, or deny with a reason that the model sees. The rest are options of `step`; a `name` is what the model
    calls it, too.
    """
    return Tool(fn, approve, to, options)


def as_tools(given: Any) -> dict[str, Tool]:
    """By name, what stands in `tools=`. Raises `TypeError` for what can't."""
    if callable(given) or isinstance(given, Tool):
        raise TypeError("tools= takes a list of functions; write tools=[…] for one, too")
    tools: dict[str, Tool] = {}
    for thing in given:
        if not callable(thing) and not isinstance(thing, Tool):
            raise TypeError(f"tools= holds {thing!r}, and a tool is a function: name it, don't call it")
        known = thing if isinstance(thing, Tool) else _made(thing)
        if tools.setdefault(known.shape.name, known) is not known:
            name = known.shape.name
            raise TypeError(
                f"two tools are called {name!r}: call one otherwise, segue.tool({name}, name='…')"
            )
    return tools


@functools.lru_cache(maxsize=1024)  # many are closures, of which each life of a run makes its own
def _made(fn: Callable[..., Any]) -> Tool:
    return Tool(fn, False, "", {})


async def call_tool(tools: dict[str, Tool], call: ToolCall) -> str:
    """What the model gets to read of a tool call: its result, or what went wrong."""
    branch = current("generate")
    known = tools.get(call.name)
    if known is None:
        return f"Error: there is no tool {call.name!r}; there are {', '.join(tools)}"
    try:
        arguments = known.shape.bind(call.arguments)
    except InvalidValue as error:
        return f"Error: {error}"
    if known.approve is True or (callable(known.approve) and known.approve(**arguments)):
        decided = await _approved(branch, known, arguments)
        if isinstance(decided, str):
            return decided
        arguments = decided
    try:
        return _text(await _perform(branch, known, arguments))
    except AuthorError:
        raise
    except Exception as error:  # the model is told, and may try otherwise
        return f"Error: {type(error).__name__}: {error}"


async def _approved(branch: Branch, tool: Tool, arguments: dict[str, Any]) -> dict[str, Any] | str:
    """The arguments as a person approved them, or what the model is told where they didn't."""
    shown, problem = {"tool": tool.shape.name, "arguments": arguments}, ""
    while True:
        question = f"{problem}May {tool.shape.name} be called?"
        decision: Decision = await put(branch, question, Decision, show=shown, to=tool.to, form=tool.form)
        if decision.decision == "deny":
            return f"Denied by a person{f': {decision.reason}' if decision.reason else ''}"
        if decision.decision == "approve":
            return arguments
        try:
            return tool.shape.bind(encode({**arguments, **decision.arguments}))
        except (
            InvalidValue
        ) as error:  # fits the schema and not the type, or was recorded with another version
            problem = f"That didn't fit: {error}. "


async def _perform(branch: Branch, tool: Tool, arguments: dict[str, Any]) -> Any:
    if tool.flow is not None:
        return await tool.flow.begin((), arguments)
    return await carry_out(branch, tool.step, (), arguments)


def _text(value: object) -> str:
    return value if isinstance(value, str) else encode_stable(value).decode()
