"""The rows of a file as calls of a flow. A row that is no good harms no other one."""

from __future__ import annotations

import csv
import shlex
import sys
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from inspect import _ParameterKind as Kind
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from ..core import forms
from ..core.memo import memoized
from ..core.signature import InputShape, Parameter
from ..model.errors import CallerError, InvalidValue, NotEncodable
from ..runtime.job import FIRST, Row
from .screen import is_terminal, note

NOT_UTF8 = "it isn't UTF-8; save the file as UTF-8"
_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})


class BadFile(CallerError):
    """A file can't be read, or written, as was asked."""

    def __init__(self, path: str, problem: str, cure: str) -> None:
        self.path, self.problem, self.cure = path, problem, cure
        super().__init__(f"{path}: {problem}; {cure}")


class BadRow(CallerError):
    """A row that no call can be made of. `line` is where it begins in its file, from 1."""

    def __init__(self, line: int, problem: str) -> None:
        self.line, self.problem = line, problem
        super().__init__(f"line {line}: {problem}")


class RawRow(NamedTuple):
    """A row as it stands in its file; `problem` says why it can't be read, if it can't."""

    line: int
    value: Any
    problem: str = ""


class BoundRow(Row):
    """A row as a call, or the error that there is in place of it."""

    __slots__ = ("error", "key", "value")

    def __init__(self, key: str, value: Any, args: bytes = b"", error: BadRow | None = None) -> None:
        super().__init__(args)
        self.key, self.value, self.error = key, value, error


def key_of(row: BoundRow) -> str:
    """What a row is known by. Raises the row's error if it has one."""
    if row.error is not None:
        raise row.error
    return row.key


class RowFile:
    """A JSONL or CSV file of rows. `-` is standard input, kept in a file meanwhile, as is another pipe.

    Where its name doesn't tell which it is, its first line does: it is JSON, or the heading of CSV.
    """

    def __init__(self, path: str, directory: Path) -> None:
        self.name = path  # as jobs are called by it
        self.shown = "standard input" if path == "-" else path
        self.path = Path(path)
        if path == "-":
            if is_terminal(sys.stdin):
                note(
                    "rows are read from this terminal: JSON lines, or CSV with a heading; Ctrl-D ends them",
                    faint=True,
                )
            self.path = directory / "stdin"
            self.name = f"stdin-{_keep(sys.stdin.buffer, self.path)}"
        elif self.path.is_dir() or not self.path.exists():
            problem = "it is a directory" if self.path.is_dir() else "there is no such file"
            raise BadFile(path, problem, "give a JSONL or CSV file, or - for either on standard input")
        elif not self.path.is_file():  # such as <(command)
            self.path = directory / "stdin"
            with Path(path).open("rb") as pipe:
                self.name = f"stdin-{_keep(pipe, self.path)}"
        self.delimiter = _delimiter(self.path)
        self.is_csv = bool(self.delimiter)
        self.is_guess = self.is_csv and self.path.suffix.lower() not in _DELIMITERS

    def __iter__(self) -> Iterator[RawRow]:
        """The rows in order; blank lines are none."""
        return self._csv() if self.is_csv else self._jsonl()

    def _jsonl(self) -> Iterator[RawRow]:
        decode = msgspec.json.Decoder().decode
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.isspace() or not text:
                    continue
                try:
                    yield RawRow(number, decode(text))
                except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                    read = text.decode("utf-8", "replace").strip()
                    told = NOT_UTF8 if not _is_utf8(text) else f"it isn't JSON: {_told(error)}"
                    yield RawRow(number, read, told)

    def _csv(self) -> Iterator[RawRow]:
        csv.field_size_limit(sys.maxsize)
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            reader = csv.reader(text, delimiter=self.delimiter, strict=True)
            heading: list[str] | None = None
            line = 1
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    yield RawRow(line, None, f"it isn't CSV: {error}")
                    line = reader.line_num + 1
                    continue
                if cells is None:
                    return
                if heading is None:
                    heading = cells
                    twice = next((name for name in cells if name and cells.count(name) > 1), None)
                    if twice is not None:
                        problem = f"two of its columns are called {_clean(twice)!r}"
                        raise BadFile(self.shown, problem, "rename one, or leave it out")
                elif cells:
                    yield _csv_row(line, heading, cells)
                line = reader.line_num + 1


