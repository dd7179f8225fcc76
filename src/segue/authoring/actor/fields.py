"""An actor's durable fields as they were after its last turn, and what of that isn't written down yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.encoding import encode_plain
from .checkpoint import Texts, join, read_texts
from .growth import Change, Field
from .splices import Splice, Splices

if TYPE_CHECKING:
    from .definition import ActorDef

#: Up to so many bytes, fields are encoded and written whole each time.
SMALL = 1024

Looked = bytes | list[Change]


Table = dict[str, Field]


def as_read(definition: ActorDef, texts: Texts, values: Mapping[str, Any]) -> Table | None:
    """Fields that were just read, as they are before the class has had them; None where they are small or others."""
    if texts.keys() != definition.durable.keys() or _size(texts) <= SMALL:
        return None
    trusts = definition.trusts
    return {name: Field(values[name], bytes(texts[name]), trusts[name]) for name in definition.durable}


def _size(texts: Mapping[str, bytes | bytearray | msgspec.Raw]) -> int:
    """Of their JSON object, in bytes."""
    return sum(map(len, texts.values())) + sum(map(len, texts)) + 4 * len(texts) + 1


class Fields:
    """Of one actor. Small ones are one text; larger ones are looked at, and written, one by one."""

    __slots__ = ("_definition", "_names", "_pending", "_raw", "_stored", "_table", "as_stored", "size")

    def __init__(self, definition: ActorDef, actor: Any, stored: Table | None = None) -> None:
        """`stored`: larger ones as they were read from what is stored."""
        self._definition, self._names = definition, definition.durable.keys()
        self._table: Table | None = stored
        self._pending = Splices()
        self._raw: bytes | msgspec.Raw = b""
        self._stored: bytes | msgspec.Raw = b""  # the text of few, as it was last written
        #: Whether they are still the text that was stored, so that changes of it can be.
        self.as_stored = stored is not None
        if stored is not None:
            self.size = _size({name: field.text for name, field in stored.items()})
            return
        self._raw = self._stored = definition.dump(actor)
        self.size = len(self._raw)  #: bytes, roughly
        if self.size > SMALL:
            self._spread(actor, read_texts(self._raw))

    @property
    def spread(self) -> bool:
        """Whether they are written one by one."""
        return self._table is not None

    def _spread(self, actor: Any, texts: Texts) -> None:
        values = self._definition.values(actor)
        self._table = {name: Field(values[name], bytes(texts[name])) for name in values}
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
                self._spread(actor, read_texts(self._raw))
                self.as_stored = False
            return changed
        for change in looked:
            assert isinstance(change, Change)
            self.size += self._table[change.name].take(change)
            if change.splice is not None:
                self._pending.add(change.splice)
        return bool(looked)

    def hold(self, actor: Any) -> bool:
        """`take` what they are now; whether they have changed. Raises `NotEncodable`, and then nothing is taken."""
        values = actor.__dict__
        text = encode_plain(values) if self._table is None and len(values) == len(self._names) else None
        if text == self._raw:  # which has their names in it
            return False
        if text is None or values.keys() != self._names:
            return self.take(self.look(actor), actor)
        return self.take(text, actor)

    # ------------------------------------------------------------ written down
    def whole(self) -> msgspec.Raw:
        """All of them as a JSON object."""
        if self._table is None:
            return msgspec.Raw(self._raw)
        return msgspec.Raw(join((name, field.text) for name, field in self._table.items()))

    def changed(self) -> list[Splice]:
        """What was taken since this was last asked for, or `written`."""
        pending = list(self._pending)
        self._pending.clear()
        return pending

    def between(self, name: str, front: int, back: int) -> bytes:
        """The text of one that is written by itself, but for so much in front and at the back."""
        assert self._table is not None  # they are written one by one
        text = self._table[name].text
        return bytes(text[front : len(text) - back])

    def written(self) -> None:
        """They were written whole."""
        self._pending.clear()
        self.as_stored = True

    def stored(self) -> None:
        """What they are is written, whole or not."""
        self._stored = self._raw

    @property
    def unwritten(self) -> bool:
        """Whether they were taken otherwise since."""
        if self._table is None:
            return self._raw != self._stored
        return next(iter(self._pending), None) is not None or not self.as_stored
