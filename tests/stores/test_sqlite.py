"""The store in a SQLite file: the contract, several processes, crashes, and what can be wrong with a file."""

import asyncio
import contextlib
import gc
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from datetime import timedelta
from pathlib import Path

import pytest

import segue
from segue.model.entry import Pool
from segue.model.errors import StoreError
from segue.model.lane import Line, LineOutcome
from segue.model.message import Mail
from segue.model.run import CallRef, Spec
from segue.ports.store import Lease, NewRun, Turn
from segue.stores.sqlite import SqliteStore, patience, place, schema
from segue.stores.sqlite.bulk import Blobs
from segue.testing.store_contract import StoreContract, acts

SPEC = Spec("flow", "greet", b"[]")


class TestSqliteStore(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path):
        store = SqliteStore(str(tmp_path / "runs.db"))
        await store.open()
        yield store
        await store.close()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "runs.db")


@pytest.fixture
async def store(path):
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


def process(path, *args):
    """A program of its own on the same file."""
    source = str(Path(segue.__file__).parents[1])
    command = [sys.executable, str(Path(__file__).with_name("hammer.py")), path, *args]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source}
    )


async def start(store, *ids):
    await store.create([NewRun(id, SPEC) for id in ids], now=0.0, worker="w", ttl=1e9)


async def append(store, *rows):
    """Have rows appended that were ordered in one turn of the loop; what came of each."""
    loop = asyncio.get_running_loop()
    came = [loop.create_future() for _ in rows]
    for row, future in zip(rows, came, strict=True):
        assert not store.append(*row, future.set_result)
    return await asyncio.gather(*came)


# ---------------------------------------------------------------- groups
async def test_new_runs_among_those_that_are_there_get_what_is_theirs(store):
    def new(n):
        return NewRun(f"r{n:03}", Spec("flow", "greet", b"[%d]" % n))

    await store.create([new(n) for n in range(0, 300, 7)], now=0.0, worker="w", ttl=1e9)
    created = await store.create([*map(new, range(300)), new(5)], now=0.0, worker="w", ttl=1e9)
    assert [one.new for one in created] == [n % 7 != 0 for n in range(300)] + [False]
    assert [one.head.spec.args for one in created[:300]] == [b"[%d]" % n for n in range(300)]
    await append(store, *((f"r{n:03}", 1, b"%d" % n) for n in range(300)))
    for n in range(300):
        loaded = await store.load(f"r{n:03}")
        assert (loaded.head.spec.args, loaded.journal) == (b"[%d]" % n, [b"%d" % n])


async def test_of_rows_that_go_together_each_is_written_under_its_own_fence(store):
    await start(store, "a", "b", "c")
    assert await append(store, ("a", 1, b"1"), ("b", 9, b"no"), ("c", 1, b"1")) == [
        "committed",
        "fenced",
        "committed",
    ]
    assert await append(store, ("b", 9, b"no")) == ["fenced"]
    assert await append(store, ("a", 0, b"no"), ("a", 1, b"2"), ("c", 1, b"2")) == [
        "fenced",
        "committed",
        "committed",
    ]
    assert await append(store, ("nobody", 1, b"no"), ("c", 1, b"3")) == ["fenced", "committed"]
    assert [(await store.history(id)).rows for id in "abc"] == [[b"1", b"2"], [], [b"1", b"2", b"3"]]


async def test_the_log_is_short_where_one_commits_after_the_other_and_longer_where_many_do(store, path):
    await start(store, *(f"r{n}" for n in range(100)))
    for _ in range(30):
        await append(store, ("r0", 1, bytes(400_000)))
    assert os.path.getsize(path + "-wal") < 1200 * 4120
    for _ in range(6):
        await append(store, *((f"r{n}", 1, bytes(50_000)) for n in range(100)))
    assert 3000 * 4120 < os.path.getsize(path + "-wal") < 6000 * 4120


async def test_the_log_is_cut_that_grew_while_somebody_read_the_file(path, monkeypatch):
    monkeypatch.setattr(schema, "LOG", 6_000_000)
    store = SqliteStore(path)
    await store.open()
    await start(store, "r")
    reader = sqlite3.connect(path)
    reader.execute("begin").execute("select * from runs").fetchall()
    for _ in range(40):
        await append(store, ("r", 1, bytes(400_000)))
    assert os.path.getsize(path + "-wal") > 15_000_000
    reader.close()
    for _ in range(10):
        await append(store, ("r", 1, bytes(400_000)))
    assert os.path.getsize(path + "-wal") <= 6_000_000
    await store.close()


