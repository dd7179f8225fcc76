"""What is stored of an actor between two turns."""

from __future__ import annotations

import msgspec


class Checkpoint(msgspec.Struct):
    """An actor between two turns: its fields, the state that is next if it doesn't listen, turns so far."""

    fields: dict[str, msgspec.Raw]
    state: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    turns: int = 0


read_checkpoint = msgspec.json.Decoder(Checkpoint).decode
