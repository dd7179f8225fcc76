"""segue: write an LLM workflow once, in plain Python; run it live, or over a million rows in batch, durable in both."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors as errors
    from . import testing as testing
    from .authoring.actor.actor import Actor as Actor
    from .authoring.actor.actor import Work as Work
    from .authoring.actor.envelope import Envelope as Envelope
    from .authoring.actor.envelope import Turn as Turn
    from .authoring.actor.graph import diagram as diagram
    from .authoring.actor.interruption import Interrupt as Interrupt
    from .authoring.actor.interruption import Interruption as Interruption
    from .authoring.actor.marks import fallback as fallback
    from .authoring.actor.marks import field as field
    from .authoring.actor.marks import kind as kind
    from .authoring.actor.marks import on as on
    from .authoring.actor.marks import state as state
    from .authoring.actor.migration import Stored as Stored
    from .authoring.actor.nexts import Again as Again
    from .authoring.actor.nexts import Answer as Answer
    from .authoring.actor.nexts import Done as Done
    from .authoring.actor.nexts import Fail as Fail
    from .authoring.actor.nexts import Interrupted as Interrupted
    from .authoring.actor.nexts import Listen as Listen
    from .authoring.actor.subscription import Subscription as Subscription
    from .authoring.actor.subscription import publish as publish
    from .authoring.actor.supervisor import Ended as Ended
    from .authoring.ask import ask as ask
    from .authoring.config import How as How
    from .authoring.config import using as using
    from .authoring.context import Parked as Parked
    from .authoring.emit import emit as emit
    from .authoring.flow import flow as flow
    from .authoring.generate import Options as Options
    from .authoring.generate import Reply as Reply
    from .authoring.generate import embed as embed
    from .authoring.generate import generate as generate
    from .authoring.http import http_client as http_client
    from .authoring.iterables import batched as batched
    from .authoring.iterables import merged as merged
    from .authoring.iterables import windowed as windowed
    from .authoring.mail import receive as receive
    from .authoring.mail import tell as tell
    from .authoring.map import Mapped as Mapped
    from .authoring.map import Outcome as Outcome
    from .authoring.map import map as map
    from .authoring.message import Mailbox as Mailbox
    from .authoring.message import Note as Note
    from .authoring.message import Pong as Pong
    from .authoring.message import Request as Request
    from .authoring.message import Responder as Responder
    from .authoring.message import Response as Response
    from .authoring.resource import resource as resource
    from .authoring.step import StepOptions as StepOptions
    from .authoring.step import idempotency_key as idempotency_key
    from .authoring.step import step as step
    from .authoring.stopping import should_stop as should_stop
    from .authoring.time import now as now
    from .authoring.time import random as random
    from .authoring.time import sleep as sleep
    from .authoring.time import timeout as timeout
    from .authoring.time import uuid as uuid
    from .authoring.tool import Approve as Approve
    from .authoring.tool import Deny as Deny
    from .authoring.tool import Edit as Edit
    from .authoring.tool import Tool as Tool
    from .authoring.tool import tool as tool
    from .core.restarts import Restart as Restart
    from .core.retry import Retry as Retry
    from .model.budget import Budget as Budget
    from .model.chat import File as File
    from .model.chat import Message as Message
    from .model.errors import SegueError as SegueError
    from .model.mode import Batch as Batch
    from .model.mode import Live as Live
    from .model.upkeep import Summarise as Summarise
    from .model.upkeep import Trim as Trim
    from .providers.declared import provider as provider
    from .runtime.engine import Engine as Engine
    from .runtime.ground.events import Asked as Asked
    from .runtime.ground.events import Event as Event
    from .runtime.ground.events import Finished as Finished
    from .runtime.ground.events import Recorded as Recorded
    from .runtime.ground.events import Retrying as Retrying
    from .runtime.ground.events import Token as Token
    from .runtime.ground.events import Waiting as Waiting
    from .runtime.handles import Ask as Ask
    from .runtime.handles import Recipient as Recipient
    from .runtime.handles import Run as Run
    from .runtime.interruption import interruptible as interruptible
    from .runtime.job import Job as Job
    from .runtime.mail.exchange import Exchange as Exchange
    from .runtime.mail.feed import Feed as Feed
    from .runtime.receipt import Receipt as Receipt
    from .runtime.verbs import me as me
    from .runtime.verbs import spawn as spawn

#: Where each public name lives; loaded when first used, so that importing segue costs little.
_HOMES = {
    "diagram": "authoring.actor.graph",
    "kind": "authoring.actor.marks",
    "fallback": "authoring.actor.marks",
    "Work": "authoring.actor.actor",
    "Interrupted": "authoring.actor.nexts",
    "Ended": "authoring.actor.supervisor",
    "Restart": "core.restarts",
    "Interruption": "authoring.actor.interruption",
    "Interrupt": "authoring.actor.interruption",
    "interruptible": "runtime.interruption",
    "Turn": "authoring.actor.envelope",
    "Envelope": "authoring.actor.envelope",
    "Request": "authoring.message",
    "Subscription": "authoring.actor.subscription",
    "provider": "providers.declared",
    "publish": "authoring.actor.subscription",
    "Feed": "runtime.mail.feed",
    "Mailbox": "authoring.message",
    "Response": "authoring.message",
    "Responder": "authoring.message",
    "Pong": "authoring.message",
    "Recipient": "runtime.handles",
    "Exchange": "runtime.mail.exchange",
    "Note": "authoring.message",
    "state": "authoring.actor.marks",
    "on": "authoring.actor.marks",
    "field": "authoring.actor.marks",
    "Listen": "authoring.actor.nexts",
    "Fail": "authoring.actor.nexts",
    "Done": "authoring.actor.nexts",
    "Answer": "authoring.actor.nexts",
    "Again": "authoring.actor.nexts",
    "Actor": "authoring.actor.actor",
    "Approve": "authoring.tool",
    "Ask": "runtime.handles",
    "Asked": "runtime.ground.events",
    "Batch": "model.mode",
    "Budget": "model.budget",
    "Deny": "authoring.tool",
    "Edit": "authoring.tool",
    "Engine": "runtime.engine",
    "Event": "runtime.ground.events",
    "File": "model.chat",
    "Finished": "runtime.ground.events",
    "How": "authoring.config",
    "Job": "runtime.job",
    "Live": "model.mode",
    "Mapped": "authoring.map",
    "Message": "model.chat",
    "Options": "authoring.generate",
    "Outcome": "authoring.map",
    "Parked": "authoring.context",
    "Receipt": "runtime.receipt",
    "Recorded": "runtime.ground.events",
    "Reply": "authoring.generate",
    "Retry": "core.retry",
    "Retrying": "runtime.ground.events",
    "Run": "runtime.handles",
    "SegueError": "model.errors",
    "StepOptions": "authoring.step",
    "Stored": "authoring.actor.migration",
    "Summarise": "model.upkeep",
    "Token": "runtime.ground.events",
    "Waiting": "runtime.ground.events",
    "Tool": "authoring.tool",
    "Trim": "model.upkeep",
    "ask": "authoring.ask",
    "batched": "authoring.iterables",
    "embed": "authoring.generate",
    "emit": "authoring.emit",
    "flow": "authoring.flow",
    "generate": "authoring.generate",
    "http_client": "authoring.http",
    "idempotency_key": "authoring.step",
    "map": "authoring.map",
    "me": "runtime.verbs",
    "merged": "authoring.iterables",
    "now": "authoring.time",
    "random": "authoring.time",
    "receive": "authoring.mail",
    "resource": "authoring.resource",
    "should_stop": "authoring.stopping",
    "sleep": "authoring.time",
    "spawn": "runtime.verbs",
    "step": "authoring.step",
    "tell": "authoring.mail",
    "timeout": "authoring.time",
    "tool": "authoring.tool",
    "using": "authoring.config",
    "uuid": "authoring.time",
    "windowed": "authoring.iterables",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("errors", "testing"):  # as modules of a package are found that something has imported
        return importlib.import_module(f"segue.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'segue' has no attribute {name!r}{_meant(name)}")
    value = getattr(importlib.import_module(f"segue.{home}"), name)
    globals()[name] = value
    return value


def _meant(name: str) -> str:
    """What may be meant by a name that isn't here."""
    if name.startswith("_"):  # asked for by programs
        return ""
    for module in ("errors", "testing"):
        if name in importlib.import_module(f"segue.{module}").__all__:
            return f"; it is segue.{module}.{name}"
    from difflib import get_close_matches

    near = get_close_matches(name, _HOMES, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
