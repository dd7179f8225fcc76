"""The tables, how a file is opened, and what its troubles mean.

Rows that change often are narrow: what is large or rarely read of a run lies in tables of its own. Journal
and inbox are append tables with a small index (one clustered by run costs 2.5 times as much to write), and
their keys are never used again, for a checkpoint and `Turn.seen` remember them.
"""

from __future__ import annotations

import shutil
import sqlite3
import zlib
from pathlib import Path
from typing import Final

import msgspec

from ...model.errors import UNREADABLE, StoreError
from ...model.run import CallRef
from . import ceiling

#: The version of the tables, as `user_version` has it.
VERSION: Final = 19

#: So large the log stays, in bytes, that grew for as long as somebody read the file, say to copy it.
LOG: Final = 64_000_000

#: Marks a file as segue's, as `application_id` has it: "sgue".
APPLICATION: Final = 0x73677565

READY, PARKED, HELD, DONE, FAILED, CANCELLED = range(6)
STATUSES: Final = ("ready", "parked", "held", "done", "failed", "cancelled")
#: Of a row that is of no run any more: see `removal`.
GONE: Final = 6
STATUS_NUMBER: Final = {name: number for number, name in enumerate(STATUSES)}

WAITING, TAKEN, FOLLOWING = 0, 1, 7
LINE_STATUSES: Final = ("waiting", "taken", "ok", "error", "expired", "missing", "cancelled", "following")
LATES: Final = ("wait", "live", "fail")
LINE_NUMBER: Final = {name: number for number, name in enumerate(LINE_STATUSES)}

#: Of a run, that neither its target nor its code is among those in `:but`. What a run is of is written down as its
#: code, which begins with its target and a newline; runs of older files have the target alone.
_BUT: Final = "in (select value from json_each(:but))"
STRANGE: Final = f"""target not in (
    select k from targets where name {_BUT} or substr(name, 1, instr(name, char(10)) - 1) {_BUT}
)"""

#: Of a letter that takes room in a bounded mailbox, and of one that was handled and is kept.
ROOM, KEPT = 1, 2

ASK_STATES: Final = ("open", "answered", "closed")

#: Mail that waits for room in a bounded mailbox, and mail that nobody took.
_UNTAKEN: Final = """
create table waiting(k integer primary key autoincrement, run integer not null, mail blob not null);
create index waiting_run on waiting(run);
create table dead(k integer primary key autoincrement, recipient text not null, letter blob not null);
create index dead_recipient on dead(recipient);
"""

#: What an actor's turns changed since its checkpoint. All of a run go together, so keys that are used again keep the
#: order; counting them up for ever would write another page with each turn.
_DELTAS: Final = """
create table deltas(k integer primary key, run integer not null, delta blob not null);
create index deltas_run on deltas(run);
"""

#: Letters to processes.
_PORTS: Final = """
create table ports(k integer primary key autoincrement, port text not null, mail blob not null);
create index ports_port on ports(port);
"""

#: What is known of lines that may be late, and what was paid for the slower of two answers.
_LATE: Final = """
create index lines_due on lines(lane, due) where due > 0 and promoted = 0 and status <= 1 and unwanted = 0;
create table unclaimed(k integer primary key, run integer not null, usage blob not null);
create index unclaimed_run on unclaimed(run);
"""

#: Budgets, what is reserved of them by calls under way, and calls that wait for room; sums in nano-dollars and tokens.
#: What is reserved is summed where it changes, so that no one forgets to.
_BUDGETS: Final = """
create table budgets(
    k integer primary key, id text not null unique, nano_limit integer, token_limit integer,
    nano_spent integer not null default 0, token_spent integer not null default 0,
    nano_reserved integer not null default 0, token_reserved integer not null default 0
);
create table reservations(
    id text not null, budget integer not null, run integer not null, nanos integer not null,
    tokens integer not null, primary key(id, budget)
) without rowid;
create index reservations_run on reservations(run);
-- short: there is no room for it before its budget is raised
create table wanting(
    k integer primary key autoincrement, id text not null unique, budget integer not null, run integer not null,
    nanos integer not null, tokens integer not null, short integer not null
);
create index wanting_next on wanting(budget, k) where short = 0;
create index wanting_run on wanting(run);
create trigger reservation_made after insert on reservations begin
    update budgets set nano_reserved = nano_reserved + new.nanos, token_reserved = token_reserved + new.tokens
    where k = new.budget;
end;
create trigger reservation_over after delete on reservations begin
    update budgets set nano_reserved = nano_reserved - old.nanos, token_reserved = token_reserved - old.tokens
    where k = old.budget;
end;
"""

