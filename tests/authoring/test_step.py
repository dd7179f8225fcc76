"""Steps: recorded whole, retried, bounded in time, with effects of three kinds."""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pytest

import segue
from segue.authoring.step import ChangedArgument
from segue.core import journal
from segue.model.entry import BLOB
from segue.model.errors import BadSignature, NotEncodable, RunFailed, RunHeld, StepFailed
from tests.runtime.lives import Desk, everywhere


class Odd(Exception):
    """One that is built again from its fields."""

    def __init__(self, code: int, *, hint: str = "") -> None:
        self.code, self.hint = code, hint
        super().__init__(f"odd {code} ({hint})")


class Closed(Exception):
    """One that can't be built again: it holds what JSON can't carry."""

    def __init__(self, lock: object) -> None:
        super().__init__(f"closed by {type(lock).__name__}")
        self.lock = object()


@dataclass
class Point:
    x: int
    at: datetime


@segue.step
async def grown(text: str) -> str:
    return f"{text}!"


@segue.flow
async def passes_on(times: int) -> str:
    text = await grown("x" * 1000)
    for _ in range(times):
        text = await grown(text)
        text = await grown(f"{text}?")
    await segue.ask("go on?")
    return await grown(text)


@pytest.mark.parametrize("store", ["memory:", "sqlite:{}/runs.db"])
async def test_what_a_step_gave_is_stored_once_where_the_next_takes_it(store: str, tmp_path: Path) -> None:
    async with segue.Engine(store.format(tmp_path), verify=True) as engine:
        run = asyncio.create_task(engine.run(passes_on(3), id="run"))
        async for ask in engine.asks():
            rows = (await engine.store.history("run")).rows
            await ask.answer("yes")
            break
        assert (
            11_000 < sum(map(len, rows)) < 12_000
        )  # seven results, four arguments: those that weren't passed on
        steps = [entry for entry in journal.read(rows) if entry.kind == "step"]
        assert [len(entry.args) for entry in steps] == [1009 + n for n in (0, 1, 3, 4, 6, 7, 9)]
        assert (await run).count("!") == 8
        forked = await engine.fork("run", id="fork", before="#5")
        async for ask in engine.asks():
            await ask.answer("yes")
            break
        assert (await forked).count("!") == 8


async def test_async_and_sync_steps() -> None:
    threads: list[str] = []

    @segue.step
    async def here(n: int) -> int:
        threads.append(threading.current_thread().name)
        return n + 1

    @segue.step
    def off(n: int) -> int:
        threads.append(threading.current_thread().name)
        return n * 2

    @segue.flow
    async def both(n: int) -> int:
        return await off(await here(n))

    desk = Desk()
    assert await desk.run(both(3)) == 8
    assert threads[0] == threading.main_thread().name
    assert threads[1].startswith("segue-step")
    assert await here(1) == 2  # outside a run it is the function
    assert await off(1) == 2


async def test_any_function_is_a_step() -> None:
    @segue.flow
    async def counted(text: str) -> int:
        return await segue.step(len, name="length")(text)

    desk = Desk()
    assert await desk.run(counted("four")) == 4
    assert await desk.calls() == ["#0 step length"]


@dataclass
class Pair:
    left: int
    right: int = 0


class Shout(str): ...


@pytest.mark.parametrize(
    ("fn", "args", "gives"),
    [
        (max, [[1, 2]], 2),  # of which Python knows no signature
        (getattr, ["", "__doc__"], "".__doc__),
        (Pair, [3], Pair(3)),
        (Decimal, ["1.5"], Decimal("1.5")),
        (PurePosixPath, ["a", "b"], PurePosixPath("a/b")),
        (set, [[1, 2, 1]], {1, 2}),
        (Shout, ["a"], "a"),
    ],
)
async def test_functions_of_c_and_classes_are_steps(fn: Any, args: list[Any], gives: Any) -> None:
    @segue.flow
    async def uses() -> bool:
        given = await segue.step(fn, name="any")(*args)
        await segue.sleep(timedelta(milliseconds=1))  # and once more from the journal
        return bool(given == gives)

    async with segue.Engine(park="always", verify=True) as engine:
        assert await engine.run(uses())


