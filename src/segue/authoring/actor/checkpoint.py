"""What is stored of an actor between two turns."""

from __future__ import annotations

import msgspec

from ...core.restarts import Kind
from ...model.entry import Failure


class End(msgspec.Struct, omit_defaults=True):
    """How an actor ends, while its `teardown` is still to come: with a value or an error, or interrupted."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None
    interrupted: bool = False
    cancelled: bool = False


class Child(msgspec.Struct, omit_defaults=True):
    """What a supervisor keeps of one. `level`: how urgently it was asked to end; `due`: when that is not enough."""

    id: str
    group: str
    target: str
    kind: Kind
    restarts: list[float] = []
    level: int = 0
    due: float = 0.0


class Checkpoint(msgspec.Struct, omit_defaults=True):
    """An actor between two turns.

    `fields`: a JSON object of its durable ones. `state` and `data`: what is next, if it doesn't listen. `turns` so
    far. `actor`: whose fields these are, where it is another one than the run began as. `fresh`: it hasn't begun.
    `attempt`: so many have failed of what is next; `due`: not before then. `at`: when this was written. `children`:
    those that it supervises; `closing`: it ends, and they end first.
    """

    fields: msgspec.Raw
    state: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    turns: int = 0
    actor: str = ""
    fresh: bool = False
    end: End | None = None
    attempt: int = 0
    due: float = 0.0
    at: float = 0.0
    children: list[Child] = []
    closing: bool = False


read_checkpoint = msgspec.json.Decoder(Checkpoint).decode
write_checkpoint = msgspec.json.Encoder().encode