#: Which lines a job has, in the order in which they came: what is done to many of them touches few pages.
_OF_JOBS: Final = """
create index lines_batch on lines(batch, status) where batch is not null;
create index lines_hedged on lines(hedged) where hedged is not null;
"""

#: Which lines and questions a run has, those that are over too: it may be removed.
_OF_RUNS: Final = """
create index lines_run on lines(run, status);
create index asks_run on asks(run, state);
"""

#: Whose runs are, and how they stand; in each, the newest are last. All have some rows only, and are used where a query
#: says so: else SQLite would look for what is ready among all runs that are, or are of no job.
_WHOSE: Final = f"""
create index runs_job on runs(job, status) where job > 0;
create index runs_under on runs(job) where job <= 0;
create index runs_status on runs(status) where status < {GONE};
"""

#: Past turns, packed: journal rows after `since` and up to `upto`, kept `until` some time, or for ever. How many were
#: dropped. Which contents came with which run's turns, after which journal row; run 0 for those of unknown ones.
_PAST: Final = """
create table sealed(
    k integer primary key autoincrement, run integer not null, since integer not null, upto integer not null,
    until real, count integer not null, rows blob not null
);
create index sealed_run on sealed(run);
create index sealed_until on sealed(until) where until is not null;
create table dropped(run integer primary key, count integer not null);
create table holds(k integer primary key, digest blob not null, run integer not null, at integer not null);
create index holds_run on holds(run, at);
create index holds_digest on holds(digest);
create table targets(k integer primary key, name text not null unique);
"""

#: What is known of requests that are the same: lines without an outcome, by what they ask and by run, and answers.
_SAME: Final = """
create index lines_same on lines(same) where same is not null and status in (0, 1, 7);
create table answers(k integer primary key, same text not null unique, at real not null, value blob not null);
create index answers_at on answers(at);
"""

#: What a file of each older version lacks.
_UPGRADES: Final = {
    1: "alter table runs add column bound integer not null default 0;\n"
    "alter table inbox add column state integer not null default 0;\n" + _UNTAKEN,
    2: _DELTAS,
    3: "alter table lines add column unwanted integer not null default 0;",
    4: "alter table runs add column lapses integer not null default 0;\n"
    "alter table runs add column progress integer not null default 0;",
    5: _PORTS,
    6: "alter table lines add column due real not null default 0;\n"
    "alter table lines add column late integer not null default 0;\n"
    "alter table lines add column promoted integer not null default 0;\n"
    "alter table lines add column hedged integer;\n" + _LATE,
    7: "drop index lines_batch;\ndrop index if exists lines_hedged;\n" + _OF_JOBS,
    8: "alter table runs add column swept integer not null default 0;\n"
    "alter table runs add column target integer not null default 0;\n"
    "drop index runs_ready;\n"
    "create index runs_ready on runs(rank, target) where status = 0 and lease is null;\n"
    + _PAST
    + "insert into holds(digest, run, at) select digest, 0, 0 from blobs;\n",
    9: "alter table lines add column same text;\n"
    "alter table lines add column deserted integer not null default 0;\n" + _SAME,
    10: "alter table deltas rename to older;\ndrop index deltas_run;\n"
    + _DELTAS
    + "insert into deltas(run, delta) select run, delta from older order by k;\ndrop table older;",
    11: _BUDGETS,
    12: "",  # an older segue looks for targets, and would claim what it doesn't know again and again
    13: "alter table specs add column args blob;\n"
    "alter table results add column content blob;\n"
    "alter table asks add column shown blob;",
    14: "alter table results rename column value to small;",  # else one at work would take what is large for empty
    15: "drop index runs_ready;\n"
    "create index runs_ready on runs(rank, k, target) where status = 0 and lease is null;",
    16: "insert into counters values('fence', 0);",
    17: "drop index lines_run;\ndrop index if exists lines_same_run;\ndrop index asks_run;\n" + _OF_RUNS,
    18: "drop index runs_job;\ndrop index runs_rare;\n"
    "update runs set job = -coalesce(\n"
    "    (select p.k from specs s join runs p on p.id = started_by(s.parent) where s.run = runs.k), 0)\n"
    "where job = 0 and k in (select run from specs where parent is not null);\n" + _WHOSE,
}