async def test_a_copy_that_sqlite_makes_of_a_file_at_work_is_whole(store, path, tmp_path):
    program = process(path, "write", "1")
    acknowledged = int(program.stdout.readline())
    copy = str(tmp_path / "monday.db")
    with contextlib.closing(sqlite3.connect(path)) as reader:
        reader.execute("vacuum into ?", (copy,))
    program.kill()
    program.communicate()
    copied = SqliteStore(copy)
    await copied.open()
    rows = (await copied.history("r0")).rows
    assert len(rows) >= acknowledged
    assert rows == [b"%d" % number for number in range(len(rows))]
    await copied.close()


# ---------------------------------------------------------------- several processes, crashes
async def test_processes_share_a_file_and_each_run_is_claimed_once(store, path):
    ids = {f"r{i:03}" for i in range(150)}
    programs = [process(path, "work", str(len(ids)), f"p{i}") for i in range(3)]
    claimed = []
    for program in programs:
        out, _ = await asyncio.to_thread(program.communicate, timeout=50)
        assert program.returncode == 0
        claimed.append(out.split())
    assert sorted(id for part in claimed for id in part) == sorted(ids)
    heads = await store.finished("j", 0, 1000)
    assert {head.id for head in heads} == ids
    assert [head.finished for head in heads] == list(range(1, len(ids) + 1))
    for worker, part in enumerate(claimed):
        for id in part:
            assert (await store.history(id)).rows == [b"p%d" % worker] * 3
    mail = await store.inbox("sink", 0)
    assert sorted(letter.mail.sender for letter in mail) == sorted(f"run:{id}" for id in ids)


@pytest.mark.parametrize("group", [1, 40])
async def test_what_was_acknowledged_survives_sigkill(path, group):
    program = process(path, "write", str(group))
    acknowledged = 0
    for line in program.stdout:
        acknowledged = int(line)
        if acknowledged >= 200:
            program.send_signal(signal.SIGKILL)
            break
    for line in program.stdout:
        acknowledged = int(line)
    program.wait()
    program.stdout.close()
    assert program.returncode == -signal.SIGKILL
    store = SqliteStore(path)
    await store.open()
    rows = []
    for run in range(group):
        journal = (await store.history(f"r{run}")).rows
        numbers = [int(row) for row in journal]
        assert numbers == list(range(run, run + group * len(numbers), group))
        rows += numbers
    assert set(range(acknowledged)) <= set(rows)
    assert await store.claim("other", 10, 1.0, now=0.0) == []
    assert len(await store.claim("other", 100, 1.0, now=1e12)) == group
    await store.close()


async def test_what_another_process_archived_is_sealed_too(store, path):
    assert await store.sweep(now=0.0, limit=16) == 0
    other = SqliteStore(path)
    await other.open()
    await start(other, "a")
    for row in (b"1", b"2"):
        await other.commit([Turn(run="a", fence=1, entries=row, checkpoint=b"state")])
    await other.close()
    assert (await store.history("a", rows=False)).archived == 1
    assert await store.sweep(now=0.0, limit=16) == 1
    assert await store.sweep(now=0.0, limit=16) == 0
    with sqlite3.connect(path) as file:
        assert file.execute("select count(*) from sealed").fetchone() == (1,)
    file.close()


async def test_an_order_that_fails_costs_its_neighbours_no_hint(store):
    await start(store, "a")
    await store.commit([Turn(run="a", fence=1, status="parked")])
    hints = []
    store.subscribe(lambda hint: hints.append((hint.kind, list(hint.runs))))
    orders = [store.deliver([Mail(to, "x", 1, "tell")], now=0.0) for to in ("a", "\ud800")]
    delivered, failed = await asyncio.gather(*orders, return_exceptions=True)
    assert delivered == ["delivered"]
    assert isinstance(failed, UnicodeEncodeError)
    assert hints == [("ready", ["a"])]


