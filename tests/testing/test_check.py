"""check(): sound flows pass in every mode and crash; unsound ones are found."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest

import segue
from segue.model.errors import ModelFailed
from segue.ports.provider import CallFault
from segue.ports.store import Claimed
from segue.runtime.wake.executor import Executor
from segue.stores.memory import MemoryStore
from segue.testing import FakeModel, Report, ToolUse, check
from segue.testing.fake_provider import FakeProvider


def fake() -> FakeModel:
    model = FakeModel()
    model.when("").reply(lambda call: f"<{call.text[-40:]}>")
    return model


@segue.step
async def double(value: int) -> int:
    return value * 2


@segue.step
def blocking(value: int) -> int:
    return value + 1


@segue.step(effect="at-most-once")
async def charge(amount: int) -> str:
    return f"charged {amount}"


@segue.step(effect="keyed")
async def keyed(amount: int) -> str:
    return f"{amount}, {segue.idempotency_key()}"


@dataclass
class Row:
    name: str
    count: int = 1


# ---------------------------------------------------------------- sound flows
@segue.flow
async def alone() -> str:
    return await segue.generate("On your own?") + str(await double(2))


async def test_a_flow_without_arguments_has_no_rows():
    report = await check(alone, model=fake())
    assert report.waves == 1
    assert report.kills > 0


@segue.flow
async def plain(row: str) -> str:
    first = await segue.generate(f"One: {row}")
    second = await segue.generate(f"Two: {first}")
    return f"{second} {await double(2)}"


@segue.flow
async def gathering(row: Row) -> list[str]:
    texts = await asyncio.gather(*(segue.generate(f"{row.name} {i}") for i in range(3)), keyed(row.count))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(segue.generate(text)) for text in texts]
        other = group.create_task(blocking(row.count))
    return [*(task.result() for task in tasks), str(other.result())]


@segue.flow
async def sleeping(row: str) -> str:
    await segue.sleep(timedelta(days=3))
    day = segue.now()
    text = await segue.generate(f"{row} on {day:%A}, {segue.uuid()}, {segue.random.randint(1, 6)}")
    async with segue.timeout(timedelta(days=30)):
        await segue.sleep(timedelta(hours=1))
    return text


@segue.flow
async def asking_around(row: str) -> str:
    draft = await segue.generate(f"Draft: {row}")
    if await segue.ask("Send it?", show=draft, returns=bool):
        await double(1)
        return await segue.ask("Why?", timeout=timedelta(days=1), default="nobody said")
    return "not sent"


TRIES: dict[str, int] = {}  # by idempotency key, so that an attempt that is made again ends as it did


@segue.flow
async def retrying(row: str) -> int:
    @segue.step(retry=segue.Retry(4, wait=timedelta(minutes=10)), name="flaky")
    async def flaky(attempt_of: str) -> int:
        count = TRIES.setdefault(segue.idempotency_key(), len(TRIES) + 1)
        if count < 3:
            raise ValueError(f"attempt {count}")
        return count

    return await flaky(row)


@segue.flow
async def failing(row: str) -> str:
    try:
        return await segue.generate(f"Fail: {row}")
    except ModelFailed as error:
        raise ValueError(f"{row}: {error.status}") from error


@segue.flow
async def paying(row: int) -> str:
    text = await segue.generate(f"How much? {row}")
    return f"{text} {await charge(row)} {await double(row)}"


@segue.flow
async def mapping(count: int) -> list[Any]:
    numbers = await segue.map(double, range(count), limit=2)
    texts = [text async for text in segue.map(plain, [f"m{i}" for i in numbers])]
    outcomes = await segue.map(failing, ["x", "y"], errors="return")
    return [numbers, texts, [str(outcome.error) for outcome in outcomes]]


@segue.flow
async def spawning_parent(row: str) -> str:
    child = await segue.spawn(plain(row))
    meanwhile = await segue.generate(f"Meanwhile {row}")
    return f"{await child} {meanwhile}"


async def search(query: str) -> list[str]:
    """Search."""
    return [query.upper()]


async def refund(amount: int) -> str:
    """Refund."""
    return f"{amount} refunded"


@segue.flow
async def agent(row: str) -> str:
    return await segue.generate(f"Agent {row}", tools=[search, segue.tool(refund, approve=True)])


@segue.flow
async def semaphored(row: int) -> list[str]:
    room = asyncio.Semaphore(2)

    async def one(i: int) -> str:
        async with room:
            return await segue.generate(f"{row} {i}")

    return await asyncio.gather(*(one(i) for i in range(5)))


@segue.flow
async def embedding(row: str) -> int:
    vectors = await segue.embed([row, "b"])
    return len(vectors[0])


@segue.flow
async def big(row: str) -> int:
    text = await segue.generate(f"{row}" * 3000)
    return len(text) + len(await segue.generate(text * 500))


@segue.flow
async def nothing(row: str) -> str:
    return row


def with_faults() -> FakeModel:
    model = fake()
    model.when("Fail").reply(CallFault(400, "no", again=False))
    model.when("One").reply(CallFault(500, "later", again=True), "one")
    return model


def with_answers() -> FakeModel:
    model = fake()
    model.answer("Send it?", True)
    return model


def with_tools() -> FakeModel:
    model = fake()
    model.when("Agent").reply(
        [ToolUse("search", query="a"), ToolUse("search", query="b"), ToolUse("refund", amount=7)],
        ToolUse("unknown"),
        "done",
        [ToolUse("search", query="c"), ToolUse("search", query="d"), ToolUse("refund", amount=7)],
        ToolUse("unknown"),
        "done as well",
    )
    model.answer("May refund", segue.Edit(amount=5))
    return model


@pytest.mark.parametrize(
    ("flow", "rows", "model", "waves"),
    [
        (nothing, ["a"], fake, 0),
        (plain, ["a", "b"], fake, 2),
        (gathering, [Row("a"), Row("b", 2)], fake, 2),
        (sleeping, ["a", "b"], fake, 1),
        (asking_around, ["a"], with_answers, 1),
        (retrying, ["a"], fake, 0),
        (failing, ["a", "b"], with_faults, 1),
        (paying, [1, 2], fake, 1),
        (plain, ["a"], with_faults, 3),
        (agent, ["a"], with_tools, 3),
        (semaphored, [1], fake, 3),
        (embedding, ["a"], fake, 1),
        (big, ["abc"], fake, 2),
        (spawning_parent, ["a"], fake, None),
        (mapping, [2], with_faults, None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_sound_flows(
    flow: Callable[[Any], Awaitable[Any]], rows: list[Any], model: Callable[[], FakeModel], waves: int | None
) -> None:
    report = await check(flow, rows, model=model())
    assert isinstance(report, Report)
    assert waves is None or report.waves == waves
    assert report.lives > 2 * report.kills > 0
    assert (report.held > 0) == (flow is paying)


@pytest.mark.parametrize(
    ("flow", "rows", "model", "tokens"),
    [
        (plain, ["a", "b", "c"], fake, 1_400),
        (gathering, [Row("a"), Row("b", 2)], fake, 1_400),
        (gathering, [Row("a"), Row("b", 2)], fake, 10**9),
        (asking_around, ["a"], with_answers, 10**9),
        (failing, ["a", "b"], with_faults, 10**9),
        (paying, [1, 2], fake, 10**9),
        (agent, ["a"], with_tools, 10**9),
        (semaphored, [1], fake, 10**9),
        (embedding, ["a"], fake, 10**9),
        (spawning_parent, ["a"], fake, 10**9),
        (mapping, [2], with_faults, 1_400),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_budgets_come_out_even_wherever_a_process_dies(
    flow: Callable[[Any], Awaitable[Any]], rows: list[Any], model: Callable[[], FakeModel], tokens: int
) -> None:
    report = await check(flow, rows, model=model(), budget=segue.Budget(tokens=tokens), kills=25)
    assert report.kills > 0


@segue.flow(budget=segue.Budget(tokens=1_500))
async def thrifty(row: str) -> str:
    return await segue.generate(f"thrifty: {row}")


@segue.flow
async def on_budgets_of_others(row: str) -> list[str]:
    """A flow that starts and awaits one with a budget of its own, and has a block with one."""
    first = await segue.spawn(thrifty(row))
    here = await thrifty(row)
    with segue.using(budget=segue.Budget(tokens=2_000)):
        inside, mapped = await segue.generate(f"inside: {row}"), await segue.map(double_asked, [row])
    return [await first, here, inside, *mapped]


@segue.flow
async def double_asked(row: str) -> str:
    return await segue.generate(f"once: {row}") + await segue.generate(f"twice: {row}")


@pytest.mark.parametrize("flow", [thrifty, on_budgets_of_others], ids=lambda flow: flow.__name__)
async def test_budgets_that_a_flow_has_of_its_own_are_for_what_is_on_them(
    flow: Callable[[Any], Awaitable[Any]],
) -> None:
    report = await check(flow, ["a", "b"], model=fake(), kills=5, budget=segue.Budget(tokens=10**9))
    assert report.kills > 0
    assert (await check(flow, ["a", "b"], model=fake(), kills=5)).kills > 0


# ---------------------------------------------------------------- unsound flows
@segue.flow
async def clock_in_prompt(row: str) -> str:
    return await segue.generate(f"It is {time.time_ns()}: {row}")


@segue.flow
async def chance_in_branch(row: str) -> int:
    total = 0
    for _ in range(8):
        total += await (double(1) if random.random() < 0.5 else keyed_number(1))
    return total


@segue.step
async def keyed_number(value: int) -> int:
    return value


COUNTER = itertools.count()


@segue.flow
async def global_counter(row: str) -> str:
    return await segue.generate(f"{row}: number {next(COUNTER)}")


@segue.flow
async def counter_in_result(row: str) -> int:
    await double(1)
    return next(COUNTER)


@segue.step
async def changing(items: list[int]) -> int:
    items.append(1)
    return len(items)


@segue.flow
async def changed_argument(row: str) -> int:
    return await changing([1, 2])


@segue.flow
async def changed_and_swallowed(row: str) -> str:
    try:
        await changing([1, 2])
    except Exception:
        return "never mind"
    return "fine"


SEEN: set[str] = set()


@segue.flow
async def remembers(row: str) -> int:
    """Leaves a step out that it made before: seen only by a run that starts anew."""
    await segue.sleep(timedelta(hours=1))
    if row in SEEN:
        return 0
    SEEN.add(row)
    return await double(4)


@segue.flow
async def mode_matters(row: str) -> str:
    """What the model isn't asked in every mode alike."""
    text = await segue.generate(f"Speak: {row}")
    from segue.authoring.context import current

    if str(current("now").run.config.mode).startswith("Batch"):
        await double(1)
    return text