TABLES: Final = (
    """
create table counters(name text primary key, value integer not null) without rowid;
insert into counters values('finished', 0), ('fence', 0);  -- of runs that were removed, the highest

create table jobs(
    k integer primary key, id text not null unique, target text, created real, total integer
);

-- rank is the priority, negated; job the key of the run's job, or, negated, of the run that started it, or 0;
-- base the journal key after which the live journal begins;
-- a run is claimed while lease isn't null; bound is its mailbox's size and what it does when it is full, 0 for none;
-- lapses counts its claims that lapsed since the last commit, or since its newest journal row was progress;
-- up to swept, its archived journal is sealed; target is 0 in runs of older files; the run '' is none, see removal.py
create table runs(
    k integer primary key, id text not null unique, status integer not null, rank integer not null,
    fence integer not null, worker text, lease real, wake real, reason text not null,
    job integer not null, finished integer not null, base integer not null, updated real not null, usage blob,
    bound integer not null default 0, lapses integer not null default 0, progress integer not null default 0,
    swept integer not null default 0, target integer not null default 0
);
create index runs_ready on runs(rank, k, target) where status = 0 and lease is null;
create index runs_due on runs(wake) where wake is not null;
create index runs_leased on runs(lease) where lease is not null;
create index runs_finished on runs(job, finished) where finished > 0;

-- large contents lie among blobs: args, content and shown are their digests, and spec, small and question lack them
create table specs(run integer primary key, spec blob not null, parent blob, args blob);
create table states(run integer primary key, checkpoint blob, pool blob);
create table results(run integer primary key, small blob, error blob, content blob);

create table journal(k integer primary key, run integer not null, entries blob not null);
create index journal_run on journal(run);
-- state: 0, or 1 if it takes room in a bounded mailbox, or 2 if it was handled and is kept
create table inbox(
    k integer primary key autoincrement, run integer not null, mail blob not null, state integer not null default 0
);
create index inbox_run on inbox(run);

-- the highest number that a run ever got from a sender
create table marks(
    run integer not null, sender text not null, number integer not null, primary key(run, sender)
) without rowid;

create table asks(
    k integer primary key autoincrement, id text not null unique, run integer not null,
    recipient text not null, state integer not null, question blob not null, shown blob
);
create index asks_recipient on asks(recipient) where state = 0;

create table blobs(digest blob primary key, content blob not null);

create table lanes(
    k integer primary key, name text not null unique, worker text not null default '',
    fence integer not null default 0, lease real not null default 0,
    waiting integer not null default 0, size integer not null default 0
);
create table lines(
    k integer primary key, id text not null unique, lane integer not null, run integer not null,
    path text not null, n integer not null, size integer not null, created real not null,
    attempt integer not null, status integer not null, batch integer, unwanted integer not null default 0,
    due real not null default 0, late integer not null default 0, promoted integer not null default 0,
    hedged integer, same text, deserted integer not null default 0
);
create index lines_waiting on lines(lane) where status = 0;
create table bodies(line integer primary key, body blob not null);
-- lines.unwanted: nobody waits for it any more, though it is in a provider job; promoted: its batch is one of live
-- calls, hedged the provider job that it is in as well, or once that has answered, the one of live calls; same: what
-- it asks, where another's answer will do; deserted: its own run doesn't wait for it any more, others that follow it do
create table batches(
    k integer primary key, id text not null unique, lane integer not null, open integer not null,
    data blob not null
);
create index batches_open on batches(lane) where open;

-- what waits in a lane is counted where it changes, so that no one forgets to
create trigger line_waits after insert on lines when new.status = 0 begin
    update lanes set waiting = waiting + 1, size = size + new.size where k = new.lane;
end;
create trigger line_leaves after update of status on lines when old.status = 0 and new.status <> 0 begin
    update lanes set waiting = waiting - 1, size = size - old.size where k = old.lane;
end;
create trigger line_returns after update of status on lines when old.status <> 0 and new.status = 0 begin
    update lanes set waiting = waiting + 1, size = size + new.size where k = new.lane;
end;
"""
    + _UNTAKEN
    + _DELTAS
    + _PORTS
    + _LATE
    + _OF_JOBS
    + _OF_RUNS
    + _WHOSE
    + _PAST
    + _SAME
    + _BUDGETS
)