async def test_reopened_it_is_as_it_was(path):
    first = SqliteStore(path)
    await first.open()
    await start(first, "a", "b")
    await first.deliver([Mail("a", "x", 1, "tell")], now=0.0)
    await first.commit([Turn(run="a", fence=1, entries=b"1"), Turn(run="b", fence=1, status="done")])
    before = await first.load("a")
    await first.close()
    second = SqliteStore(path)
    await second.open()
    assert await second.load("a") == before
    assert await second.deliver([Mail("a", "x", 1, "tell")], now=0.0) == ["duplicate"]
    assert await second.commit([Turn(run="a", fence=1, entries=b"2", status="done")]) == ["committed"]
    head = await second.get("a")
    assert head.finished == 2
    await second.close()
    assert not Path(f"{path}-wal").exists()


# ---------------------------------------------------------------- groups
async def test_one_that_fails_harms_no_other(store):
    await start(store, "a", "b", "c")
    good = store.commit([Turn(run="a", fence=1, entries=b"row", release=True)])
    bad = store.commit([Turn(run="b", fence=1, entries=b"row", status="held", reason="\ud800")])
    last = store.commit([Turn(run="c", fence=1, entries=b"row")])
    assert await good == ["committed"]
    with pytest.raises(UnicodeEncodeError):
        await bad
    assert await last == ["committed"]
    assert [(await store.history(run)).rows for run in "abc"] == [[b"row"], [], [b"row"]]
    assert await store.commit([Turn(run="b", fence=1, entries=b"again")]) == ["committed"]
    assert [run.head.id for run in await store.claim("w", 10, 1.0, now=0.0)] == ["a"]


async def test_a_failed_create_is_forgotten_whole(store):
    bad = NewRun("new", Spec("flow", "greet", b"[]", job="j", parent=None), pool=Pool([]))
    worse = NewRun("worse", Spec("flow", "\ud800", b"[]", job="k"))
    with pytest.raises(UnicodeEncodeError):
        await store.create([bad, worse], now=0.0, worker="w", ttl=9.0)
    assert await store.get("new") is None
    assert (await store.create([bad], now=0.0, worker="w", ttl=9.0))[0].new
    assert await store.commit([Turn(run="new", fence=1, entries=b"1")]) == ["committed"]
    assert len((await store.newest(job="j"))[0]) == 1


async def test_close_finishes_what_was_ordered(path):
    store = SqliteStore(path)
    await store.open()
    await start(store, "a")
    futures = [store.commit([Turn(run="a", fence=1, entries=b"%d" % i)]) for i in range(20)]
    await store.close()
    assert [future.result() for future in futures] == [["committed"]] * 20
    await store.open()
    assert len((await store.history("a")).rows) == 20
    await store.close()


async def test_no_thread_is_left(path):
    before = set(threading.enumerate())
    store = SqliteStore(path)
    await store.open()
    await store.open()
    await store.get("a")
    assert set(threading.enumerate()) > before
    await store.close()
    await store.close()
    assert set(threading.enumerate()) == before


async def test_a_cancelled_caller_harms_no_other(store):
    await start(store, "a")
    gone = store.commit([Turn(run="a", fence=1, entries=b"1")])
    other = store.commit([Turn(run="a", fence=1, entries=b"2")])
    gone.cancel()
    assert await asyncio.wait_for(other, 5) == ["committed"]
    assert (await store.history("a")).rows == [b"1", b"2"]


async def test_another_process_may_have_revived_it(store, path):
    await start(store, "a")
    other = SqliteStore(path)
    await other.open()
    assert await other.revive("a", pool=None, now=0.0, status=["ready"])
    assert await store.commit([Turn(run="a", fence=1, entries=b"late")]) == ["fenced"]
    assert (await store.history("a")).rows == []
    await other.close()


async def test_bodies_are_read_in_portions(store, monkeypatch):
    monkeypatch.setattr("segue.stores.sqlite.lines._PORTION", 100)
    await start(store, "a")
    bodies = {f"l{i:02}": b"\x00\xff\r\n,x}"[:i] * i for i in range(30)}
    lines = [Line(id, "lane", CallRef("a", "", 0), body) for id, body in bodies.items()]
    await store.commit([Turn(run="a", fence=1, lines=lines)])
    fence = await store.claim_lane("lane", "w", 9.0, now=0.0)
    await store.take("lane", fence, max_lines=50, max_bytes=10**9, job="B", nonce="n", now=0.0)
    assert {line.id: line.body for line in await store.job_lines("B", "", 100)} == bodies
    found, after, pages = [], "", 0
    while page := await store.job_bodies("B", after, 10):
        found, after, pages = found + page, page[-1][0], pages + 1
    assert found == list(bodies.items())
    assert pages > 3


