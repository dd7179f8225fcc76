"""A file in which single records are damaged: the run in question is set aside, and all others go on."""

from __future__ import annotations

import asyncio
import copy
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import segue
from segue.errors import Damaged, StoreError
from segue.model.message import DeadLetter
from segue.model.run import Head, is_over
from segue.ports.clock import Timer
from segue.ports.provider import CallFault, RemoteJob
from segue.testing import FakeModel
from segue.testing.fake_model import FakeEngine
from segue.testing.fake_provider import FakeProvider

#: What each run gives where nothing is damaged.
CLEAN = {
    "chain": "6001 7",
    "other": "6001 7",
    "parent": "4",
    "acc": 5,
    "acc2": 5,
    "job/0": "ok",
    "job/1": "ok",
    "job/2": "ok",
}


class Later:
    """The machine's time, some hours on."""

    def __init__(self, hours: float = 0.0) -> None:
        self._more = hours * 3600

    def now(self) -> float:
        return asyncio.get_running_loop().time() + 1_800_000_000 + self._more

    def steady(self) -> float:
        return self.now()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)


@segue.step(name="damage.large")
async def large(n: int) -> str:
    return "x" * 6000 + str(n)


@segue.step(name="damage.small")
async def small(n: int) -> int:
    return n + 1


@segue.flow(name="damage.chain")
async def chain(n: int) -> str:
    text = await large(n)
    n = await small(n)
    if not await segue.ask("Go on?", returns=bool):
        raise ValueError("no")
    return f"{len(text)} {await small(n + 4)}"


@segue.flow(name="damage.child")
async def child(n: int) -> int:
    await segue.sleep(timedelta(hours=1))
    return n


@segue.flow(name="damage.parent")
async def parent(n: int) -> str:
    begun = await segue.spawn(child(n))
    return str(await begun + 1)


@segue.flow(name="damage.asked")
async def asked(n: int) -> str:
    await small(n)
    return await segue.generate(f"row {n}")


class Add(segue.Note):
    n: int


class Over(segue.Note): ...


class Total(segue.Request[int]): ...


class Acc(segue.Actor[int]):
    total: int = 0

    @segue.on
    async def add(self, add: Add) -> None:
        self.total += add.n

    @segue.on
    async def tell_total(self, _: Total) -> int:
        return self.total

    @segue.on
    async def over(self, _: Over) -> segue.Done[int]:
        return segue.Done(self.total)


class Made(NamedTuple):
    """A file in which everything waits, and what the provider knows."""

    path: Path
    fake: FakeModel
    remote: Any


async def _under_way(self: FakeProvider, job: str) -> RemoteJob:
    return msgspec.structs.replace(self._shown(self._remote.jobs[job]), over=False)


async def _down(*_: Any) -> str:
    raise CallFault(503, "it is down", again=True)


async def _make(path: Path, *, sent: bool) -> Made:
    fake = FakeModel()
    fake.when("row").reply("ok")
    store = f"sqlite:{path}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeProvider, "poll", _under_way)
        if not sent:
            patch.setattr(FakeProvider, "upload", _down)
        async with FakeEngine(fake, store, linger=0.01, clock=Later()) as engine:
            for name in ("chain", "other"):
                await engine.start(chain(1), id=name)
            await engine.start(parent(3), id="parent")
            for name in ("acc", "acc2"):
                actor = await engine.start(Acc(), id=name)
                await actor.tell(Add(2))
                assert await actor.request(Total()) == 2
            engine.map(asked, range(3), id="job", mode="batch")
            async with asyncio.timeout(10):
                while not await _all_wait(engine, sent=sent):
                    await asyncio.sleep(0.01)
    async with FakeEngine(fake, store, worker=False, clock=Later()) as engine:
        for name in ("acc", "acc2"):
            actor = await engine.get(name)
            await actor.tell(Add(3))
            await actor.tell(Over())
        (ask,) = await engine.store.asks(run="other")
        await engine.store.answer(ask.id, b"true", now=engine.clock.now())
    with closing(sqlite3.connect(path)) as file:
        file.execute("pragma wal_checkpoint(truncate)")
    return Made(path, fake, copy.deepcopy(fake.remote))