async def test_values_are_the_same_live_and_replayed() -> None:
    seen: list[Any] = []

    @segue.step
    async def typed(x: int) -> Point:
        return Point(x, datetime(2024, 5, 6, tzinfo=UTC))

    @segue.step
    async def untyped() -> Any:
        return (1, {"a": Point(2, datetime(2024, 5, 6, tzinfo=UTC))})

    @segue.flow
    async def flow() -> None:
        seen.append((await typed(1), await untyped()))
        await segue.ask("Go on?")

    desk = Desk()
    desk.fake.answer("Go on?", "yes")
    await desk.run(flow())
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert seen[0][0] == Point(1, datetime(2024, 5, 6, tzinfo=UTC))
    assert seen[0][1][0] == 1
    assert isinstance(seen[0][1], list)  # nothing annotates it as a tuple


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError("no", 3),
        lambda: KeyError("k"),
        lambda: Odd(7, hint="why"),
        lambda: TimeoutError("slow"),
        lambda: FileNotFoundError(2, "No such file or directory", "x.txt"),
        lambda: OSError(18, "Invalid cross-device link", "a", None, "b"),
    ],
)
async def test_errors_are_the_same_live_and_replayed(make: Any) -> None:
    seen: list[Exception] = []

    @segue.step
    async def failing() -> None:
        raise make()

    @segue.flow
    async def flow() -> None:
        try:
            await failing()
        except Exception as error:
            seen.append(error)
        await segue.ask("Go on?")

    desk = Desk()
    desk.fake.answer("Go on?", "yes")
    await desk.run(flow())
    assert len(seen) == 2
    assert {type(error) for error in seen} == {type(make())}
    assert {str(error) for error in seen} == {str(make())}
    assert {repr(vars(error)) for error in seen} == {repr(vars(seen[0]))}


async def test_an_error_that_cant_be_built_again() -> None:
    seen: list[Exception] = []

    @segue.step
    async def failing() -> None:
        raise Closed(object())

    @segue.flow
    async def flow() -> None:
        try:
            await failing()
        except Exception as error:
            seen.append(error)
        await segue.ask("Go on?")

    desk = Desk()
    desk.fake.answer("Go on?", "yes")
    await desk.run(flow())
    assert [type(error) for error in seen] == [StepFailed, StepFailed]
    assert {str(error) for error in seen} == {f"{__name__}:Closed: closed by object"}


async def test_one_is_still_of_its_built_in_class() -> None:
    """Such as those of HTTP clients, which hold open connections."""
    seen: list[Exception] = []

    class Unreachable(ConnectionError):
        def __init__(self, connection: object, code: int) -> None:
            self.code = code
            super().__init__(f"{code} by {type(connection).__name__}")

    @segue.step
    async def failing(kind: str) -> None:
        raise Unreachable(object(), 7) if kind == "connection" else UnicodeDecodeError("x", b"", 0, 1, "bad")

    @segue.flow
    async def flow() -> None:
        try:
            await failing("connection")
        except OSError as error:
            seen.append(error)
        with pytest.raises(StepFailed):
            await failing("unicode")
        await segue.ask("Go on?")

    desk = Desk()
    desk.fake.answer("Go on?", "yes")
    await desk.run(flow())
    assert [isinstance(error, ConnectionError) and isinstance(error, StepFailed) for error in seen] == [
        True
    ] * 2
    assert str(seen[1]).endswith("Unreachable: 7 by object")


# ---------------------------------------------------------------- retries
async def test_retries_are_recorded_one_by_one() -> None:
    done: list[int] = []

    @segue.step(retry=segue.Retry(4, wait=timedelta(hours=1)))
    async def flaky() -> int:
        done.append(1)
        if len(done) < 3:
            raise OSError("down")
        return len(done)

    @segue.flow
    async def flow() -> int:
        return await flaky()

    desk = Desk()
    before = desk.fake.clock.now()
    assert await desk.run(flow()) == 3
    assert await desk.calls() == [
        "#0 step " + "test_retries_are_recorded_one_by_one.flaky",
        "#1 sleep sleep",
        "#2 step " + "test_retries_are_recorded_one_by_one.flaky",
        "#3 sleep sleep",
        "#4 step " + "test_retries_are_recorded_one_by_one.flaky",
    ]
    assert 3600 <= desk.fake.clock.now() - 1000 - before <= 2 * 3600  # each less up to half