async def test_outcomes_of_lines_that_came_together_touch_few_pages(store, path):
    """Whatever their ids are: a chunk that touches a page or two for each line writes ten times as much."""
    runs = [f"r{i:04}" for i in range(3000)]
    await start(store, *runs)
    ids = [hashlib.sha256(run.encode()).hexdigest()[:32] for run in runs]
    turns = [
        Turn(
            run=run,
            fence=1,
            status="parked",
            release=True,
            lines=[Line(id, "lane", CallRef(run, "", 0), b"x" * 500)],
        )
        for run, id in zip(runs, ids, strict=True)
    ]
    await store.commit(turns)
    fence = await store.claim_lane("lane", "w", 9.0, now=0.0)
    await store.take("lane", fence, max_lines=5000, max_bytes=10**9, job="B", nonce="n", now=0.0)
    assert [id for id, _ in await store.job_bodies("B", "", 5000)] == ids
    before = Path(f"{path}-wal").stat().st_size
    await store.outcomes("B", fence, [LineOutcome(id, "ok", b"y" * 500) for id in ids[-500:]], now=0.0)
    assert Path(f"{path}-wal").stat().st_size - before < 500 * 2000


async def test_large_rows(store):
    await start(store, "a", "b")
    large = os.urandom(3_000_000)
    await store.commit([Turn(run="a", fence=1, entries=large, checkpoint=large, release=True)])
    (claimed,) = await store.claim("w", 1, 1.0, now=0.0)
    assert (claimed.checkpoint, claimed.journal) == (large, [large])


async def test_times_come_back_as_they_went_in(store):
    await start(store, "a")
    wake = 1764000000.1234567
    await store.commit([Turn(run="a", fence=1, status="parked", wake=wake, now=wake / 3)])
    (listed,) = await store.runs()
    assert (listed.wake, listed.updated) == (wake, wake / 3)
    assert listed == await store.get("a")


# ---------------------------------------------------------------- troubles
async def refused(path, *words):
    store = SqliteStore(str(path))
    with pytest.raises(StoreError) as caught:
        await store.open()
    text = str(caught.value)
    assert str(path) in text
    for word in words:
        assert word in text
    await store.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("segue-")]


async def test_a_folder_that_isnt_there(tmp_path):
    await refused(tmp_path / "none" / "runs.db", "no folder", str(tmp_path / "none"), "create it")


async def test_a_path_that_is_a_folder(tmp_path):
    await refused(tmp_path, "folder", "path of a file")


async def test_no_path():
    await refused("", "isn't a path")
    await refused(":memory:", "memory:")


async def test_a_folder_that_cant_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    await refused(tmp_path / "file" / "runs.db", "no folder")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
async def test_a_file_that_cant_be_written(tmp_path, path):
    sqlite3.connect(path).close()
    os.chmod(path, 0o400)
    await refused(path, "written")


async def test_a_file_that_isnt_a_database(path):
    Path(path).write_bytes(b"this is a letter to a friend, and not a database at all " * 40)
    await refused(path, "isn't a SQLite database")


async def test_another_programs_database(path):
    cx = sqlite3.connect(path)
    cx.execute("create table birds(name)")
    cx.close()
    await refused(path, "another program")
    cx = sqlite3.connect(path)
    assert cx.execute("select name from sqlite_master").fetchall() == [("birds",)]
    cx.close()


async def test_tables_of_a_newer_version(path):
    store = SqliteStore(path)
    await store.open()
    await store.close()
    cx = sqlite3.connect(path)
    cx.execute("pragma user_version = 99")
    cx.close()
    await refused(path, "version 99", "upgrade")