@pytest.mark.parametrize(
    ("flow", "says"),
    [
        (clock_in_prompt, "segue.now()"),
        (chance_in_branch, "is now step"),
        (global_counter, "number"),
        (counter_in_result, "replayed, with"),
        (changed_argument, "changed one of its arguments"),
        (changed_and_swallowed, "changed one of its arguments"),
        (remembers, "double"),
        (mode_matters, "step 'double' in batch"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_unsound_flows(flow: Callable[[Any], Awaitable[Any]], says: str) -> None:
    with pytest.raises(AssertionError) as failed:
        await check(flow, ["a"], model=fake())
    assert says in str(failed.value), str(failed.value)


async def test_what_is_unexpected_fails_it() -> None:
    with pytest.raises(AssertionError, match=r"model.when\('One: a'\)"):
        await check(plain, ["a"], model=FakeModel())
    with pytest.raises(AssertionError, match=r"model.answer\('Send it\?', …\)"):
        await check(asking_around, ["a"], model=fake())


@segue.flow
async def asking(row: str) -> str:
    return await segue.ask(f"Send {row}?")


async def test_a_question_that_nobody_answers_fails_it() -> None:
    async with asyncio.timeout(10):
        with pytest.raises(AssertionError, match=r"nobody answers the question 'Send a\?'"):
            await check(asking, ["a"], model=FakeModel())


async def test_kills_bounds_the_crashes() -> None:
    whole = await check(plain, ["a"], model=fake())
    few = await check(plain, ["a"], model=fake(), kills=2)
    assert few.kills <= 8 < whole.kills
    assert (await check(plain, ["a"], model=fake(), kills=0)).kills == 0


async def test_calls_are_those_of_the_live_runs() -> None:
    model = fake()
    await check(plain, ["a", "b"], model=model, kills=3)
    assert sorted(call.text[:6] for call in model.calls) == ["One: a", "One: b", "Two: <", "Two: <"]


async def test_only_flows_are_checked() -> None:
    async def function(row: str) -> str:
        return row

    with pytest.raises(segue.SegueError, match="decorate it"):
        await check(function, ["a"], model=fake())
    with pytest.raises(TypeError, match=r"not the call <call of flow .*: check\(my_flow, "):
        await check(plain("a"), model=fake())  # type: ignore[call-overload]


# ---------------------------------------------------------------- an engine that breaks its promises
async def test_lines_that_are_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(self: FakeProvider, nonce: str, file: str, since: float, **known: object) -> None:
        return None

    monkeypatch.setattr(FakeProvider, "find", find)
    with pytest.raises(AssertionError, match="submitted more than once"):
        await check(plain, ["a"], model=fake())


async def test_committed_steps_that_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = MemoryStore.claim

    async def forgetful(self: MemoryStore, *args: Any, **how: Any) -> list[Claimed]:
        claimed = await real(self, *args, **how)
        return [msgspec.structs.replace(one, journal=one.journal[:-1]) for one in claimed]

    monkeypatch.setattr(MemoryStore, "claim", forgetful)
    with pytest.raises(AssertionError, match=r"done again|more than once"):
        await check(plain, ["a"], model=fake())


@segue.flow
async def single(row: int) -> str:
    return await charge(row)


async def test_an_at_most_once_step_that_runs_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await check(single, [1], model=fake())).held > 0
    monkeypatch.setattr(
        Executor, "pending", lambda self, call, entry: self.carrying.begin(call, call.request)
    )
    with pytest.raises(AssertionError, match="done again"):
        await check(single, [1], model=fake())


async def test_lives_that_are_ended_on_purpose_arent_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    await check(doubled_twice, [1], model=fake())
    assert "was taken over" not in caplog.text


@segue.flow
async def doubled_twice(n: int) -> int:
    return await double(await double(n))
