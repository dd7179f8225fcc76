"""An actor's durable fields as they were after its last turn, and what of that isn't written down yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...core.encoding import encode_plain
from .checkpoint import Splice, join, read_texts
from .growth import Change, Field

if TYPE_CHECKING:
    from .definition import ActorDef

#: Up to so many bytes, fields are encoded and written whole each time.
SMALL = 1024

Looked = bytes | list[Change]


class Fields:
    """Of one actor. Small ones are one text; larger ones are looked at, and written, one by one."""

    __slots__ = ("_definition", "_names", "_pending", "_raw", "_table", "as_stored", "size")

    def __init__(self, definition: ActorDef, actor: Any, stored: msgspec.Raw | None = None) -> None:
        """`stored`: the text that they were read from."""
        self._definition, self._names = definition, definition.durable.keys()
        self._table: dict[str, Field] | None = None
        self._pending: dict[str, list[Splice]] = {}
        #: Whether they are still the text that was stored, so that changes of it can be.
        self.as_stored = stored is not None and len(stored) > SMALL and definition.is_whole(stored)
        self._raw: bytes | msgspec.Raw = (
            stored if stored is not None and self.as_stored else definition.dump(actor)
        )
        self.size = len(self._raw)  #: bytes, roughly
        if self.size > SMALL:
            self._spread(actor)

    @property
    def spread(self) -> bool:
        """Whether they are written one by one."""
        return self._table is not None

    def _spread(self, actor: Any) -> None:
        texts, values = read_texts(bytes(self._raw)), self._definition.values(actor)
        self._table = {name: Field(values[name], texts[name]) for name in values}
        self._raw = b""

    # ------------------------------------------------------------ after a turn
    def look(self, actor: Any) -> Looked:
        """What they are now, to be taken if the turn holds. Raises `NotEncodable`."""
        if self._table is None:
            values = actor.__dict__
            if values.keys() == self._names and (text := encode_plain(values)) is not None:
                return text
            return self._definition.dump(actor)
        values, where = self._definition.values(actor), self._definition.name
        looked = (field.look(name, values[name], where) for name, field in self._table.items())
        return [change for change in looked if change is not None]

    def take(self, looked: Looked, actor: Any) -> bool:
        """That turn holds; whether it has changed anything."""
        if self._table is None:
            changed = looked != self._raw
            self._raw, self.size = looked, len(looked)  # type: ignore[assignment]  # so it was looked at
            if self.size > SMALL:
                self._spread(actor)
                self.as_stored = False
            return changed
        for change in looked:
            assert isinstance(change, Change)
            self.size += self._table[change.name].take(change)
            if change.splice is not None:
                self._pend(change.splice)
        return bool(looked)

    def _pend(self, splice: Splice) -> None:
        name, front, back, middle = splice
        earlier = self._pending.setdefault(name, [])
        if not front and not back:
            earlier.clear()
        elif earlier:
            _, start, end, text = earlier[-1]
            if end == back and start + len(text) == front:  # after what was put there before
                earlier[-1] = name, start, end, text + middle
                return
        earlier.append(splice)

    # ------------------------------------------------------------ written down
    def whole(self) -> msgspec.Raw:
        """All of them as a JSON object."""
        if self._table is None:
            return msgspec.Raw(self._raw)
        return msgspec.Raw(join((name, field.text) for name, field in self._table.items()))

    def changed(self) -> list[Splice]:
        """What was taken since this was last asked for, or `written`."""
        pending, self._pending = self._pending, {}
        return [splice for splices in pending.values() for splice in splices]

    def written(self) -> None:
        """They were written whole."""
        self._pending.clear()
        self.as_stored = True