_DELIMITERS = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": "", ".json": ""}


def _delimiter(path: Path) -> str:
    """What parts the cells of a file; empty for one of JSON."""
    if (named := _DELIMITERS.get(path.suffix.lower())) is not None:
        return named
    with path.open("rb") as file:
        first = next((line for line in file if not line.isspace()), b"").removeprefix(b"\xef\xbb\xbf").strip()
    if not first or first[:1] in b"{[":  # JSON, be it whole or not
        return ""
    try:
        msgspec.json.decode(first)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "\t" if b"\t" in first and b"," not in first else ","
    return ""


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _told(error: Exception) -> str:
    return str(error).removeprefix("JSON is malformed: ")


def _csv_row(line: int, heading: list[str], cells: list[str]) -> RawRow:
    if len(cells) != len(heading):
        return RawRow(
            line, [_clean(cell) for cell in cells], f"it has {len(cells)} cells under {len(heading)} headings"
        )
    if any(
        "\udc80" <= letter <= "\udcff" for text in (*heading, *cells) if not text.isascii() for letter in text
    ):
        return RawRow(
            line, {_clean(name): _clean(cell) for name, cell in zip(heading, cells, strict=True)}, NOT_UTF8
        )
    return RawRow(line, dict(zip(heading, cells, strict=True)))


def _clean(text: str) -> str:
    """With a mark in place of each byte that isn't UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _keep(source: IO[bytes], path: Path) -> str:
    """Copy it into a file; a name made of its content, so that the same input is the same job."""
    digest = blake2b(digest_size=6)
    with path.open("wb") as copy:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            copy.write(chunk)
            if len(chunk) < 1 << 20:
                break  # a terminal would want its Ctrl-D once more
    return digest.hexdigest()


def bind(rows: RowFile, shape: InputShape, field: str = "") -> Iterator[BoundRow]:
    """Each row as a call of the flow; known by its number, or by one of its fields."""
    keys, names = _Keys(field), dict[bool, list[str] | None]()
    for index, raw in enumerate(rows):
        key, value = "" if field else str(index), raw.value
        try:
            if raw.problem:
                raise BadRow(raw.line, raw.problem)
            key = keys.of(index, raw)
            yield BoundRow(key, value, shape.bind_row(_taken(raw, field, shape, names), text=rows.is_csv))
        except BadRow as error:
            yield BoundRow(key, value, error=error)
        except (InvalidValue, NotEncodable, TypeError) as error:
            yield BoundRow(key, value, error=BadRow(raw.line, str(error)))


def _names(shape: InputShape, one: Parameter | None) -> list[str] | None:
    """The names that fields of a row may have, None where any will do. `one`: whose value the row is."""
    kinds = {parameter.kind for parameter in shape.parameters}
    if kinds & {Kind.VAR_KEYWORD, Kind.VAR_POSITIONAL}:
        return None
    if one is None:
        return [parameter.name for parameter in shape.parameters]
    return _fields_of(one.type, one.name)


@memoized
def _fields_of(tp: Any, name: str) -> list[str] | None:
    """Those of an object that is of that type; of what is no object, that of the parameter alone."""
    tp = forms.bare(tp)
    if (members := forms.members(tp)) is not None:
        each = [_fields_of(member, name) for member in members]
        return None if None in each else list(dict.fromkeys(name for names in each for name in names or ()))
    if (fields := forms.fields(tp)) is not None:
        if "extra" in (getattr(tp, "model_config", None) or {}):  # pydantic's model says itself what it does
            return None
        tag = getattr(getattr(forms.origin(tp), "__struct_config__", None), "tag_field", None)
        names = [each for field in fields for each in (field.key, field.name)]
        return list(dict.fromkeys([*names, *([tag] if tag else [])]))
    return [name] if tp in _SCALARS else None


def _taken(raw: RawRow, key: str, shape: InputShape, names: dict[bool, list[str] | None]) -> Any:
    """The row as the flow takes it: without a key that it has no place for. Raises `BadRow` for other such fields.

    `names`: those that fields may have, as far as they are known, of rows that are one argument and of others.
    """
    if not isinstance(raw.value, dict):
        return raw.value
    one = shape.taker(raw.value)
    if (one is not None) not in names:
        names[one is not None] = _names(shape, one)
    takes = names[one is not None]
    if takes is None:
        return raw.value
    value = {name: cell for name, cell in raw.value.items() if name != key or name in takes}
    if one is not None and (strange := strange_field(one, value)):
        raise BadRow(raw.line, f"{forms.spell(one.type)} {strange}")
    return value


def strange_field(parameter: Parameter, value: Any) -> str:
    """What is to be said of a field that an argument's type has no place for, and would lose; empty for none."""
    takes = _fields_of(parameter.type, parameter.name)
    if takes is None or not isinstance(value, dict) or forms.bare(parameter.type) in _SCALARS:
        return ""
    unknown = [name for name in value if name not in takes]
    return f"has no field {unknown[0]!r}; its fields are {', '.join(takes)}" if unknown else ""


