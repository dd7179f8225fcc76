"""What the writer knows while it writes: its connection, integer keys it has met, what to tell afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Literal

from ...ports.store import Came, Hint
from .bulk import Query, Values, as_json

HintKind = Literal["ready", "mail", "ended", "lines", "room"]

_FIND_RUNS = Query(("id", "k"), "from runs where id in (select value from json_each(?))")


class Interned:
    """Names and their integer keys in one table."""

    def __init__(self, table: str, column: str) -> None:
        self._add = Values(
            "name", f"insert into {table}({column}) select name from {{v}} where true on conflict do nothing"
        )
        self._find = Query((column, "k"), f"from {table} where {column} in (select value from json_each(?))")
        self._known: dict[str, int] = {}

    def keys(self, cx: sqlite3.Connection, names: Iterable[str]) -> dict[str, int]:
        """The key of each name; new names get one."""
        missing = {name for name in names if name not in self._known}
        if missing:
            self._add.run(cx, [(name,) for name in missing])
            self._known.update(self._find.rows(cx, (as_json(missing),)))
        return self._known

    def forget(self) -> None:
        self._known.clear()


class Ledger:
    """The writer's side of the file. Only its thread touches it."""

    def __init__(self, cx: sqlite3.Connection, address: str) -> None:
        self.cx, self.address = cx, address
        self.claimed: dict[str, int] = {}  #: keys of runs that this process has claimed
        self.jobs = Interned("jobs", "id")
        self.lanes = Interned("lanes", "name")
        self.targets = Interned("targets", "name")
        self.archived: set[int] = (
            set()
        )  #: keys of runs with archived rows to be sealed, as far as they are known
        self.looked = 0  #: up to which run it was looked for others
        self.whole = False  #: whether that was done once for all of them
        self.hints: dict[HintKind, dict[str, None]] = {}
        self.came: dict[str, Came] = {}  #: letters to runs of this process, and to its port

    def forget(self) -> None:
        """After a rollback, what was learned in the transaction isn't true."""
        self.claimed.clear()
        self.jobs.forget()
        self.lanes.forget()
        self.targets.forget()
        self.archived.clear()
        self.looked, self.whole = 0, False
        self.hints.clear()
        self.came.clear()

    def take_hints(self) -> list[Hint]:
        """What there is to tell, once."""
        came, self.came = self.came, {}
        hints = [
            Hint(kind, list(names), came if kind == "mail" else {})
            for kind, names in self.hints.items()
            if names
        ]
        self.hints.clear()
        return hints

    def archives(self, runs: Iterable[int]) -> None:
        """Runs may have archived journal rows from now on."""
        self.archived.update(runs)

    def hint(self, kind: HintKind, names: Iterable[str]) -> None:
        """Something to tell this process once it is durable."""
        known = self.hints.setdefault(kind, {})
        for name in names:
            known[name] = None

    def run_keys(self, ids: Iterable[str]) -> dict[str, int]:
        """The keys of those runs that there are."""
        keys: dict[str, int] = {}
        missing: list[str] = []
        for id in ids:
            key = self.claimed.get(id)
            if key is None:
                missing.append(id)
            else:
                keys[id] = key
        if missing:
            keys.update(_FIND_RUNS.rows(self.cx, (as_json(missing),)))
        return keys

    @property
    def floor(self) -> int:
        """The highest fence that a run had which was removed. Runs that come now have higher ones."""
        (floor,) = self.one("select value from counters where name = 'fence'")
        return int(floor)

    def raise_floor(self, fence: int) -> None:
        """A run with that fence is removed."""
        self.cx.execute("update counters set value = max(value, ?) where name = 'fence'", (fence,))

    def one(self, sql: str, *parameters: Any) -> Any:
        """The first row, or None."""
        return self.cx.execute(sql, parameters).fetchone()