def connect(path: str, *, busy: float, write: bool) -> sqlite3.Connection:
    """A connection as this store wants it. `busy`: seconds for which SQLite itself waits for a lock.

    A file that isn't ours is refused before anything in it is changed.
    """
    cx = sqlite3.connect(
        path, timeout=busy, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    try:
        if write:
            cx.execute("begin")  # one look, whatever other processes create meanwhile
            refuse_strange(cx, f"sqlite:{path}")
            cx.execute("rollback")
            cx.execute("pragma page_size = 4096")
            cx.execute("pragma journal_mode = wal")
            cx.execute("pragma synchronous = full")
            cx.execute(f"pragma journal_size_limit = {LOG}")
            # Debian's and Apple's SQLite write zeros over all that is deleted: a request of 6 KB costs 12 KB more.
            cx.execute("pragma secure_delete = fast")  # only where that page is written anyway
        else:
            cx.execute("pragma query_only = 1")
        tune(cx)
    except BaseException:
        cx.close()
        raise
    return cx


def tune(cx: sqlite3.Connection) -> None:
    """What holds of each connection."""
    cx.text_factory = _text
    cx.execute("pragma cache_size = -8000")  # more made nothing faster, at a million lines neither
    cx.execute("pragma temp_store = memory")


def _text(data: bytes) -> str:
    """Text of a damaged file may be no UTF-8: that mustn't keep what lies beside it from being read."""
    return data.decode("utf-8", "replace")


def refuse_strange(cx: sqlite3.Connection, address: str) -> int:
    """Raise for a file that isn't ours, or newer than we are; its version."""
    (version,) = cx.execute("pragma user_version").fetchone()
    (application,) = cx.execute("pragma application_id").fetchone()
    (tables,) = cx.execute("select count(*) from sqlite_master").fetchone()
    if application == APPLICATION:
        _refuse_newer(version, address)
    if application != APPLICATION and (tables or version):
        raise StoreError(address, "it is another program's database", "give the path of a new file")
    return int(version)


def look_again(cx: sqlite3.Connection, address: str) -> None:
    """Raise if a newer segue has changed the tables since the file was opened."""
    (version,) = cx.execute("pragma user_version").fetchone()
    _refuse_newer(version, address)


def _refuse_newer(version: int, address: str) -> None:
    if version > VERSION:
        raise StoreError(
            address,
            f"its tables are of version {version}, and this segue knows versions up to {VERSION}",
            "upgrade segue here, or use the version that wrote it",
        )


def prepare(cx: sqlite3.Connection, address: str) -> None:
    """Create the tables in an empty file, or what one of an older version lacks. Inside a transaction."""
    version = refuse_strange(cx, address)
    if version == VERSION:
        return
    cx.create_function("started_by", 1, _started_by, deterministic=True)
    scripts = [TABLES] if version == 0 else [_UPGRADES[older] for older in range(version, VERSION)]
    for statement in (statement for script in scripts for statement in _statements(script)):
        cx.execute(statement)
    cx.execute(f"pragma user_version = {VERSION}")
    cx.execute(f"pragma application_id = {APPLICATION}")


_read_call = msgspec.msgpack.Decoder(CallRef).decode


def _started_by(parent: bytes | None) -> str | None:
    """Whose call it is that started a run; one that can't be read is nobody's."""
    try:
        return None if parent is None else _read_call(parent).run
    except UNREADABLE:
        return None


def _statements(script: str) -> list[str]:
    """Split a script, for `executescript` would commit first."""
    out, piece = [], ""
    for line in script.splitlines():
        piece += line + "\n"
        if sqlite3.complete_statement(piece):
            out.append(piece)
            piece = ""
    return out


def is_busy(error: BaseException) -> bool:
    """Whether another process holds the file just now."""
    return isinstance(error, sqlite3.OperationalError) and _code(error) in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def is_trouble(error: BaseException) -> bool:
    """Whether it is the file or the disk that failed, so that no other write would fare better now."""
    return isinstance(error, sqlite3.Error) and _code(error) in _TROUBLES


def lacks_room(error: BaseException, path: str) -> bool:
    """Whether the disk is full."""
    if not isinstance(error, sqlite3.Error) or ceiling.met(error) is not None:
        return False
    code = _code(error)
    # Of its index, which SQLite can't make then, it says no more than that the disk reports an error.
    return code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and is_full(path))


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_full(path: str) -> bool:
    """Whether the disk has no room for what SQLite makes beside a file to open it."""
    try:
        return shutil.disk_usage(Path(path).absolute().parent).free < 1 << 16
    except OSError:
        return False