@pytest.mark.parametrize("together", [False, True])
async def test_a_retry_in_the_same_life(together: bool) -> None:
    done: list[int] = []

    @segue.step(retry=segue.Retry(3, wait=timedelta()))
    async def flaky(n: int) -> int:
        done.append(n)
        if len(done) < 3:
            raise OSError("down")
        return len(done)

    @segue.flow
    async def flow() -> list[int]:
        entered.append(1)
        return await asyncio.gather(flaky(1), flaky(2)) if together else [await flaky(1)]

    entered: list[int] = []
    assert max(await Desk().run(flow())) == len(done) == (4 if together else 3)
    assert len(entered) == 1


async def test_a_long_back_off_parks() -> None:
    done: list[int] = []

    @segue.step(retry=segue.Retry(2, wait=timedelta(days=1)))
    async def flaky() -> int:
        done.append(1)
        if len(done) < 2:
            raise OSError("down")
        return 1

    @segue.flow
    async def flow() -> int:
        entered.append(1)
        return await flaky()

    entered: list[int] = []
    desk = Desk()
    await desk.run(flow())
    assert (len(entered), len(done)) == (2, 2)


async def test_jitter_is_the_same_in_every_life() -> None:
    @segue.step(retry=segue.Retry(3, wait=timedelta(hours=1)))
    async def failing() -> int:
        raise OSError("down")

    @segue.flow
    async def flow() -> int:
        return await failing()

    async def naps() -> list[bytes]:
        desk = Desk()
        with pytest.raises(OSError, match="down"):
            await desk.run(flow())
        return [entry.args for entry in await desk.entries() if entry.kind == "sleep"]

    first = await naps()
    assert len(first) == 2
    assert first == await naps()


async def test_only_wanted_errors_are_retried() -> None:
    done: list[int] = []

    @segue.step(retry=segue.Retry(5, on=(OSError, KeyError)))
    async def picky() -> None:
        done.append(1)
        raise ValueError("no use")

    @segue.flow
    async def flow() -> None:
        await picky()

    with pytest.raises(ValueError, match="no use"):
        await Desk().run(flow())
    assert len(done) == 1


async def test_attempts_are_not_begun_again_by_a_crash() -> None:
    done: list[str] = []

    @segue.step(retry=segue.Retry(3, wait=timedelta(minutes=5)), effect="keyed")
    async def flaky() -> None:
        done.append(segue.idempotency_key())
        raise OSError("down")

    @segue.flow
    async def flow() -> str:
        try:
            await flaky()
        except OSError:
            return "gave up"
        return "?"

    def begin(desk: Desk) -> None:
        done.clear()

    def check(desk: Desk, head: Any) -> None:
        assert head.value == b'"gave up"'
        assert 3 <= len(done) <= 4  # one attempt may have been cut off
        assert len(set(done)) == 1  # one key for all attempts, after a crash too

    await everywhere(flow, begin, check)


async def test_timeout_bounds_an_attempt() -> None:
    @segue.step(timeout=timedelta(milliseconds=10))
    async def slow() -> None:
        await asyncio.sleep(30)

    @segue.flow
    async def flow() -> None:
        await slow()

    with pytest.raises(TimeoutError, match=r"slow' took longer than 0:00:00\.01"):
        await Desk().run(flow())


async def _impatient() -> None:
    raise TimeoutError("the socket's")


def _impatient_on_a_thread() -> None:
    raise TimeoutError("the socket's")


@pytest.mark.parametrize("impatient", [_impatient, _impatient_on_a_thread])
async def test_a_steps_own_timeout_error_is_its_own(impatient: Any) -> None:
    step = segue.step(impatient, timeout=timedelta(seconds=30))

    @segue.flow
    async def flow() -> None:
        await step()

    with pytest.raises(TimeoutError, match="the socket's") as raised:
        await Desk().run(flow())
    assert str(raised.value) == "the socket's"  # a note tells of a cause too


