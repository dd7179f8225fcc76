"""What is known of an actor class: its fields and handlers, checked, and where they lead."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import typing
from typing import Any

import msgspec

from ...core.codec import decoder, encode
from ...core.forms import members
from ...model.errors import BadSignature
from ...model.mode import Config, as_mode
from ...model.run import Spec
from ...ports.store import Claimed
from ..flow import fingerprint
from ..mail import message_name
from ..message import Request, response_type
from .driver import Driver, Life
from .marks import Mark
from .nexts import Again, Done, Fail, Listen


class Handler(msgspec.Struct):
    """One marked method. `takes` is its argument's type, `gives` a request's answer's."""

    method: str
    takes: Any
    gives: Any
    mode: Any
    is_async: bool
    is_request: bool


class ActorDef:
    """What is known of an actor class."""

    def __init__(self, cls: type[Any], result: Any) -> None:
        self.cls, self.result_type = cls, result
        self.name = cls.__qualname__.replace("<locals>.", "")
        self._table: tuple[dict[str, Handler], dict[str, Handler]] | None = None

    @property
    def version(self) -> str:
        """A fingerprint of the source."""
        return fingerprint(self.cls)

    def read_result(self, value: bytes) -> Any:
        """Its result, typed by what it is an `Actor` of."""
        return decoder(self.result_type)(value)

    def spec(self, actor: Any, config: Config, now: float) -> Spec:
        """The record of a run of it; also checks the class."""
        self.check()
        fields = {
            name: msgspec.Raw(encode(getattr(actor, name), where=f"{self.name}.{name}"))
            for name in self.durable
        }
        return Spec(
            kind="actor",
            target=self.name,
            args=msgspec.json.encode(fields),
            config=config,
            version=self.version,
            python=f"{sys.version_info[0]}.{sys.version_info[1]}",
            created=now,
        )

    @functools.cached_property
    def durable(self) -> dict[str, Any]:
        """Its durable fields and their types."""
        hints = typing.get_type_hints(self.cls, include_extras=True)
        return {
            part.name: hints[part.name]
            for part in dataclasses.fields(self.cls)
            if part.metadata.get("durable", True)
        }

    # ------------------------------------------------------------ handlers
    def table(self) -> tuple[dict[str, Handler], dict[str, Handler]]:
        """Handlers of states and of messages, by the name of what they take."""
        if self._table is None:
            states: dict[str, Handler] = {}
            messages: dict[str, Handler] = {}
            for name, fn in inspect.getmembers(self.cls, inspect.isfunction):
                mark: Mark | None = getattr(fn, "__segue_mark__", None)
                if mark is not None:
                    handler = self._handler(name, fn, mark)
                    table, takes = states if mark.kind == "state" else messages, message_name(handler.takes)
                    if takes in table:
                        raise BadSignature(
                            f"{self.name}.{name}",
                            f"{table[takes].method}() takes a {takes} too",
                            "give each state and each message one handler",
                        )
                    table[takes] = handler
            self._table = states, messages
        return self._table

    def _handler(self, name: str, fn: Any, mark: Mark) -> Handler:
        where = f"{self.name}.{name}"
        try:
            hints = typing.get_type_hints(fn)
        except NameError as error:
            raise BadSignature(
                where, f"an annotation can't be read: {error}", "import what it names"
            ) from None
        parameters = list(inspect.signature(fn).parameters)
        if len(parameters) != 2 or parameters[1] not in hints:
            cure = "write it as `(self, x: Kind)`: the type names the state or message"
            raise BadSignature(where, "a handler takes one annotated argument", cure)
        takes = hints[parameters[1]]
        is_request = isinstance(takes, type) and issubclass(takes, Request)
        gives = response_type(takes) if is_request else None
        mode = None if mark.mode is None else as_mode(mark.mode)
        return Handler(name, takes, gives, mode, inspect.iscoroutinefunction(fn), is_request)

    def check(self) -> None:
        """Raise `BadSignature` for an edge to a state that has no handler."""
        states, _ = self.table()
        for source, fn in [
            ("begin", self.cls.begin),
            *((h.method, getattr(self.cls, h.method)) for h in states.values()),
        ]:
            for target in _targets(fn):
                if message_name(target) not in states:
                    known = ", ".join(sorted(states)) or "none"
                    raise BadSignature(
                        f"{self.name}.{source}",
                        f"it leads to the state {message_name(target)}, which has no handler",
                        f"add a @state method that takes one; the states are {known}",
                    )

    # ------------------------------------------------------------ a life
    async def code(self, claimed: Claimed, life: Life) -> bytes:
        """The coroutine that a run of it consists of: one turn after the other, each sealed by a commit."""
        return await Driver(self, claimed, life).run()


def _targets(fn: Any) -> list[Any]:
    """The states that a handler's return annotation names."""
    hints = typing.get_type_hints(fn)
    out = []
    for part in members(hints.get("return")) or (hints.get("return"),):
        kind = typing.get_origin(part) or part
        if isinstance(kind, type) and kind not in (Listen, Again, Done, Fail, object, type(None)):
            out.append(kind)
    return out
