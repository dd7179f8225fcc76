"""What is stored of an actor between two turns."""

from __future__ import annotations

import msgspec

from ...model.entry import Failure


class End(msgspec.Struct, omit_defaults=True):
    """How an actor ends, while its `teardown` is still to come: with a value or an error, or interrupted."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None
    interrupted: bool = False


class Checkpoint(msgspec.Struct, omit_defaults=True):
    """An actor between two turns.

    `fields`: a JSON object of its durable ones. `state` and `data`: what is next, if it doesn't listen. `turns` so
    far. `actor`: whose fields these are, where it is another one than the run began as. `fresh`: it hasn't begun.
    `attempt`: so many have failed of what is next; `due`: not before then. `at`: when this was written.
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


read_checkpoint = msgspec.json.Decoder(Checkpoint).decode
write_checkpoint = msgspec.json.Encoder().encode
