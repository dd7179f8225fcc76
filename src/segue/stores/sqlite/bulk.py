"""Many rows in one statement.

`sqlite3` lets go of the interpreter at each row that it reads or writes, and next to a busy event loop it
takes up to a switch interval (5 ms) to get it back. So rows go in by the hundred in one statement, and come
out as one JSON text.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain, pairwise
from operator import gt, itemgetter
from typing import Any

import msgspec

Row = Sequence[Any]

#: SQLite takes it for null. At each None, `sqlite3` first looks for an adapter, which is slower than a small statement.
_NULL = math.nan

#: Statements exist for these numbers of rows; smaller sets are filled up with nulls.
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

#: How a column is put into the text, and taken out of it. Of a plain number JSON keeps 15 digits only.
_SHOWN = {
    "": "{0}",
    "#": "iif({0} is null, null, hex({0}))",
    "~": "iif({0} is null, null, printf('%!.17g', {0}))",
}
_CASTS: dict[str, Callable[[str], Any]] = {"#": bytes.fromhex, "~": float}

_read_rows = msgspec.json.Decoder(list[list[Any]]).decode
_read_numbers = msgspec.json.Decoder(list[int]).decode
_write_json = msgspec.json.Encoder().encode


def as_json(values: Iterable[Any]) -> str:
    """For `json_each(?)`."""
    return _write_json(list(values)).decode()


class Blobs:
    """A query of one blob column by two integers: the contents come end to end as one blob, which needs no hex.

    Rows are sorted here, by the second: SQLite would carry the blobs about.
    """

    def __init__(self, key: str, order: str, blob: str, rest: str) -> None:
        """`rest` is everything after the columns: `from …`. No blob is null."""
        self.plain = f"select {key}, {order}, {blob} {rest}"
        self.whole = f"""select json_group_array(k), json_group_array(n), json_group_array(length(piece)),
            cast(group_concat(cast(piece as text), '') as blob)
            from (select {key} as k, {order} as n, {blob} as piece {rest})"""

    def rows(self, cx: sqlite3.Connection, parameters: Sequence[Any] = ()) -> list[tuple[int, bytes]]:
        """Each key with its contents, in order."""
        try:
            *numbers, whole = cx.execute(self.whole, parameters).fetchone()
        except (sqlite3.DataError, MemoryError):  # more than SQLite puts into one text
            found = cx.execute(self.plain, parameters).fetchall()
            return [(key, blob) for key, _, blob in sorted(found, key=itemgetter(1))]
        if whole is None:
            return []
        keys, order, lengths = map(_read_numbers, numbers)
        ends = list(accumulate(lengths, initial=0))
        rows = list(zip(keys, (whole[start:end] for start, end in pairwise(ends)), strict=True))
        if any(map(gt, order, order[1:])):
            rows = [row for _, row in sorted(zip(order, rows, strict=True), key=itemgetter(0))]
        return rows


class Values:
    """A statement over a table of values `v(a, b, …)`: `{v}` in its text.

    `one`: the same for a single row, a `?` a column: it is spared the table, a third of what a small statement costs.
    """

    def __init__(self, columns: str, sql: str, *, one: str = "") -> None:
        self._columns, self._sql, self._one = columns, sql, one
        self._width = columns.count(",") + 1
        self._row = "(" + ",".join("?" * self._width) + ")"
        self._texts: dict[int, str] = {}

    def run(self, cx: sqlite3.Connection, rows: Sequence[Row]) -> int:
        """How many rows changed. The first column of a row is never null."""
        return self._run(cx, rows)[0]

    def insert(self, cx: sqlite3.Connection, rows: Sequence[Row]) -> int:
        """The key of the last row; those before have the ones before it, as long as the table counts its keys up."""
        return self._run(cx, rows)[1]

    def try_insert(self, cx: sqlite3.Connection, rows: Sequence[Row]) -> tuple[int, int]:
        """How many rows went in, and the key of the last of them; where all did, keys are as of `insert`."""
        return self._run(cx, rows)

    def _run(self, cx: sqlite3.Connection, rows: Sequence[Row]) -> tuple[int, int]:
        if self._one and len(rows) == 1:
            cursor = cx.execute(self._one, [_NULL if value is None else value for value in rows[0]])
            return cursor.rowcount, cursor.lastrowid or 0
        changed = last = 0
        for start in range(0, len(rows), _SIZES[-1]):
            part = rows[start : start + _SIZES[-1]]
            size = next(size for size in _SIZES if size >= len(part))
            text = self._texts.get(size)
            if text is None:
                text = self._texts[size] = self._text(size)
            values = [_NULL if value is None else value for value in chain.from_iterable(part)]
            if size > len(part):
                values.extend([_NULL] * ((size - len(part)) * self._width))
            cursor = cx.execute(text, values)
            changed, last = changed + cursor.rowcount, cursor.lastrowid or 0
        return changed, last

    def _text(self, size: int) -> str:
        names = self._columns.split(",")
        columns = ", ".join(f"column{i} as {name.strip()}" for i, name in enumerate(names, 1))
        values = ",".join([self._row] * size)
        table = f"(select {columns} from (values {values}) where column1 is not null)"
        return self._sql.replace("{v}", f"{table} as v")


class Query:
    """A query whose rows come as one text. `columns` are SQL; `#` marks those that are blobs, `~` times."""

    def __init__(self, columns: Sequence[str], rest: str) -> None:
        """`rest` is everything after the columns: `from …`."""
        kinds = [column[0] if column[0] in "#~" else "" for column in columns]
        plain = [column.lstrip("#~") for column in columns]
        self._cast = [(i, _CASTS[kind]) for i, kind in enumerate(kinds) if kind]
        self.plain = f"select {', '.join(plain)} {rest}"
        inner = ", ".join(f"{column} as c{i}" for i, column in enumerate(plain))
        outer = ", ".join(_SHOWN[kind].format(f"c{i}") for i, kind in enumerate(kinds))
        self.whole = f"select json_group_array(json_array({outer})) from (select {inner} {rest})"

    def rows(self, cx: sqlite3.Connection, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """All rows, as lists."""
        try:
            (text,) = cx.execute(self.whole, parameters).fetchone()
        except (sqlite3.DataError, MemoryError):  # more than SQLite puts into one text
            return cx.execute(self.plain, parameters).fetchall()
        rows = _read_rows(text)
        for i, cast in self._cast:
            for row in rows:
                if row[i] is not None:
                    row[i] = cast(row[i])
        return rows

    def row(self, cx: sqlite3.Connection, parameters: Sequence[Any] | dict[str, Any] = ()) -> Any:
        """The first row, or None."""
        return cx.execute(self.plain, parameters).fetchone()