@pytest.mark.parametrize("where", ["in its inbox", "before it"])
async def test_what_waits_for_room_takes_that_of_a_letter_that_cannot_be_read(store, path, where):
    await acts.start(store, "r", mailbox=1, full="wait")
    await acts.park(store, "r")
    await acts.start(store, "sender")
    first, second, third = (acts.tell("r", n, "sender") for n in (1, 2, 3))
    await acts.commit(store, "sender", 1, outbox=[first, second, third])
    with contextlib.closing(sqlite3.connect(path)) as cx:
        if where == "before it":
            cx.execute("update waiting set mail = x'ff' where k = 1")
        else:
            cx.execute("update inbox set mail = x'ff'")
        cx.commit()
    if where == "before it":
        (letter,) = (await acts.claim(store))["r"].inbox
        await acts.commit(store, "r", 2, consumed=[letter.id])
    else:
        assert await acts.claim(store) == {}
        assert await store.revive("r", pool=None, now=1.0, status=["held"])
    assert await acts.mail_of(store, "r") == [third if where == "before it" else second]
    assert len(await store.dead_letters(run="r")) == 1


async def test_a_record_that_is_missing_harms_no_other_run(path):
    """As after `sqlite3 FILE .recover`."""
    store = SqliteStore(path)
    await store.open()
    await store.create([NewRun(id, acts.spec()) for id in "ab"], now=0.0)
    with contextlib.closing(sqlite3.connect(path)) as cx, cx:
        cx.execute("delete from specs where run = (select k from runs where id = 'a')")
    assert [run.head.id for run in await store.claim("w", 9, 60.0, now=0.0)] == ["b"]
    assert [head.id for head in await store.runs()] == ["a", "b"]
    head = await store.get("a")
    assert head.status == "held"
    assert "its record can't be read" in head.damage
    assert [made.new for made in await store.create([NewRun("a", acts.spec())], now=0.0)] == [False]
    await store.close()


async def test_a_damaged_file(path):
    store = SqliteStore(path)
    await store.open()
    await start(store, *[f"r{i}" for i in range(200)])
    await store.close()
    with open(path, "r+b") as file:
        file.seek(8192)
        file.write(os.urandom(8192 * 12))
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="damaged"):
        await store.open()
        await start(store, "new")
    await store.close()


async def has_room(store, pages):
    """Let a file grow by so many pages."""

    def set_limit(ledger, items):
        (now,) = ledger.cx.execute("pragma page_count").fetchone()
        ledger.cx.execute(f"pragma max_page_count = {now + items[0]}")
        return [None]

    await store._write(set_limit, [pages])


async def test_what_finds_no_room_waits_for_it(store, monkeypatch, caplog):
    """Else answers that are paid would be lost, and paid again."""
    await start(store, "a")
    await has_room(store, 0)
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            store._writer._ledger.cx.execute("pragma max_page_count = 100000")

    monkeypatch.setattr(patience.time, "sleep", nap)
    large = store.commit([Turn(run="a", fence=1, entries=b"x" * 300_000)])
    assert await large == ["committed"]
    assert len(naps) == 3
    (said,) = caplog.messages
    assert "the disk or its quota is full: make room; what is to be written waits for it, up to 60 s" in said


async def test_where_there_was_no_room_for_long_nothing_waits_before_there_is(path, monkeypatch):
    store = SqliteStore(path, patience=timedelta(seconds=0.3))
    await store.open()
    await start(store, "a")
    await has_room(store, 0)
    naps = []
    monkeypatch.setattr(patience, "LOOK", 0.1)
    sleep = time.sleep
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: (naps.append(seconds), sleep(seconds)))
    for _ in range(3):
        with pytest.raises(StoreError, match="the disk or its quota is full; make room"):
            await store.commit([Turn(run="a", fence=1, entries=b"x" * 300_000)])
        assert await store.claim("w", 1, 1.0, now=0.0) == []  # which finds nothing to write
    assert 2 <= len(naps) <= 4
    await store.close()


async def test_a_full_disk_loses_nothing_and_passes(path):
    store = SqliteStore(path, patience=timedelta(0))
    await store.open()
    await start(store, "a", "b")
    await has_room(store, 3)
    kept, failed = 0, None
    for _ in range(50):
        future = store.commit([Turn(run="a", fence=1, entries=b"x" * 3000)])
        other = store.commit([Turn(run="b", fence=1, entries=b"x" * 3000, usage=[])])
        try:
            await future
            await other
            kept += 1
        except StoreError as error:
            failed = error
            with pytest.raises(StoreError):
                await other
            break
    assert failed is not None
    assert "full" in str(failed)
    assert "make room" in str(failed)
    assert len((await store.history("a")).rows) == len((await store.history("b")).rows) == kept
    await has_room(store, 1000)
    assert await store.commit([Turn(run="a", fence=1, entries=b"y")]) == ["committed"]
    assert ((await store.history("a")).rows)[-1] == b"y"
    await store.close()