# ---------------------------------------------------------------- effects
async def test_at_most_once_cut_off_is_held() -> None:
    done: list[int] = []

    @segue.step(effect="at-most-once", name="charge")
    async def charge() -> int:
        done.append(1)
        return len(done)

    @segue.flow
    async def flow() -> int:
        return await charge()

    desk = Desk()
    assert await desk.life(flow, 2) is None  # the charge is made, its outcome isn't written
    assert done == [1]
    head = await desk.life(flow, None)
    assert head is not None
    assert head.status == "held"
    assert "'charge'" in head.reason
    assert "--rerun" in head.reason
    assert "--value" in head.reason
    assert done == [1]
    with pytest.raises(RunHeld, match="charge"):
        await desk.run(flow())

    async with desk.engine() as engine:
        await engine.resume("it")
        assert await (await engine.get("it")) == 2
    assert done == [1, 1]


async def test_at_most_once_whose_outcome_is_told() -> None:
    done: list[int] = []

    @segue.step(effect="at-most-once", name="charge")
    async def charge() -> int:
        done.append(1)
        return 5

    @segue.flow
    async def flow() -> int:
        return await charge() + 1

    desk = Desk()
    await desk.life(flow, 2)
    await desk.life(flow, None)
    async with desk.engine() as engine:
        await engine.resume("it", value="much")
        with pytest.raises(RunHeld, match=r"'charge' isn't what it returns: .*int.*\n.*once more"):
            await (await engine.get("it"))
        await engine.resume("it", value=41)
        assert await (await engine.get("it")) == 42
    assert done == [1]
    assert (await desk.life(flow, None)).value == b"42"  # type: ignore[union-attr]


async def test_at_most_once_is_never_done_twice() -> None:
    done: list[int] = []

    @segue.step(effect="at-most-once")
    async def charge() -> int:
        done.append(1)
        return 1

    @segue.flow
    async def flow() -> int:
        await segue.ask("Sure?")
        return await charge()

    def begin(desk: Desk) -> None:
        done.clear()
        desk.fake.answer("Sure?", "yes")

    def check(desk: Desk, head: Any) -> None:
        assert len(done) == 1 if head.status == "done" else len(done) <= 1
        assert head.status in ("done", "held")

    await everywhere(flow, begin, check)


# ---------------------------------------------------------------- what can't be recorded
async def test_a_changed_argument() -> None:
    @segue.step
    async def change(rows: list[int]) -> None:
        rows.append(1)

    @segue.flow
    async def flow() -> None:
        await change([])

    with pytest.raises(ChangedArgument, match="change"):
        await Desk().run(flow())


async def test_arguments_that_cant_be_recorded() -> None:
    @segue.step
    async def take(thing: Any) -> None:
        """Nothing."""

    @segue.flow
    async def flow() -> str:
        try:
            await take({"a": [object()]})
        except NotEncodable as error:
            return f"{error.where} {error.path}"
        return "?"

    assert "take" in await Desk().run(flow())


async def test_results_that_cant_be_recorded() -> None:
    @segue.step
    async def give() -> Any:
        return threading.Lock()

    @segue.flow
    async def flow() -> None:
        await give()

    with pytest.raises(NotEncodable, match=r"the result of step .*give"):
        await Desk().run(flow())


async def test_large_values_are_stored_once() -> None:
    @segue.step
    async def large(n: int) -> str:
        return "x" * (BLOB * 3)

    @segue.step
    async def take(text: str) -> str:
        return text

    @segue.flow
    async def flow() -> int:
        texts = [await large(n) for n in range(3)]
        texts += [await take(texts[0]), await take(texts[0])]
        await segue.ask("Go on?")
        return sum(map(len, texts))

    desk = Desk()
    desk.fake.answer("Go on?", "yes")
    assert await desk.run(flow()) == 5 * 3 * BLOB
    loaded = await desk.store.load("it")
    assert loaded is not None
    assert sum(map(len, loaded.journal)) < BLOB
    stored = desk.store._contents.by_digest  # type: ignore[attr-defined]  # the memory store's
    assert [len(content) for content in stored.values()] == [3 * BLOB + 2]