async def _all_wait(engine: FakeEngine, *, sent: bool) -> bool:
    lines = await engine.store.line_counts()
    jobs = [job for job in await engine.store.batch_jobs() if job.state == "sent"]
    there = len(jobs) == 1 if sent else sum(lines.values()) == 3
    flows = [head for head in await engine.store.runs() if head.spec.kind == "flow"]
    return there and all(head.status == "parked" for head in flows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return asyncio.run(_make(tmp_path_factory.mktemp("damage") / "runs.db", sent=True))


@pytest.fixture(scope="module")
def unsent(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return asyncio.run(_make(tmp_path_factory.mktemp("unsent") / "runs.db", sent=False))


def flip(path: Path, table: str, column: str, run: str, at: int = 0) -> None:
    """Flip all bits of one byte of a record, of a run where it is of one."""
    with closing(sqlite3.connect(path)) as file, file:
        of = "where run = (select k from runs where id = ?)" if run else "where ? = ''"
        k, data = file.execute(f"select rowid, {column} from {table} {of} order by rowid", (run,)).fetchone()
        bad = bytearray(data)
        bad[at] ^= 0xFF
        file.execute(f"update {table} set {column} = ? where rowid = ?", (bytes(bad), k))


async def life(made: Made, path: Path) -> dict[str, Head]:
    """A later process: how the runs stand once all are over or wait for what is held."""
    made.fake.remote = copy.deepcopy(made.remote)
    async with FakeEngine(made.fake, f"sqlite:{path}", linger=0.01, clock=Later(3)) as engine:
        heads: dict[str, Head] = {}
        async with asyncio.timeout(10):
            while not heads or not all(_settled(head, heads) for head in heads.values()):
                for ask in await engine.store.asks():
                    if ask.n >= 0:
                        await engine.store.answer(ask.id, b"true", now=engine.clock.now())
                await asyncio.sleep(0.01)
                heads = {head.id: head for head in await engine.store.runs()}
        return heads


def _settled(head: Head, heads: dict[str, Head]) -> bool:
    held = any(other.status == "held" for id, other in heads.items() if id.startswith(f"{head.id}."))
    return is_over(head.status) or held


def others(heads: dict[str, Head], but: set[str]) -> dict[str, Any]:
    """What all other runs gave."""
    return {
        id: msgspec.json.decode(head.value or b"null")
        for id, head in heads.items()
        if id in CLEAN and id not in but
    }


def clean(but: set[str]) -> dict[str, Any]:
    return {id: value for id, value in CLEAN.items() if id not in but}


async def test_where_nothing_is_damaged(made: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(made.path, tmp_path))
    assert others(await life(made, path), set()) == CLEAN


@pytest.mark.parametrize(
    ("table", "column", "run", "says"),
    [
        ("specs", "spec", "chain", "its record can't be read"),
        ("specs", "spec", "acc", "its record can't be read"),
        ("specs", "spec", "job/1", "its record can't be read"),
        ("journal", "entries", "chain", "its journal can't be read"),
        ("journal", "entries", "job/1", "its journal can't be read"),
        ("inbox", "mail", "acc", "mail to it can't be read"),
        ("inbox", "mail", "other", "mail to it can't be read"),
        ("states", "checkpoint", "acc", "its checkpoint can't be read"),
    ],
)
async def test_a_damaged_record_holds_its_run_alone(
    made: Made, tmp_path: Path, table: str, column: str, run: str, says: str
) -> None:
    path = Path(shutil.copy(made.path, tmp_path))
    flip(path, table, column, run)
    heads = await life(made, path)
    assert heads[run].status == "held"
    assert says in heads[run].reason
    assert f"`segue resume {run}`" in heads[run].reason or f"segue resume {run}" in heads[run].reason
    assert others(heads, {run}) == clean({run})


@pytest.mark.slow
async def test_whichever_byte_is_damaged_others_go_on(made: Made, tmp_path: Path) -> None:
    for table, column, run in (
        ("specs", "spec", "chain"),
        ("journal", "entries", "chain"),
        ("inbox", "mail", "acc"),
        ("states", "checkpoint", "acc"),
    ):
        with closing(sqlite3.connect(made.path)) as file:
            of = f"select length({column}) from {table} where run = (select k from runs where id = ?)"
            (size,) = file.execute(of, (run,)).fetchone()
        for at in range(0, size, 7):
            path = Path(shutil.copy(made.path, tmp_path))
            flip(path, table, column, run, at)
            heads = await life(made, path)
            assert others(heads, {run}) == clean({run}), (table, at)


async def test_a_content_that_isnt_what_its_digest_says(made: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(made.path, tmp_path))
    flip(path, "blobs", "content", "", at=10)
    heads = await life(made, path)
    both = {"chain", "other"}  # it is the same content
    for run in both:
        assert heads[run].reason.startswith("its journal can't be read (a large content ")
    assert others(heads, both) == clean(both)


async def test_who_waits_for_a_damaged_run_waits_and_its_job_ends(made: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(made.path, tmp_path))
    with closing(sqlite3.connect(path)) as file:
        (kid,) = file.execute("select id from runs where id glob 'parent.*'").fetchone()
    flip(path, "specs", "spec", kid)
    flip(path, "specs", "spec", "job/1")
    heads = await life(made, path)
    assert heads[kid].status == "held"
    assert heads["parent"].status == "parked"
    async with FakeEngine(made.fake, f"sqlite:{path}", clock=Later(3)) as engine, asyncio.timeout(10):
        outcomes = {o.index: o async for o in engine.map(asked, range(3), id="job", mode="batch")}
    assert outcomes[0].value == outcomes[2].value == "ok"
    assert "its record can't be read" in str(outcomes[1].error)


async def test_once_the_record_is_whole_again_its_run_goes_on(made: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(made.path, tmp_path))
    flip(path, "specs", "spec", "chain")
    await life(made, path)
    async with FakeEngine(made.fake, f"sqlite:{path}", clock=Later(3)) as engine:
        for refused in (engine.resume("chain"), engine.fork("chain")):
            with pytest.raises(Damaged, match=r"run 'chain' can't be read.*restore a backup"):
                await refused
        with pytest.raises(Damaged):
            await engine.start(chain(1), id="chain")
        flip(path, "specs", "spec", "chain")  # as it was
        await engine.resume("chain")
        assert await engine.result("chain") == CLEAN["chain"]


async def test_a_run_goes_on_without_mail_that_cant_be_read(made: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(made.path, tmp_path))
    flip(path, "inbox", "mail", "acc")
    heads = await life(made, path)
    assert heads["acc"].status == "held"
    async with FakeEngine(made.fake, f"sqlite:{path}", clock=Later(3)) as engine:
        (letter,) = await engine.store.dead_letters(run="acc")
        assert "can't be read" in letter.reason
        await engine.resume("acc")
        assert await engine.result("acc") == 2  # the message that added 3 is the one


async def test_a_lost_answer_is_asked_for_anew_in_a_fork(made: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(made.path, tmp_path))
    flip(path, "inbox", "mail", "other")
    await life(made, path)
    async with FakeEngine(made.fake, f"sqlite:{path}", clock=Later(3)) as engine, asyncio.timeout(10):
        await engine.fork("other", id="anew")
        while not (asks := await engine.store.asks(run="anew")):
            await asyncio.sleep(0.01)
        await engine.store.answer(asks[0].id, b"true", now=engine.clock.now())
        assert await engine.result("anew") == CLEAN["other"]


async def test_a_damaged_provider_job_fails_its_lines_and_pays_nothing_again(
    made: Made, tmp_path: Path
) -> None:
    path = Path(shutil.copy(made.path, tmp_path))
    flip(path, "batches", "data", "")
    heads = await life(made, path)
    rows = {f"job/{n}" for n in range(3)}
    for row in rows:
        assert heads[row].error is not None
        assert "batch_job_lost" in heads[row].error.message
    assert others(heads, rows) == clean(rows)
    sent = made.fake.remote.sent.copy()
    assert set(sent.values()) == {1}
    async with FakeEngine(made.fake, f"sqlite:{path}", clock=Later(3)) as engine, asyncio.timeout(10):
        await engine.resume("job/1")  # whether to pay again is a person's decision
        assert await engine.result("job/1") == "ok"
    assert made.fake.remote.sent.total() == 4


async def test_a_damaged_request_fails_alone(unsent: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(unsent.path, tmp_path))
    flip(path, "bodies", "body", "", at=1)
    heads = await life(unsent, path)
    (bad,) = [id for id, head in heads.items() if head.error and "batch_line_damaged" in head.error.message]
    assert others(heads, {bad}) == clean({bad})


async def test_a_damaged_question_is_listed_and_harms_no_other(made: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(made.path, tmp_path))
    flip(path, "asks", "question", "chain")
    async with FakeEngine(made.fake, f"sqlite:{path}", worker=False) as engine:
        (ask,) = await engine.store.asks(run="chain")
        assert "can't be read" in ask.question
        assert (ask.run, ask.id) == ("chain", "chain:2")
        assert (await engine.store.asked(0))[0] == [ask]
        with pytest.raises(StoreError, match=r"can't be answered.*damaged there"):
            await engine.store.answer(ask.id, b"true", now=0.0)


async def test_a_damaged_dead_letter_is_listed_with_the_others(made: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(made.path, tmp_path))
    letter = msgspec.msgpack.encode(DeadLetter(_mail("acc"), "no handler"))
    with closing(sqlite3.connect(path)) as file, file:
        for data in (b"\xc1" + letter[1:], letter):
            file.execute("insert into dead(recipient, letter) values('acc', ?)", (data,))
    async with FakeEngine(made.fake, f"sqlite:{path}", worker=False) as engine:
        bad, good = await engine.store.dead_letters()
    assert "can't be read" in bad.reason
    assert good.reason == "no handler"


def _mail(to: str) -> Any:
    from segue.model.message import Mail

    return Mail(to, "x", 1, "tell")


def test_the_command_line_shows_what_is_damaged(made: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(made.path, tmp_path))
    flip(path, "specs", "spec", "chain")
    flip(path, "journal", "entries", "parent")
    flip(path, "states", "checkpoint", "acc")

    def said(*words: str) -> str:
        command = [sys.executable, "-m", "segue", *words, "--store", f"sqlite:{path}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr

    listed = said("runs")
    assert "its record can't be read" in listed
    assert all(run in listed for run in ("chain", "other", "parent", "acc2"))
    assert "for what is in its journal, which can't be read" in listed
    assert "its record can't be read" in said("show", "chain")
    assert "the journal of run 'parent' can't be read" in said("show", "parent")
    assert "its checkpoint can't be read" in said("show", "acc")
    assert "acc2" in said("runs", "--tree")
