"""A run as JSON lines: its record, then a line for each call, in the order of the outcomes.

What `segue export` writes, and `segue.testing.rerun` reads. Arguments and values stand there as the JSON that
they are; large contents are in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from ..model.entry import FORMAT, MADE, Entry, Failure
from ..model.errors import InvalidValue
from ..model.mode import Config
from ..model.run import CallRef, Head, Spec, Status, Usage
from .journal import merged

_NULL = msgspec.Raw(b"null")


class _Error(msgspec.Struct, omit_defaults=True):
    type: str
    message: str
    args: msgspec.Raw = _NULL
    again: bool = False
    trace: str = ""
    base: str = ""


class _Run(msgspec.Struct, omit_defaults=True):
    id: str
    target: str
    args: msgspec.Raw
    status: Status
    kind: str = "flow"
    config: Config = Config()
    version: str = ""
    format: int = 1
    python: str = ""
    parent: CallRef | None = None
    job: str = ""
    index: int = 0
    key: str = ""
    origin: str = ""
    seed: str = ""
    module: str = ""
    created: float = 0.0
    updated: float = 0.0
    reason: str = ""
    usage: list[Usage] = []
    value: msgspec.Raw = _NULL
    error: _Error | None = None
    checkpoint: msgspec.Raw = _NULL
    past: int = 0  #: commits before the checkpoint; they aren't in the export
    dropped: int = 0  #: and those that aren't kept any longer


class _First(msgspec.Struct):
    run: _Run


class _Call(msgspec.Struct):
    path: str
    n: int
    kind: str
    name: str
    digest: str
    args: msgspec.Raw
    after: int
    batch: int
    value: msgspec.Raw = _NULL
    error: _Error | None = None
    at: float = 0.0
    due: float = 0.0


class Exported(msgspec.Struct, frozen=True):
    """A run that was read: its record, and its journal with each call once."""

    head: Head
    entries: list[Entry]
    checkpoint: bytes | None = None


_first = msgspec.json.Decoder(_First).decode
_call = msgspec.json.Decoder(_Call).decode


def write(
    head: Head, entries: Iterable[Entry], checkpoint: bytes | None = None, *, past: int = 0, dropped: int = 0
) -> Iterator[bytes]:
    """The lines of a run, without line ends. Large contents must be in place. `checkpoint`: an actor's.

    `past` and `dropped`: how many commits came before that, and how many of its past aren't kept any longer.
    """
    yield msgspec.json.encode(_First(_run_of(head, checkpoint, past, dropped)))
    for entry in merged(entries):
        yield msgspec.json.encode(_call_of(entry))


def _run_of(head: Head, checkpoint: bytes | None, past: int, dropped: int) -> _Run:
    spec = head.spec
    return _Run(
        id=head.id,
        target=spec.target,
        args=_raw(spec.args),
        status=head.status,
        kind=spec.kind,
        config=spec.config,
        version=spec.version,
        format=spec.format,
        python=spec.python,
        parent=spec.parent,
        job=spec.job,
        index=spec.index,
        key=spec.key,
        origin=spec.origin,
        seed=spec.seed,
        module=spec.module,
        created=spec.created,
        updated=head.updated,
        reason=head.reason,
        usage=head.usage,
        value=_raw(head.value),
        error=_error(head.error),
        checkpoint=_raw(checkpoint),
        past=past,
        dropped=dropped,
    )


def _call_of(entry: Entry) -> _Call:
    return _Call(
        path=entry.path,
        n=entry.n,
        kind=entry.kind,
        name=entry.name,
        digest=entry.digest.hex(),
        args=_raw(entry.args),
        after=entry.after,
        batch=entry.batch,
        value=_raw(entry.value),
        error=_error(entry.error),
        at=entry.at,
        due=entry.due,
    )


def read(lines: Iterable[bytes | str], *, where: str = "journal") -> Exported:
    """A run from its lines. Raises `InvalidValue`, which begins with `where` and names the line."""
    head: Head | None = None
    checkpoint: bytes | None = None
    entries: list[Entry] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if head is None:
                run = _first(line).run
                if run.format > FORMAT:
                    raise ValueError(f"it has format {run.format}, of a newer segue, which reads it")
                head, checkpoint = _head(run), None if run.checkpoint == _NULL else bytes(run.checkpoint)
            else:
                entries.append(_entry(_call(line)))
        except (msgspec.MsgspecError, ValueError) as error:
            expected = "a line that `segue export` wrote"
            raise InvalidValue(f"{where}, line {number}", expected, str(error), repr(line[:80])) from None
    if head is None:
        raise InvalidValue(where, "a run that `segue export` wrote", "it is empty")
    handed = max((entry.batch for entry in entries), default=MADE) + 1
    for entry in entries:
        if not 0 <= entry.after <= max(handed, 0):
            where_in = f"call {entry.n} of branch {entry.path or '/'!r}"
            problem = f"{where_in} comes after batch {entry.after - 1}, which isn't there"
            raise InvalidValue(where, "a whole run", problem)
    return Exported(head, entries, checkpoint)


def _head(run: _Run) -> Head:
    spec = Spec(
        kind="actor" if run.kind == "actor" else "flow",
        target=run.target,
        args=bytes(run.args),
        config=run.config,
        version=run.version,
        format=run.format,
        python=run.python,
        parent=run.parent,
        job=run.job,
        index=run.index,
        key=run.key,
        origin=run.origin,
        seed=run.seed,
        module=run.module,
        created=run.created,
    )
    return Head(
        id=run.id,
        spec=spec,
        status=run.status,
        reason=run.reason,
        value=bytes(run.value) if run.status == "done" else None,
        error=_failure(run.error),
        usage=run.usage,
        updated=run.updated,
    )


def _entry(call: _Call) -> Entry:
    return Entry(
        call.path,
        call.n,
        call.kind,
        call.name,
        bytes.fromhex(call.digest),
        bytes(call.args) if call.digest else b"",
        call.after,
        call.batch,
        bytes(call.value) if call.error is None and call.batch != MADE else None,
        _failure(call.error),
        call.at,
        due=call.due,
    )


def _raw(data: bytes | None) -> msgspec.Raw:
    return msgspec.Raw(data) if data else _NULL


def _error(failure: Failure | None) -> _Error | None:
    if failure is None:
        return None
    return _Error(
        failure.type, failure.message, _raw(failure.args), failure.again, failure.trace, failure.base
    )


def _failure(error: _Error | None) -> Failure | None:
    if error is None:
        return None
    args = bytes(error.args)
    built = b"" if args == b"null" else args
    return Failure(error.type, error.message, built, error.again, error.trace, error.base)
