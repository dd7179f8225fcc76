"""What is stored of an actor between two turns: whole, or what has changed since.

Each field is JSON text. A delta says of those that changed what was put where (a `Splice`), so what a commit writes
is as long as what was added, and putting them together again needs no types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ...core.restarts import Kind, Verdict
from ...model.entry import Failure
from ...model.errors import UNREADABLE, Damaged
from .splices import Splice, Spliced

#: Fields as JSON text, by name.
Texts = Mapping[str, bytes | msgspec.Raw]


class End(msgspec.Struct, omit_defaults=True):
    """How an actor ends, while its `teardown` is still to come: with a value or an error, or interrupted.

    `anew`: it was asked to begin anew then. `verdict`: what its supervisor said, which is asked once.
    """

    value: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None
    interrupted: bool = False
    cancelled: bool = False
    anew: bool = False
    verdict: Verdict | None = None


class Child(msgspec.Struct, omit_defaults=True):
    """What a supervisor keeps of one. `level`: how urgently it was asked to end, `softest` if not
    at all; `due`: when that is not enough.

    `member`: what of its group it belongs to, as JSON, if that was said. `gone`: it ended with its supervisor; should
    that go on, so does this one.
    """

    id: str
    group: str
    target: str
    kind: Kind
    restarts: list[float] = []
    level: int = 0
    module: str = ""  #: the target's
    due: float = 0.0
    member: str = "null"
    softest: int = 0
    gone: bool = False


class Checkpoint(msgspec.Struct, omit_defaults=True):
    """An actor between two turns.

    `fields`: a JSON object of its durable ones. `state` and `data`: what is next, if it doesn't listen. `turns` so
    far. `actor`: whose fields these are, where it is another one than the run began as. `fresh`: it hasn't begun.
    `attempt`: so many have failed of what is next, which is the letter `again` if it is none of its states; `due`: not
    before then. `at`: when this was written. `children`:
    those that it supervises; `closing`: it ends, and they end first. `lives`: how often it has begun anew.
    `version`: what the class declares.
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
    lives: int = 0
    version: str = ""
    again: int = 0


#: A child as it is now, or the id of one that isn't there any more.
Kin = Child | str


class Delta(msgspec.Struct, array_like=True):
    """What one turn, or several after one another, changed. `head`: a `Checkpoint` without its fields and children.

    `fields`: all of them, where they are few; then nothing is spliced. `family`: the head has all children, as older
    files have it.
    """

    head: bytes
    splices: list[Splice]
    family: bool = False
    kin: list[Kin] = []
    fields: bytes = b""


class _Parted(Checkpoint):
    """As it is read: its fields apart at once, since going over their text is most of the work."""

    fields: dict[str, msgspec.Raw]  # type: ignore[assignment]  # only here, where it is given its own again


class _Seen(Delta):
    """As it is read: texts are seen where they lie, and copied once, when they are put together."""

    splices: list[tuple[str, int, int, memoryview]]  # type: ignore[assignment]


#: What deltas may follow where nothing was written before.
NOTHING_WRITTEN = b'{"fields":{}}'

_NULL = msgspec.Raw(b"null")

read_checkpoint = msgspec.json.Decoder(Checkpoint).decode
write_checkpoint = msgspec.json.Encoder().encode
write_delta = msgspec.msgpack.Encoder().encode
read_delta = msgspec.msgpack.Decoder(Delta).decode
_read_parted = msgspec.json.Decoder(_Parted).decode
_see_delta = msgspec.msgpack.Decoder(_Seen).decode
read_texts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_parted(checkpoint: bytes, deltas: Sequence[bytes]) -> tuple[Checkpoint, Texts]:
    """A checkpoint with what was written after it, and its fields apart. Raises `Damaged`."""
    try:
        return _put_together(checkpoint, deltas)
    except (*UNREADABLE, LookupError) as problem:
        raise Damaged("its checkpoint", problem) from problem


def _put_together(checkpoint: bytes, deltas: Sequence[bytes]) -> tuple[Checkpoint, Texts]:
    head = _read_parted(checkpoint)
    texts, head.fields = head.fields, _NULL  # type: ignore[assignment]  # as any checkpoint has them
    if not deltas:
        return head, texts
    spliced: dict[str, Spliced] = {}
    children, last = {child.id: child for child in head.children}, b""
    for delta in map(_see_delta, deltas):
        last = delta.head
        if delta.fields:
            texts, spliced = read_texts(delta.fields), {}
        for name, front, back, middle in delta.splices:
            text = spliced.get(name)
            if text is None:
                text = spliced[name] = Spliced(texts[name], back)
            text.put(front, back, middle)
        if delta.family:
            children = {child.id: child for child in read_checkpoint(delta.head).children}
        for one in delta.kin:
            if isinstance(one, str):
                children.pop(one, None)
            else:
                children[one.id] = one
    whole = read_checkpoint(last)
    whole.children = list(children.values())
    return whole, {**texts, **{name: text.whole() for name, text in spliced.items()}}


def takes_mail(checkpoint: bytes | None, deltas: Sequence[bytes]) -> bool:
    """Whether the turn after it is one of a message. Where it can't be read, the turn doesn't begin."""
    try:
        head = read_delta(deltas[-1]).head if deltas else checkpoint
        stored = None if head is None else read_checkpoint(head)
    except UNREADABLE:
        return False
    return stored is not None and not (stored.state or stored.fresh or stored.end)


def read_stored(checkpoint: bytes, deltas: Sequence[bytes]) -> Checkpoint:
    """A checkpoint with what was written after it. Raises `Damaged`."""
    if not deltas:
        try:
            return read_checkpoint(checkpoint)
        except UNREADABLE as problem:
            raise Damaged("its checkpoint", problem) from problem
    stored, texts = read_parted(checkpoint, deltas)
    stored.fields = msgspec.Raw(join(texts.items()))
    return stored


def as_one(checkpoint: bytes | None, deltas: Sequence[bytes]) -> bytes | None:
    """A checkpoint that has in it what was written after it."""
    if checkpoint is None or not deltas:
        return checkpoint
    return write_checkpoint(read_stored(checkpoint, deltas))


def join(texts: Iterable[tuple[str, bytes | bytearray | msgspec.Raw]]) -> bytes:
    """Texts by name as the text of a JSON object."""
    return b"{" + b",".join(b"%s:%s" % (msgspec.json.encode(name), text) for name, text in texts) + b"}"