class Plain:
    """JSON can't read it."""


@pytest.mark.parametrize("verify", [False, True])
async def test_a_result_that_json_cant_read_is_told_in_each_life(verify: bool) -> None:
    @segue.step
    async def plain() -> Plain:
        return Plain()

    @segue.flow
    async def flow() -> None:
        await plain()

    for name in "ab":
        with pytest.raises(BadSignature, match="Plain: JSON can't be read"):
            await Desk(verify=verify).run(flow(), id=name)


async def test_a_step_in_a_step_is_part_of_it() -> None:
    @segue.step
    async def inner() -> int:
        return 1

    @segue.step
    async def outer() -> int:
        return await inner() + 1

    @segue.flow
    async def flow() -> int:
        return await outer()

    desk = Desk()
    assert await desk.run(flow()) == 2
    assert len(await desk.entries()) == 1


async def test_keys_differ_between_calls() -> None:
    @segue.step(effect="keyed")
    async def key() -> str:
        return segue.idempotency_key()

    @segue.flow
    async def flow() -> list[str]:
        return [await key(), await key(), *await asyncio.gather(key(), key())]

    assert len(set(await Desk().run(flow()))) == 4


async def test_ids_chance_and_keys_of_runs_that_have_one_id_in_two_stores_differ() -> None:
    @segue.step(effect="keyed")
    async def key() -> str:
        return segue.idempotency_key()

    @segue.flow
    async def flow() -> tuple[str, str, float]:
        return str(segue.uuid()), await key(), segue.random.random()

    async def anew() -> tuple[str, str, float]:
        async with segue.Engine(verify=True) as engine:
            return await engine.run(flow(), id="nightly/0")

    for one, other in zip(await anew(), await anew(), strict=True):
        assert one != other


async def test_another_step_at_the_place_of_one_before_a_rebase_has_another_key() -> None:
    keys: list[str] = []
    changed = False

    @segue.step(effect="keyed")
    async def charge() -> None:
        keys.append(segue.idempotency_key())

    @segue.step(effect="keyed")
    async def refund() -> None:
        keys.append(segue.idempotency_key())

    @segue.flow
    async def flow() -> None:
        await (refund() if changed else charge())
        await segue.ask("Go on?")

    async with segue.Engine() as engine:
        run = await engine.start(flow(), id="it")
        while not await engine.open_asks():
            await asyncio.sleep(0.005)
        changed = True
        await (await engine.open_asks())[0].answer("yes")
        with pytest.raises(RunHeld):
            await run
        await engine.resume("it")
        while len(keys) < 2:
            await asyncio.sleep(0.005)
    assert len(keys) == len(set(keys)) == 2


async def test_a_keyed_step_that_was_cut_off_keeps_its_key_where_changed_code_puts_it_elsewhere() -> None:
    """The service had it, and nothing of it is in the journal: under another key it would be done twice."""
    keys: list[str] = []
    changed, hangs = False, True

    @segue.step
    async def look() -> None: ...

    @segue.step(effect="keyed", retry=2)
    async def pay(amount: int) -> None:
        keys.append(f"{amount} {segue.idempotency_key()}")
        if hangs and len(keys) % 3 == 0:
            await asyncio.Event().wait()
        if len(keys) in (1, 4):
            raise OSError("busy")

    @segue.flow(version="1")
    async def flow() -> None:
        if changed:
            await look()
            await look()
        for amount in (1, 1, 2):
            await pay(amount)

    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(flow(), id="it")
        while len(keys) < 3:  # the first one is paid, the second one under way
            await asyncio.sleep(0.001)
    changed = True
    async with desk.engine() as engine:
        await asyncio.wait([asyncio.ensure_future(engine.wait("it"))], timeout=0.05)
        await engine.resume("it")
        while len(keys) < 6:
            await asyncio.sleep(0.001)
    hangs = False
    await desk.run(flow())
    first, second, third = keys[0], keys[2], keys[5]
    assert keys == [first, first, second, second, second, third, third]
    assert len({first, second, third}) == 3


class Beyond(BaseException):
    """One that `except Exception` lets pass, as `pytest.fail()` raises."""