async def test_a_file_that_is_removed_or_replaced_while_it_is_open_takes_nothing_more(path, monkeypatch):
    monkeypatch.setattr(place, "LOOK", 0.0)
    store = SqliteStore(path)
    await store.open()
    await start(store, "a", "b")
    stands = Path(path).with_name("elsewhere.db")

    async def writes():
        turns = [store.commit([Turn(run=run, fence=1, entries=b"x")]) for run in ("a", "b")]
        await asyncio.wait(turns)
        return [turn.result() for turn in turns if turn.exception() is None] or await turns[0]

    Path(path).rename(stands)
    with pytest.raises(StoreError, match=f"moved, removed or replaced.*see to it that {path} is the file"):
        await writes()
    Path(path).touch()
    with pytest.raises(StoreError, match="moved, removed or replaced"):
        await writes()
    stands.replace(path)
    assert await writes() == [["committed"], ["committed"]]

    def hidden(path):
        raise PermissionError

    monkeypatch.setattr(place.os, "stat", hidden)
    assert await writes() == [["committed"], ["committed"]]
    await store.close()


async def test_a_program_that_changes_its_folder_keeps_its_store(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("runs.db")
    await store.open()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    await start(store, "a")
    assert [head.id for head in await store.runs()] == ["a"]
    await store.close()
    assert os.listdir() == []


async def test_a_file_locked_for_too_long(path):
    store = SqliteStore(path, patience=timedelta(seconds=0))
    await store.open()
    await start(store, "a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(StoreError, match="locked"):
        await store.commit([Turn(run="a", fence=1, entries=b"1")])
    with pytest.raises(StoreError, match="locked"):
        await store.commit([Turn(run="a", fence=1, entries=b"1", release=True)])
    assert (await store.load("a")).journal == []
    assert await store.claim("w", 1, 1.0, now=0.0) == []  # a look for work needs no lock
    other.execute("rollback")
    other.close()
    assert await store.commit([Turn(run="a", fence=1, entries=b"2")]) == ["committed"]
    assert (await store.history("a")).rows == [b"2"]
    await store.close()


async def test_a_lock_that_stays_is_waited_for_so_long_at_most(path):
    store = SqliteStore(path, patience=timedelta(seconds=0.5))
    await store.open()
    await start(store, "a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    began = time.monotonic()
    async with asyncio.timeout(10):
        with pytest.raises(StoreError, match="locked"):
            await store.commit([Turn(run="a", fence=1, entries=b"1")])
    assert time.monotonic() - began > 0.4
    other.execute("rollback")
    other.close()
    await store.close()


async def test_a_lock_that_passes_is_waited_for(store, path):
    await start(store, "a")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("begin immediate")
    future = store.commit([Turn(run="a", fence=1, entries=b"1")])
    await asyncio.sleep(0.4)  # longer than SQLite itself waits
    assert not future.done()
    other.execute("rollback")
    other.close()
    assert await future == ["committed"]


async def test_a_claim_that_had_to_wait_takes_nothing_that_others_may_not_have_had_the_chance_to_keep(
    store, path
):
    """They wait for the same lock to renew what they hold: whoever gets it first would take all."""
    await store.create([NewRun("a", SPEC)], now=0.0, worker="w", ttl=60.0)
    await store.create([NewRun("b", SPEC)], now=0.0)
    fence = await store.claim_lane("lane", "w", 60.0, now=0.0)
    beside = SqliteStore(path)
    await beside.open()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("begin immediate")
    claims = asyncio.ensure_future(beside.claim("v", 9, 60.0, now=61.0))
    drives = [asyncio.ensure_future(beside.claim_lane(lane, "v", 60.0, now=61.0)) for lane in ("lane", "new")]
    await asyncio.sleep(0.4)  # longer than SQLite itself waits
    other.execute("rollback")
    other.close()
    assert [run.head.id for run in await claims] == ["b"]
    assert [await fence for fence in drives] == [None, 1]
    assert await store.claim_lane("lane", "w", 60.0, now=46.0) == fence
    assert await store.renew("w", [Lease("a", 1)], 60.0, now=46.0) == [True]
    assert await beside.claim("v", 9, 60.0, now=61.5) == []
    assert await beside.claim_lane("lane", "v", 60.0, now=61.5) is None
    assert [run.head.id for run in await beside.claim("v", 9, 60.0, now=106.5)] == ["a"]
    await beside.close()


async def test_a_store_that_isnt_open(path):
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="isn't open"):
        await store.get("a")
    with pytest.raises(StoreError, match="isn't open"):
        await store.commit([Turn(run="a", fence=1)])
    await store.open()
    await store.close()
    with pytest.raises(StoreError, match="isn't open"):
        await store.claim("w", 1, 1.0, now=0.0)


def test_blobs_are_read_however_many_they_are(request: pytest.FixtureRequest) -> None:
    """Also where they are more than SQLite puts into one text."""
    cx = sqlite3.connect(":memory:")
    request.addfinalizer(cx.close)
    cx.execute("create table t(k integer primary key, run integer, piece blob)")
    rows = [(k, k % 3, b"\xff\x00" * k) for k in range(1, 40)]
    cx.executemany("insert into t values(?, ?, ?)", rows)
    blobs = Blobs("run", "k", "piece", "from json_each(?) as q cross join t on t.run = q.value")
    wanted = [(run, piece) for _, run, piece in rows if run]
    assert blobs.rows(cx, ("[2, 1]",)) == wanted
    assert blobs.rows(cx, ("[9]",)) == []
    cx.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 500)
    assert blobs.rows(cx, ("[2, 1]",)) == wanted
    cx.close()


async def test_who_is_called_back_harms_no_other_of_its_group(store):
    await start(store, "a", "b", "c")
    loop = asyncio.get_running_loop()
    told, landed = [], [loop.create_future(), loop.create_future()]
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))

    def fails(result):
        raise RuntimeError(f"it was {result}")

    store.append("a", 1, b"1", fails)
    store.append("b", 1, b"2", landed[0].set_result)
    store.land(Turn(run="a", fence=1, entries=b"3"), fails)
    store.land(Turn(run="c", fence=1, entries=b"4"), landed[1].set_result)
    assert [await one for one in landed] == ["committed", "committed"]
    assert [str(error) for error in told] == ["it was committed"] * 2


