"""Bad input gets an error that names what, where and the cure, and harms no other row."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

import segue
from segue.model.errors import (
    AskClosed,
    CallerError,
    Conflict,
    InvalidValue,
    ModelFailed,
    SegueError,
    StoreError,
    UnknownName,
)
from segue.providers.openai import OpenAI
from segue.stores.sqlite import SqliteStore, schema, writer
from segue.testing.simulator import Simulator
from segue.transports.pooled import Pooled
from tests.crash.remote import FastClock


@segue.flow(name="bad.echo")
async def echo(number: int) -> str:
    return await segue.generate(f"row {number}")


@segue.flow(name="bad.ask")
async def ask(number: int) -> bool:
    return await segue.ask("Send it?", returns=bool)


@segue.step
async def fill(size: int) -> str:
    return os.urandom(size // 2).hex()


@segue.flow(name="bad.filler")
async def filler(number: int) -> int:
    return len(await fill(20_000))


# ---------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("gpt-5", "there is no model 'gpt-5'"),
        ("opnai:gpt-5", "there is no provider 'opnai'.*openai"),
        ("openai:", "the model isn't named"),
    ],
)
@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_a_model_that_isnt_there(model: str, says: str, mode: Any) -> None:
    async with segue.Engine(model=model, mode=mode) as engine:
        with pytest.raises(CallerError, match=says):
            engine.map(echo, [1, 2])
        with pytest.raises(CallerError, match=says):
            await engine.run(echo(1))
    async with segue.Engine(mode=mode) as engine:
        with pytest.raises(CallerError, match=says):
            await engine.run(echo(1), model=model)


async def test_no_model_at_all() -> None:
    async with segue.Engine() as engine:
        for outcome in [outcome async for outcome in engine.map(echo, [1, 2])]:
            with pytest.raises(UnknownName, match=r"no model is named.*Engine\(model="):
                raise outcome.error or AssertionError


async def test_a_key_that_isnt_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with segue.Engine(model="openai:m") as engine:
        with pytest.raises(SegueError, match="OPENAI_API_KEY"):
            await engine.run(echo(1))


async def test_a_function_that_is_no_flow() -> None:
    async def plain(number: int) -> int:
        return number

    async with segue.Engine() as engine:
        with pytest.raises(UnknownName, match=r"plain.*@segue\.flow"):
            engine.map(plain, [1])


async def test_a_run_of_a_flow_that_isnt_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is left to others, and the runs of others go on."""

    def build(name: str) -> Any:
        @segue.flow(name=name)
        async def gone() -> bool:
            return await segue.ask("?", returns=bool)

        return gone

    store = f"sqlite:{tmp_path / 'runs.db'}"
    async with segue.Engine(store) as engine:
        await engine.start(build("bad.gone")(), id="r")
        (question,) = [question async for question in _first(engine)]
        await asyncio.sleep(0.1)
    segue.authoring.flow.TARGETS.pop("bad.gone")  # type: ignore[attr-defined]  # loaded with the rest
    async with segue.Engine(store) as engine:
        await engine.answer(question.id, True)
        assert await engine.run(filler(1)) == 20_000
        while not (head := await engine.head("r")).reason:
            await engine.ends.next()
        assert "no worker here knows flow 'bad.gone'" in head.reason
        await asyncio.sleep(0.1)  # it isn't claimed again and again, nor counted as work for this process
        assert (await engine.head("r")).fence == head.fence
        assert await engine.worker.backlog() == (0, None)
        assert await asyncio.wait_for(engine.advance(), 5)  # somebody else's may still wait
        target = build("bad.gone").__segue__
        engine.worker.register(target)  # it is known after all
        engine.worker.wake()
        assert await (await engine.get("r")) is True


async def _first(engine: segue.Engine) -> Any:
    async for question in engine.asks():
        yield question
        return


# ---------------------------------------------------------------- rows
async def test_rows_that_dont_fit_harm_no_other() -> None:
    async with Simulator() as sim:
        async with _engine(sim) as engine:
            rows: list[Any] = [0, "one", 2, None, {"n": 4}, 5]
            outcomes = sorted([o async for o in engine.map(echo, rows)], key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in outcomes] == list(range(6))
    for outcome in outcomes:
        if outcome.index in (0, 2, 5):
            assert outcome.value == f"You said: row {outcome.index}"
        else:
            with pytest.raises(InvalidValue, match=r"argument 'number' of echo: expected int.*got"):
                raise outcome.error or AssertionError