def check_readable(rows: RowFile, shape: InputShape, field: str = "") -> None:
    """Refuse a file of which none of the first rows can be read. Raises `BadFile`, before anything is made."""
    first = list(islice(bind(rows, shape, field), FIRST))
    error = first[0].error if first else None
    if error is None:
        return
    is_list = first[0].value == "[" or (len(first) == 1 and isinstance(first[0].value, list))
    if is_list and not rows.is_csv:
        of = f" {shlex.quote(rows.name)}" if rows.shown == rows.name else ""
        cure = f"a row is JSON on a line: `jq -c '.[]'{of} > rows.jsonl` makes rows of a list"
        raise BadFile(rows.shown, f"it is one list: {error}", cure)
    if all(row.error is not None for row in first):
        what = f"none of its first {len(first)} rows fits" if len(first) > 1 else "its one row doesn't fit"
        names = ", ".join(parameter.name for parameter in shape.parameters)
        what_it_takes = f"what {shape.name} takes, or an object with {names}" if names else "{} for each call"
        cure = f"a row is JSON on a line, or a line of CSV or TSV: {what_it_takes}"
        if rows.is_guess:
            cure = f"it was read as CSV, for its first line is no JSON, and so a heading; {cure}"
        raise BadFile(rows.shown, f"{what} {shape.name}: {error}", cure)


class _Keys:
    """Gives rows their keys and sees that no two have the same."""

    def __init__(self, field: str) -> None:
        self.field = field
        self._lines: dict[bytes, int] = {}  # a digest each, so that long keys cost no memory

    def of(self, index: int, raw: RawRow) -> str:
        if not self.field:
            return str(index)
        if not isinstance(raw.value, dict) or self.field not in raw.value:
            there = f"; it has {', '.join(raw.value)}" if isinstance(raw.value, dict) else ""
            raise BadRow(raw.line, f"the row has no field {self.field!r}, which --key names{there}")
        value = raw.value[self.field]
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            raise BadRow(
                raw.line, f"its {self.field!r} can't be a key: {value!r}; a key is a text or a number"
            )
        first = self._lines.setdefault(blake2b(str(value).encode(), digest_size=8).digest(), raw.line)
        if first != raw.line:
            raise BadRow(raw.line, f"line {first} has the key {value!r} too")
        return str(value)


def without_errors(rows: Iterable[BoundRow]) -> Iterator[BoundRow]:
    """Those that are calls."""
    return (row for row in rows if row.error is None)
