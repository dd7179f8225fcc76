"""What a journal is made of: an entry a call, and how a call turned out."""

from __future__ import annotations

from typing import Final

import msgspec

#: Values and arguments above this size in bytes are stored once, by content, as blobs.
BLOB: Final = 4096

#: The kinds of calls that may go to a model, as lines too; their names say nothing of what they ask.
MODEL: Final = ("generate", "embed", "http")

#: How `Entry.args_blob` and `Entry.value_blob` say that a content has large pieces cut out: see `core.contents`.
CUT: Final = 2

#: The newest format of journals that this version reads, and the one that it writes (`Spec.format`).
FORMAT: Final = 1

#: `Entry.batch` of a call that was made and has no outcome yet.
MADE: Final = -1

#: `Entry.batch` of a call that is done by being committed: it is answered at once, in a replay too.
INSTANT: Final = -2


#: `Entry.batch` of an outcome that its code had given up, after that many batches: `GIVEN_UP - batches`. It is
#: kept, for it may have been paid for, and never handed over.
GIVEN_UP: Final = -3


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An error as data. `type` is `module:qualname`; `args` the JSON of what builds it again, if that can be.

    `again`: the retry policy of the call that failed would try it once more. `trace`: where it was raised, in few
    lines, for people. `base`: without `args`, the nearest built-in class that it is of, where that says something.
    """

    type: str
    message: str
    args: bytes = b""
    again: bool = False
    trace: str = ""
    base: str = ""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One recorded call, known by where it stands: `(path, n)`.

    `name` and `digest` are its check. A row of a step alone lacks what `journal.read` adds: its digest, and arguments
    that are nothing but what the call before it on its path gave.
    `after` is the number of batches handed over when it was made;
    `batch` the one that held its outcome, `MADE` if none has yet. An entry of a call that was journaled
    when made is completed by a second one with an empty `kind`. `at` is when the outcome was handed over,
    in seconds since the epoch.
    """

    path: str
    n: int
    kind: str
    name: str
    digest: bytes
    args: bytes
    after: int
    batch: int = MADE
    value: bytes | None = None
    error: Failure | None = None
    at: float = 0.0
    args_blob: bool | int = False  #: `CUT`; or, in older journals, `args` is the digests of blobs, end to end
    value_blob: bool | int = False  #: `CUT`; or, in older journals, `value` is the digest of a blob
    due: float = 0.0  #: when a durable wait is over, in seconds since the epoch; 0 for never
    reused: bool = False  #: `value` is what was paid for the same request before
    opened: tuple[str, int] | None = None  #: its `opening`, where that isn't its place

    @property
    def made(self) -> bool:
        """Whether the outcome is still open."""
        return self.batch == MADE

    @property
    def opening(self) -> tuple[str, int]:
        """The place by which the world knows the call: its line, question, child or request. It keeps it wherever the
        call stands once code has changed."""
        return (self.path, self.n) if self.opened is None else self.opened

    @property
    def asks_model(self) -> bool:
        """Whether it is a model's answer that it waits for, as far as can be seen: of an SDK's requests, any `POST`."""
        return self.kind in ("generate", "embed") or (self.kind == "http" and self.name.startswith("POST "))

    @property
    def given_up(self) -> int:
        """How many batches had been handed over when the code gave the call up; -1 if it didn't."""
        return GIVEN_UP - self.batch if self.batch <= GIVEN_UP else -1


#: Of what kind, and where, the entry is that says how the last turn of an actor left its fields.
LEFT: Final = "left"
LEFT_AT: Final = ("!left", 0)


class Pool(msgspec.Struct, frozen=True):
    """What a rebased run may take outcomes from: the entries of an earlier journal.

    `strict` demands equal digests (`--rerun`, fork); otherwise a name at its old place is enough (`--keep`).
    `spent` are calls whose outcomes aren't to be taken, without what they hold; `repeat` lets keyed and
    at-most-once ones be made again. `told`: what came of a step that was cut off, as a person says. `ended`: of an
    actor that had ended, after how many turns: what it wrote down of that end then counts no more. `children`: those
    that ended with it and go on with it. `revived`: how often it was made to go on. `unsure`: whether at-most-once
    steps of it that were cut off may be done again is yet to be asked.
    """

    entries: list[Entry]
    strict: bool = True
    origin: str = ""
    spent: list[Entry] = []
    repeat: bool = False
    told: bytes | None = None
    ended: int | None = None
    children: list[str] = []
    revived: int = 0
    unsure: bool = False


#: One row of a journal: the entries that one commit appended.
encode_entries = msgspec.msgpack.Encoder().encode
decode_entries = msgspec.msgpack.Decoder(list[Entry]).decode