#: Of a file that can't be written: what is wrong, and what is to be done.
UNWRITABLE: Final = ("it can't be written", "check the owner and mode of the file and its folder")

_TROUBLES: Final = {
    sqlite3.SQLITE_FULL: ("the disk or its quota is full", "make room; nothing committed is lost"),
    sqlite3.SQLITE_IOERR: ("the disk reports an error", "check the disk and the file system's log"),
    sqlite3.SQLITE_READONLY: UNWRITABLE,
    sqlite3.SQLITE_PERM: UNWRITABLE,
    sqlite3.SQLITE_CORRUPT: ("the file is damaged", "restore a backup, or try `sqlite3 FILE .recover`"),
    sqlite3.SQLITE_NOTADB: ("the file isn't a SQLite database", "give the path of a new or of segue's file"),
    sqlite3.SQLITE_BUSY: (
        "another process kept it locked for too long",
        "end that process (`fuser FILE` names it), or wait for it",
    ),
}


def trouble(address: str, path: str, error: BaseException) -> BaseException:
    """An error of SQLite's, or of a record that can't be read, as one that names the cure; any other as it is."""
    if isinstance(error, (*UNREADABLE, zlib.error)):
        return StoreError(
            address,
            f"a record in it can't be read: {error}",
            "upgrade segue here if a newer one works on this file; else it is damaged: restore a backup",
        )
    if not isinstance(error, sqlite3.Error):
        return error
    if str(error).startswith("no such "):
        what = f"its tables aren't those that this segue knows ({error}): a newer one has changed them"
        return StoreError(address, what, "end this process, and upgrade segue here")
    if (limit := ceiling.met(error)) is not None:
        return StoreError(address, f"this process may write no file above {limit:,} bytes", ceiling.CURE)
    code = sqlite3.SQLITE_FULL if lacks_room(error, path) else _code(error)
    known = _TROUBLES.get(code)
    if known is not None:
        return StoreError(address, *known)
    if code == sqlite3.SQLITE_CANTOPEN:
        if Path(path).is_dir():
            return StoreError(address, "that is a folder", "give the path of a file in it")
        folder = Path(path).resolve().parent
        if not folder.is_dir():
            return StoreError(
                address, f"there is no folder {str(folder)!r}", "create it, or give another path"
            )
        return StoreError(
            address, "the file can't be opened", "check the owner and mode of it and its folder"
        )
    return StoreError(address, f"SQLite says {str(error)!r}", "this may be a bug; please report it")
