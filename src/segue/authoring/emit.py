"""Telling whoever watches."""

from __future__ import annotations

from typing import Any

import msgspec

from ..core.codec import encode
from .context import current


async def emit(event: object, /) -> None:
    """Tell whoever watches the run something, as plain JSON values. It isn't recorded, and silent in a replay.

    Raises `NotEncodable`, watched or not.
    """
    branch = current("emit")
    data = encode(event, where="what emit() tells")
    branch.run.emit(_read(data), branch.path)


_read: Any = msgspec.json.Decoder().decode
