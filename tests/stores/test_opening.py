"""Opening a file that another process holds just now."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from segue.model.errors import StoreError
from segue.model.message import Mail
from segue.model.mode import DROP
from segue.model.run import CallRef, Spec
from segue.ports.store import History, NewRun, Turn
from segue.stores.sqlite import SqliteStore, patience, reader, writer
from segue.stores.sqlite.schema import VERSION
from segue.testing.store_contract.acts import create, newest


async def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    first = SqliteStore(str(path))
    await first.open()
    await first.close()
    cx = sqlite3.connect(path, isolation_level=None)
    cx.execute("begin immediate")
    store = SqliteStore(str(path), patience=timedelta(seconds=30))
    opening = asyncio.ensure_future(store.open())
    await asyncio.sleep(0.8)
    assert not opening.done()
    cx.execute("rollback")
    await asyncio.wait_for(opening, 10)
    await store.close()
    cx.execute("begin immediate")
    with pytest.raises(StoreError, match="another process kept it locked"):
        await SqliteStore(str(path), patience=timedelta(seconds=0.3)).open()
    cx.close()


async def test_looking_needs_no_lock_of_who_writes(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with opened(SqliteStore(str(path))) as store:
        await store.create([NewRun("a", Spec("flow", "f", b"[]"))], now=1.0)
    with locked(path):
        async with opened(SqliteStore(str(path), patience=timedelta(0), look=True)) as store:
            assert [head.id for head in await store.runs()] == ["a"]
            await store.bury(["w"])  # as an engine does first; it is left to those that write
            with pytest.raises(StoreError, match="opened to be looked at; open it to write"):
                await store.create([NewRun("b", Spec("flow", "f", b"[]"))], now=1.0)


@pytest.mark.parametrize("look", [False, True])
async def test_a_long_wait_is_told_of_once_with_the_cure(
    look: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "BUSY", 0.01)
    for module in (reader, writer):
        monkeypatch.setattr(module, "OPENING", 0.1)
        monkeypatch.setattr(module, "BUSY", 0.01)
    path = tmp_path / "run s.db"
    async with opened(SqliteStore(str(path))):
        pass
    store = SqliteStore(str(path), look=look)
    with locked(path, readers=look):
        opening = asyncio.ensure_future(store.open())
        await asyncio.sleep(0.05)
        assert not caplog.records
        async with asyncio.timeout(5):
            while not caplog.records:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not opening.done()
    await opening
    await store.close()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == (
        f"sqlite:{path}: another process keeps it locked; end that process (`fuser '{path}'` names it), "
        "or wait, up to 60 s"
    )


async def test_a_write_that_waits_long_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "WRITING", 0.3)
    path = tmp_path / "runs.db"
    async with opened(SqliteStore(str(path))) as store:
        with locked(path):
            creating = asyncio.ensure_future(store.create([NewRun("a", Spec("flow", "f", b"[]"))], now=1.0))
            async with asyncio.timeout(5):
                while not caplog.records:
                    await asyncio.sleep(0.01)
        assert (await creating)[0].new
    assert "another process keeps it locked" in caplog.text


_GROWING = """
import asyncio, resource, sys
from segue.model.run import CallRef, Spec
from segue.ports.store import NewRun
from segue.stores.sqlite import SqliteStore

async def main(path: str, limit: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = SqliteStore(path)
    await store.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    for n in range(3):
        try:
            await store.create([NewRun(f"{n}", Spec("flow", "f", b"[]" + b" " * 100_000 * (n != 2)))], now=1.0)
        except Exception as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    print(*[head.id for head in await store.runs()])
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, most))
        await SqliteStore(path + ".other").open()
    except Exception as error:
        print(error)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_a_limit_on_the_size_of_files_is_called_that(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    said = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _GROWING, path, "400000"], capture_output=True, text=True
    )
    limit = "this process may write no file above {} bytes; raise that limit (`ulimit -f unlimited`, "
    first, there, other = said.stdout.splitlines()
    assert f"'sqlite:{path}': {limit.format('400,000')}" in first
    assert there == "1 2"  # it goes on
    assert f"'sqlite:{path}.other': {limit.format('8,000')}" in other