async def test_an_argument_that_doesnt_fit() -> None:
    async with segue.Engine() as engine:
        with pytest.raises(InvalidValue, match="number"):
            await engine.run(echo("one"))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await engine.run(echo())  # type: ignore[call-arg]


# ---------------------------------------------------------------- databases
def _newer(path: Path) -> None:
    cx = sqlite3.connect(path)
    cx.execute(f"pragma application_id = {schema.APPLICATION}")
    cx.execute(f"pragma user_version = {schema.VERSION + 1}")
    cx.close()


def _other(path: Path) -> None:
    cx = sqlite3.connect(path)
    cx.execute("create table notes(x)")
    cx.close()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_newer, r"version \d+.*upgrade segue"),
        (_other, "another program's database.*new file"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000), "database|damaged"),
        (lambda path: path.write_text("these are notes, not runs\n" * 100), "isn't a SQLite database"),
        (lambda path: path.mkdir(), "that is a folder"),
    ],
    ids=["newer", "other", "corrupt", "text", "folder"],
)
async def test_databases_that_cant_be_used(tmp_path: Path, spoil: Any, says: str) -> None:
    path = tmp_path / "runs.db"
    spoil(path)
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(StoreError, match=says) as caught:
        async with segue.Engine(f"sqlite:{path}"):
            pass
    assert str(path) in str(caught.value)
    if before is not None:
        assert path.read_bytes() == before


async def test_a_folder_that_isnt_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder.*create it"):
        async with segue.Engine(f"sqlite:{tmp_path / 'no' / 'runs.db'}"):
            pass


async def test_a_database_that_is_damaged_while_in_use(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with segue.Engine(f"sqlite:{path}") as engine:
        await engine.map(filler, range(50), id="job")
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + os.urandom(len(whole) - 8192))
    with pytest.raises(StoreError, match=r"damaged|SQLite"):
        async with segue.Engine(f"sqlite:{path}") as engine, asyncio.timeout(20):
            await engine.map(filler, range(60), id="job")