def test_ctrl_c_in_who_is_called_back_doesnt_keep_it_from_the_others(path):
    """It ends the loop's turn; what ends the program properly goes on with the loop."""
    loop, came = asyncio.new_event_loop(), []

    def interrupted(result):
        raise KeyboardInterrupt

    async def order():
        await store.open()
        await start(store, "a", "b", "c")
        store.append("a", 1, b"1", interrupted)
        store.append("b", 1, b"2", came.append)
        store.land(Turn(run="c", fence=1, entries=b"3"), came.append)

    store = SqliteStore(path)
    loop.run_until_complete(order())
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.run_until_complete(store.close())
    loop.close()
    assert came == ["committed", "committed"]


async def test_who_was_called_back_isnt_kept_in_memory(store):
    """The thread waits for its next order, perhaps for long."""
    await start(store, "a", "b")

    class Caller:
        def landed(self, result):
            came.set_result(result)

    for order in (
        lambda then: store.land(Turn(run="a", fence=1, entries=b"1"), then),
        lambda then: store.append("b", 1, b"1", then),
    ):
        came, caller = asyncio.get_running_loop().create_future(), Caller()
        order(caller.landed)
        gone = weakref.ref(caller)
        del caller
        assert await came == "committed"
        async with asyncio.timeout(5):
            while gone() is not None:
                if not getattr(sys, "_is_gil_enabled", lambda: True)():
                    gc.collect()  # there, what two threads had held is freed by it alone
                await asyncio.sleep(0.001)


async def test_a_store_that_is_closed_lands_nothing(store):
    await start(store, "a")
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreError, match="isn't open"):
        store.land(Turn(run="a", fence=1, entries=b"1"), print)
    with pytest.raises(StoreError, match="isn't open"):
        store.append("a", 1, b"1", print)
    await closing