@pytest.mark.parametrize("alone", [True, False])
async def test_an_error_that_is_no_exception_reaches_who_waits_by_its_name(alone: bool) -> None:
    @segue.step
    async def bad() -> None:
        await asyncio.sleep(0)
        raise Beyond("no use")

    @segue.flow
    async def flow() -> None:
        await (bad() if alone else asyncio.gather(bad(), asyncio.Event().wait()))

    async with segue.Engine() as engine:
        with pytest.raises(RunFailed, match="Beyond: no use"):
            await asyncio.wait_for(engine.run(flow()), 5)


async def test_a_row_whose_code_raises_what_is_no_exception_keeps_no_other() -> None:
    @segue.flow
    async def flow(n: int) -> int:
        if n == 1:
            raise Beyond("no use")
        return n

    async with segue.Engine() as engine, asyncio.timeout(5):
        rows = [row async for row in engine.map(flow, range(3), id="it")]
        assert sorted((row.key, row.ok) for row in rows) == [("0", True), ("1", False), ("2", True)]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("sync", [True, False])
async def test_a_step_that_exits_fails_and_ends_no_program(alone: bool, sync: bool) -> None:
    def leaves() -> None:
        sys.exit("wrong usage")

    async def also_leaves() -> None:
        sys.exit("wrong usage")

    @segue.flow
    async def flow() -> str:
        step = segue.step(leaves if sync else also_leaves)
        try:
            await (step() if alone else asyncio.gather(step(), segue.sleep(timedelta(seconds=1))))
        except StepFailed as error:
            return f"{error.type} {error.message}"
        return "?"

    assert await Desk(verify=True).run(flow()) == "builtins:SystemExit wrong usage"


async def test_a_flow_that_exits_fails() -> None:
    @segue.flow
    async def flow() -> None:
        sys.exit(3)

    async with segue.Engine() as engine:
        with pytest.raises(RunFailed, match="SystemExit: 3"):
            await engine.run(flow())


class Mute(Exception):
    def __str__(self) -> str:
        raise AttributeError("nothing was said")


async def test_groups_of_errors_come_back_as_they_were() -> None:
    @segue.step
    async def many() -> None:
        raise ExceptionGroup("two", [ValueError("a"), ExceptionGroup("inner", [KeyError("b"), Mute()])])

    @segue.flow
    async def flow() -> list[str]:
        told: list[str] = []
        try:
            await many()
        except* ValueError as group:
            told += [str(error) for error in group.exceptions]
        except* LookupError as group:
            inner = group.exceptions[0]
            assert isinstance(inner, ExceptionGroup)
            told += [repr(error) for error in inner.exceptions]
        except* Mute:
            told.append("mute")
        return told

    assert await Desk(verify=True).run(flow()) == ["a", "KeyError('b')", "mute"]


async def test_an_error_of_a_text_that_utf8_has_not_keeps_its_class() -> None:
    @segue.step
    async def bad() -> None:
        raise ValueError("a file named \udcff")

    @segue.flow
    async def flow() -> str:
        try:
            await bad()
        except ValueError as error:
            return f"{type(error).__name__} {error}"
        return "?"

    assert await Desk().run(flow()) == r"StepFailed builtins:ValueError: a file named \udcff"


async def test_structs_in_and_out() -> None:
    class Box(msgspec.Struct):
        items: tuple[int, ...]

    @segue.step
    async def pack(box: Box) -> Box:
        return Box((*box.items, 1))

    @segue.flow
    async def flow() -> Box:
        return await pack(Box((2,)))

    assert await Desk().run(flow()) == Box((2, 1))


async def test_a_step_that_raises_cancelled_error_fails_and_cancels_nothing() -> None:
    @segue.step
    async def gives_up() -> None:
        raise asyncio.CancelledError("of its own")

    @segue.flow
    async def flow() -> list[str]:
        seen = []
        for how in (gives_up(), asyncio.gather(gives_up())):
            try:
                await how
            except Exception as error:
                seen.append(type(error).__name__)
        return seen

    async with segue.Engine() as engine:
        assert await engine.run(flow()) == ["StepFailed", "StepFailed"]