async def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work stops with an error that says so; once there is room, it goes on where it was."""
    plain = schema.connect
    pages = [85]

    def small(path: str, *, busy: float, write: bool) -> sqlite3.Connection:
        cx = plain(path, busy=busy, write=write)
        if write and pages:
            cx.execute(f"pragma max_page_count = {pages[0]}")
        return cx

    monkeypatch.setattr(writer, "connect", small)
    store = f"sqlite:{tmp_path / 'runs.db'}"
    impatient = SqliteStore(str(tmp_path / "runs.db"), patience=timedelta(0))
    with pytest.raises(StoreError, match="full; make room; nothing committed is lost"):
        async with segue.Engine(impatient) as engine, asyncio.timeout(20):
            await engine.map(filler, range(100), id="job")
    pages.clear()
    async with segue.Engine(store) as engine, asyncio.timeout(20):
        known = await engine.store.get_job("job")
        assert await engine.map(filler, range(100), id="job") == [20_000] * 100
        assert known is not None


async def test_a_file_that_cant_be_written(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with segue.Engine(f"sqlite:{path}"):
        pass
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        if os.access(path, os.W_OK):
            pytest.skip("root may write anywhere")
        with pytest.raises(StoreError, match=r"can't be (written|opened).*owner and mode"):
            async with segue.Engine(f"sqlite:{path}"):
                pass
    finally:
        tmp_path.chmod(0o755)


# ---------------------------------------------------------------- providers, live
def _engine(sim: Simulator, store: str = "memory:", **options: Any) -> segue.Engine:
    def far(_: Any) -> OpenAI:
        return OpenAI(sim.base_url, "any", Pooled())

    return segue.Engine(store, model="far:m", providers={"far": far}, **{"clock": FastClock(50.0), **options})


FAULTS: dict[str, Any] = {
    "html": lambda sim, times: sim.faults.reply_html(times, on="chat"),
    "html as if fine": lambda sim, times: sim.faults.reply_html(times, status=200, on="chat"),
    "nothing": lambda sim, times: sim.faults.close_connection(times, on="chat"),
    "empty": lambda sim, times: sim.faults.empty_reply(times, on="chat"),
    "500": lambda sim, times: sim.faults.fail(times, on="chat"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_provider_that_talks_nonsense_live(fault: str) -> None:
    """In passing it is tried again; for good the call fails, readably, and the next one is fine."""
    async with Simulator() as sim, _engine(sim) as engine:
        FAULTS[fault](sim, 3)
        assert await engine.run(echo(1)) == "You said: row 1"
        FAULTS[fault](sim, 6)
        with pytest.raises(ModelFailed, match="model 'far:m' failed"):
            await engine.run(echo(2))
        assert await engine.run(echo(3)) == "You said: row 3"


@pytest.mark.parametrize("chunks", [0, 1, 2])
async def test_half_a_stream(chunks: int) -> None:
    async with Simulator() as sim, _engine(sim) as engine:
        sim.faults.cut_stream_after(chunks, 2)
        run = await engine.start(echo(1))
        text = [piece async for piece in run.text()]
        assert await run == "You said: row 1"
        assert text


# ---------------------------------------------------------------- size
LARGE = 200_000_000


@segue.flow(name="bad.large")
async def large(size: int) -> str:
    return await segue.generate("x" * size)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_a_prompt_of_200_megabytes(tmp_path: Path, mode: Literal["live", "batch"]) -> None:
    """It fails alone, before it is recorded or sent, and says how large it was and what the limit is."""
    path = tmp_path / "runs.db"
    async with Simulator(batch_time=timedelta(seconds=0.05)) as sim:
        async with _engine(sim, f"sqlite:{path}", mode=mode) as engine:
            before = _peak()
            outcomes = [o async for o in engine.map(large, [10, LARGE, 20])]
            assert sum(outcome.ok for outcome in outcomes) == 2
            (failed,) = [outcome for outcome in outcomes if not outcome.ok]
            with pytest.raises(
                ModelFailed, match=r"200,000,\d\d\d bytes and openai takes 190,000,000; shorten"
            ):
                raise failed.error or AssertionError
            grown = _peak() - before
            print(f"\nat most {grown / 1e6:.0f} MB more than before")
        assert len(sim.ledger) == 2
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 1_000_000
    assert grown < 8 * LARGE, f"it took {grown / 1e6:.0f} MB"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ---------------------------------------------------------------- answers
async def _asked(engine: segue.Engine) -> tuple[segue.Run[bool], Any]:
    run = await engine.start(ask(1))
    async for question in engine.asks():
        return run, question
    raise AssertionError


async def test_an_answer_of_the_wrong_type() -> None:
    async with segue.Engine() as engine:
        run, question = await _asked(engine)
        with pytest.raises(InvalidValue, match=r"the answer to .*boolean.*\"maybe\""):
            await question.answer("maybe")
        await question.answer(True)
        assert await run is True


async def test_an_answer_too_many() -> None:
    async with segue.Engine() as engine:
        run, question = await _asked(engine)
        await question.answer(False)
        with pytest.raises(AskClosed, match="answered already"):
            await question.answer(True)
        assert await run is False
        with pytest.raises(UnknownName, match="no-such"):
            await engine.answer("no-such", True)


async def test_an_answer_to_a_run_that_ended() -> None:
    async with segue.Engine() as engine:
        run, question = await _asked(engine)
        await run.cancel()
        with pytest.raises(SegueError):
            await run
        with pytest.raises(AskClosed, match=f"its run is cancelled; `segue resume {run.id}` has it go on"):
            await question.answer(True)
        with pytest.raises(Conflict, match="takes no more mail: it is cancelled"):
            await engine.tell(run.id, "note", b"1")


@pytest.mark.parametrize("address", ["memory:", "sqlite:{}/runs.db"])
async def test_two_answers_at_once(tmp_path: Path, address: str) -> None:
    store = address.format(tmp_path)
    async with (
        segue.Engine(store) as engine,
        segue.Engine(engine.store if "memory" in store else store) as other,
    ):
        for _ in range(5):
            run, question = await _asked(engine)
            results = await asyncio.gather(
                *(one.answer(question.id, value) for one in (engine, other) for value in (True, False)),
                return_exceptions=True,
            )
            assert sorted(type(result).__name__ for result in results) == ["AskClosed"] * 3 + ["NoneType"]
            assert await run is (results.index(None) % 2 == 0)
