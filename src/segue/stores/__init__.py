"""Where runs live, by address: `memory:`, `sqlite:PATH`."""

from __future__ import annotations

from ..model.errors import UnknownName
from ..ports.store import Store


def open_store(address: str, *, look: bool = False) -> Store:
    """The store at an address, not opened yet. `look`: it is only looked at, and so needn't be writable."""
    scheme, colon, rest = address.partition(":")
    match scheme + colon:
        case "memory:" if not rest:
            from .memory import MemoryStore

            return MemoryStore()
        case "sqlite:":
            from .sqlite import SqliteStore

            return SqliteStore(rest, look=look)
    raise UnknownName("store", address, "use 'memory:' or 'sqlite:PATH'")