@asynccontextmanager
async def opened(store: SqliteStore) -> AsyncGenerator[SqliteStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def locked(path: Path, *, readers: bool = False) -> Generator[None]:
    """As another process keeps it that writes; against `readers` too, as one that brings it up after a crash."""
    cx = sqlite3.connect(path, isolation_level=None)
    if readers:
        cx.execute("pragma locking_mode = exclusive")
    cx.execute("begin immediate")
    cx.execute("create table other(k)")
    try:
        yield
    finally:
        cx.execute("rollback")
        cx.close()


_OPENER = """
import asyncio, sys
from segue.stores.sqlite import SqliteStore

async def main() -> None:
    for path in sys.argv[1:]:
        store = SqliteStore(path)
        await store.open()
        await store.close()

asyncio.run(main())
"""


@pytest.mark.slow
async def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.db") for number in range(15)]
    openers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", _OPENER, *paths, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    ends = await asyncio.gather(*(opener.communicate() for opener in openers))
    assert [opener.returncode for opener in openers] == [0] * 4, ends

    async def many(path: str) -> None:
        stores = [SqliteStore(path) for _ in range(8)]
        await asyncio.gather(*(store.open() for store in stores))
        await asyncio.gather(*(store.close() for store in stores))

    for number in range(15):
        await many(str(tmp_path / f"again-{number}.db"))


#: As before large contents of runs and questions lay among all others, and before runs could be removed.
_WITHOUT_CONTENTS = (
    " delete from counters where name = 'fence';"
    " alter table specs drop column args; alter table results drop column content;"
    " alter table asks drop column shown; alter table results rename column small to value;"
)
#: As before the newest runs were found by whose they are.
_WITHOUT_WHOSE = (
    " drop index runs_job; drop index runs_under; drop index runs_status; update runs set job = 0 where job < 0;"
    " create index runs_job on runs(job, status, id) where job > 0;"
    " create index runs_rare on runs(status, id) where status in (2, 4, 5);"
)


async def test_who_is_at_work_on_a_file_that_a_newer_segue_opened_takes_nothing_for_empty(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs.db"
    store = SqliteStore(str(path))
    await store.open()
    await store.create(
        [NewRun("a", Spec("flow", "f", b"[]")), NewRun("b", Spec("flow", "f", b"[]"))], now=0.0
    )
    await store.claim("w", 1, 60.0, now=0.0)
    await store.commit([Turn(run="a", fence=1, status="done", value=b"1")])
    with closing(sqlite3.connect(path)) as cx:
        cx.executescript(
            "delete from counters where name = 'fence'; alter table results rename column small to value;"
            + _WITHOUT_WHOSE
            + " pragma user_version = 14"
        )
    with pytest.raises(StoreError, match="upgrade segue"):  # as an older one finds the tables of a newer one
        await store.get("a")
    with pytest.raises(StoreError, match="upgrade segue"):
        await store.claim("w", 1, 60.0, now=0.0)
    newer = SqliteStore(str(path))
    await newer.open()
    head = await newer.get("a")
    assert head is not None
    assert head.value == b"1"
    assert [one.head.id for one in await newer.claim("w", 1, 60.0, now=0.0)] == ["b"]
    await newer.close()
    await store.close()


async def test_who_is_at_work_on_a_file_whose_tables_a_newer_segue_changed_takes_no_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs.db"
    store = SqliteStore(str(path))
    await store.open()
    run = NewRun("a", Spec("flow", "f", b"[]"))
    await store.create([run], now=0.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as cx:
        cx.execute(f"pragma user_version = {VERSION + 1}")
        with pytest.raises(StoreError, match="upgrade segue"):
            await store.claim("w", 1, 60.0, now=0.0)
        with pytest.raises(StoreError, match="upgrade segue"):
            await store.create([msgspec.structs.replace(run, id="b")], now=0.0)
        cx.execute(f"pragma user_version = {VERSION}")
        assert [one.head.id for one in await store.claim("w", 2, 60.0, now=0.0)] == ["a"]
    await store.close()


async def test_what_actors_changed_is_kept_when_its_table_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = SqliteStore(str(path))
    await store.open()
    await store.create([NewRun("a", Spec("actor", "f", b"[]"))], now=0.0)
    await store.claim("w", 1, 60.0, now=0.0)
    await store.close()
    cx = sqlite3.connect(path, isolation_level=None)
    cx.executescript(
        "drop table deltas; create table deltas(k integer primary key autoincrement, run integer not null,"
        " delta blob not null); create index deltas_run on deltas(run);"
        " insert into deltas(run, delta) select k, x'31' from runs; insert into deltas(run, delta) select k, x'32'"
        " from runs; drop table budgets; drop table reservations; drop table wanting;"
        + _WITHOUT_CONTENTS
        + _WITHOUT_WHOSE
        + " pragma user_version = 10"
    )
    cx.close()
    store = SqliteStore(str(path))
    await store.open()
    loaded = await store.load("a")
    assert loaded is not None
    assert loaded.deltas == [b"1", b"2"]
    await store.commit([Turn(run="a", fence=1, delta=b"3")])
    loaded = await store.load("a")
    assert loaded is not None
    assert loaded.deltas == [b"1", b"2", b"3"]
    await store.close()


async def test_whose_runs_of_an_older_file_are_is_known(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = SqliteStore(str(path))
    await store.open()
    for id in ("a", "b" * 300):
        await create(store, id, f"row of {id}", job=f"job of {id}")
        await create(store, f"child of {id}", f"own of {id}", parent=CallRef(id, "0.1", 2, b"digest"))
    await create(store, "orphan", parent=CallRef("never", "", 0))
    await create(store, "unread", parent=CallRef("a", "", 0))
    await store.close()
    with closing(sqlite3.connect(path)) as cx:
        cx.executescript(
            "update specs set parent = x'94a1' where run = (select k from runs where id = 'unread');"
            + _WITHOUT_WHOSE
            + " pragma user_version = 18"
        )
    store = SqliteStore(str(path))
    await store.open()
    assert await newest(store, parent="a") == "own of a child of a"
    assert await newest(store, parent="b" * 300) == f"own of {'b' * 300} child of {'b' * 300}"
    assert await newest(store, job="job of a", status=["ready"]) == "row of a a"
    assert await newest(store, job="") == "unread orphan"
    assert (await newest(store, status=["ready"])).count("of") == 6
    await store.close()


@pytest.mark.parametrize("look", [False, True])
async def test_a_file_of_the_version_before_is_brought_up_to_date(look: bool, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = SqliteStore(str(path))
    await store.open()
    spec = Spec("flow", "f", b"[]", history=DROP)
    await store.create([NewRun("a", spec), NewRun("old", spec)], now=0.0)
    await store.claim("w", 2, 60.0, now=0.0)
    await store.bury(["w"])
    await store.commit([Turn(run="old", fence=1, entries=b"1", blobs=[(b"d", b"D")])])
    await store.commit([Turn(run="old", fence=1, checkpoint=b"s", entries=b"2", status="done")])
    await store.deliver([Mail("a", "x", 1, "tell")], now=0.0)
    await store.close()
    cx = sqlite3.connect(path, isolation_level=None)
    cx.executescript(
        "drop table waiting; drop table dead; drop table deltas; drop table ports;"
        " drop index lines_same; drop index lines_run; drop table answers;"
        " create index lines_run on lines(run) where status = 0;"
        " alter table lines drop column same;"
        " alter table lines drop column deserted;"
        " drop table budgets; drop table reservations; drop table wanting;"
        " drop index lines_due; drop index lines_hedged; drop table unclaimed; alter table lines drop column due;"
        " alter table lines drop column late; alter table lines drop column promoted;"
        " alter table lines drop column hedged;"
        " drop index lines_batch; create index lines_batch on lines(batch, status, id);"
        " alter table lines drop column unwanted; alter table inbox drop column state;"
        " alter table runs drop column bound; alter table runs drop column lapses;"
        " alter table runs drop column progress; alter table runs drop column swept; drop index runs_ready;"
        " create index runs_ready on runs(rank) where status = 0 and lease is null;"
        " alter table runs drop column target; drop table sealed; drop table dropped; drop table holds;"
        " drop table targets;" + _WITHOUT_CONTENTS + _WITHOUT_WHOSE + " pragma user_version = 1"
    )
    cx.close()
    store = SqliteStore(str(path), look=look)
    await store.open()
    assert [letter.mail.number for letter in await store.inbox("a", 0)] == [1]
    while await store.sweep(now=1.0, limit=9):  # who else held those contents isn't known
        pass
    assert (await store.history("old"), await store.get_blobs([b"d"])) == (
        History([b"2"], 0, 1),
        {b"d": b"D"},
    )
    assert await store.budgets() == []
    await store.create([NewRun("b", Spec("flow", "f", b"[]", mailbox=1))], now=0.0)
    assert await store.deliver([Mail("b", "x", n, "tell") for n in (1, 2)], now=0.0) == ["delivered", "full"]
    (claimed,) = await store.claim("w", 1, 60.0, now=0.0)
    await store.commit([Turn(run="a", fence=claimed.head.fence, status="done")])
    assert [dead.mail.number for dead in await store.dead_letters()] == [1]
    await store.close()
    fresh = SqliteStore(str(tmp_path / "fresh.db"))
    await fresh.open()
    await fresh.close()
    assert indices(path) == indices(tmp_path / "fresh.db")


def indices(path: Path) -> list[tuple[str, str]]:
    cx = sqlite3.connect(path)
    found = cx.execute("select name, sql from sqlite_master where type = 'index' and sql > '' order by name")
    rows = [(name, " ".join(sql.split())) for name, sql in found]
    cx.close()
    return rows
