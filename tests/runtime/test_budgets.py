"""Budgets: nothing is sent that they have no room for, and what waits for room or money goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Budget
from segue.core.batching import ATTEMPTS
from segue.errors import Conflict, MissingExtra, ModelFailed, NotInRun, RunCancelled, RunHeld, Unpriced
from segue.model.budget import NANO, STORE, Account, Amount, Limit, Reservation, Standing
from segue.model.run import Spec
from segue.ports.provider import CallFault
from segue.ports.store import NewRun, Turn
from segue.runtime.lanes import desk as lanes
from segue.runtime.receipt import total
from segue.stores.memory import MemoryStore
from segue.testing.simulator import Simulator
from tests.crash.remote import Far, FastClock, Remote, answer
from tests.runtime.delayed import Delayed
from tests.runtime.world import KEY, World

ROWS = 8
MODES = ["live", "batch"]


class Cent:
    """A token costs a cent, and half of it in a batch."""

    def usd(
        self, model: str, lane: str, asked: int, said: int, cached: int, written: int = 0, calls: int = 1
    ) -> float | None:
        if model.endswith(":free"):
            return None
        return (asked + said) * {"live": 0.01, "batch": 0.005}[lane]


@segue.flow(name="budgets.echo")
async def echo(number: int) -> str:
    return await segue.generate(f"row {number}", max_tokens=20)


@segue.flow(name="budgets.many")
async def many(count: int) -> list[str]:
    calls = [segue.generate(f"row {number}", max_tokens=20) for number in range(count)]
    return await asyncio.gather(*calls)


@segue.flow(name="budgets.parent")
async def parent(count: int) -> list[str]:
    return await segue.map(echo, range(count))


@pytest.fixture(params=["memory", "sqlite"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(tmp_path)
    world.store = "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'runs.db'}"  # type: ignore[attr-defined]
    await world.simulator()
    yield world
    await world.sim.close()


def engine(world: World, **options: Any) -> segue.Engine:
    return world.engine(world.store, prices=Cent(), **options)  # type: ignore[attr-defined]


async def mapped(desk: segue.Engine, rows: int = ROWS, **how: Any) -> list[Any]:
    async with asyncio.timeout(30):
        return [outcome async for outcome in desk.map(echo, range(rows), id="job", **how)]


async def standing(desk: segue.Engine, account: str = "job:job") -> Standing:
    (one,) = await desk.store.budgets([account])
    return one


def paid(sim: Simulator) -> int:
    """Tokens that the provider billed."""
    return sum(entry.tokens_in + entry.tokens_out for entry in sim.ledger.lines() if entry.paid)


async def used(desk: segue.Engine, **which: Any) -> int:
    uses = total(use for head in (await desk.store.newest(**which))[0] for use in head.usage)
    return sum(use.input_tokens + use.output_tokens for use in uses)


@pytest.mark.parametrize("mode", MODES)
async def test_held_before_it_is_overspent_and_on_when_money_is_added(world: World, mode: Any) -> None:
    async with engine(world, mode=mode) as desk:
        outcomes = await mapped(desk, budget=Budget(tokens=100))
        held = [outcome for outcome in outcomes if not outcome.ok]
        assert 0 < len(held) < ROWS
        assert all(isinstance(outcome.error, RunHeld) for outcome in held)
        assert {head.cause for head in (await desk.store.newest(status=("held",)))[0]} == {
            "no budget is left: that of job 'job' (job:job)"
        }
        assert "segue resume --job job --budget " in str(held[0].error)
        now = await standing(desk)
        assert now.reserved == Amount()
        assert now.waiting == len(held)
        assert now.spent.tokens == paid(world.sim) == await used(desk) <= 100
        again = await mapped(desk, budget=Budget(tokens=100))
        assert sum(not outcome.ok for outcome in again) == len(held)
        assert now == await standing(desk)
        await desk.fund(Budget(tokens=10_000), job="job")
        assert all(outcome.ok for outcome in await mapped(desk))
        now = await standing(desk)
        assert (now.reserved, now.waiting) == (Amount(), 0)
        assert now.spent.tokens == paid(world.sim) == await used(desk)
    assert sum(entry.paid for entry in world.sim.ledger.lines()) == ROWS


async def test_rows_that_come_to_a_job_later_are_on_its_budget(world: World) -> None:
    """Also where who brings them doesn't name it: it is for all runs of the job together."""
    async with engine(world, mode="live") as desk:
        await mapped(desk, rows=2, budget=Budget(tokens=100))
        held = [outcome for outcome in await mapped(desk, rows=30) if not outcome.ok]
        assert held
        now = await standing(desk)
        assert now.spent.tokens == paid(world.sim) <= 100
        await desk.fund(Budget(tokens=10_000), job="job")
        assert all(outcome.ok for outcome in await mapped(desk, rows=30))
        assert (await standing(desk)).spent.tokens == paid(world.sim)


async def test_rows_that_come_to_a_job_later_are_on_the_engines_budget_too(world: World) -> None:
    async with engine(world, mode="live", budget=Budget(tokens=10_000)) as desk:
        await mapped(desk, rows=2, budget=Budget(tokens=10_000))
        await mapped(desk, rows=4)
        for account in ("job:job", STORE):
            assert (await standing(desk, account)).spent.tokens == paid(world.sim)
        first, later = [(await desk.head(row)).spec.config.accounts for row in ("job/0", "job/3")]
        assert {one.id for one in first} == {one.id for one in later}  # whoever carries them out


@segue.flow(name="budgets.thrifty", budget=Budget(tokens=60))
async def thrifty(number: int) -> str:
    return await segue.generate(f"row {number}", max_tokens=20)


async def test_rows_with_a_budget_of_their_own_are_on_that_of_their_job_too(world: World) -> None:
    async with engine(world, mode="live") as desk:
        await desk.map(thrifty, range(2), id="job", budget=Budget(tokens=1000))
        spent = (await standing(desk)).spent
        await desk.map(thrifty, range(3), id="job")
        assert (await standing(desk)).spent.tokens > spent.tokens
        assert (await standing(desk, "run:job/2")).spent.tokens == (
            await standing(desk)
        ).spent.tokens - spent.tokens


@pytest.mark.parametrize("mode", MODES)
async def test_money(world: World, mode: Any) -> None:
    async with engine(world, mode=mode) as desk:
        outcomes = await mapped(desk, budget=Budget(usd=1.0 if mode == "live" else 0.5))
        assert 0 < sum(outcome.ok for outcome in outcomes) < ROWS
        now = await standing(desk)
        assert now.spent.nanos == round((await desk.receipt(job="job")).usd * NANO) <= now.limit.nanos  # type: ignore[operator]
        again = await mapped(desk, budget=Budget(usd=20))
        assert all(outcome.ok for outcome in again)


@pytest.mark.parametrize("mode", MODES)
async def test_what_others_have_reserved_is_waited_for(world: World, mode: Any) -> None:
    """Each call may cost a third of the budget and does cost a tenth: none is held."""
    async with engine(world, mode=mode) as desk:
        outcomes = await mapped(desk, 6, budget=Budget(tokens=125))
        assert all(outcome.ok for outcome in outcomes), [outcome.error for outcome in outcomes]
        now = await standing(desk)
        assert now.spent.tokens == paid(world.sim) <= 125
        assert (now.reserved, now.waiting) == (Amount(), 0)


@pytest.mark.parametrize("mode", MODES)
async def test_calls_of_one_run_side_by_side(world: World, mode: Any) -> None:
    async with engine(world, mode=mode) as desk:
        assert len(await desk.run(many(6), id="wide", budget=Budget(tokens=125))) == 6
        with pytest.raises(
            RunHeld, match=r"tokens spent; this call may cost .*`segue resume narrow --budget \d+tok`"
        ):
            await desk.run(many(6), id="narrow", budget=Budget(tokens=60))
        spent = paid(world.sim)
        assert 0 < (await standing(desk, "run:narrow")).spent.tokens <= 60
        await desk.resume("narrow", budget=Budget(tokens=1000))
        assert len(await (await desk.get("narrow"))) == 6
        now = await standing(desk, "run:narrow")
        assert now.spent.tokens == await used(desk) - (await standing(desk, "run:wide")).spent.tokens
        assert paid(world.sim) == await used(desk) > spent
    assert sum(entry.paid for entry in world.sim.ledger.lines()) == 12


@pytest.mark.parametrize("mode", MODES)
async def test_children_are_on_the_budget_and_others_arent(world: World, mode: Any) -> None:
    async with engine(world, mode=mode) as desk:
        run = await desk.start(parent(6), id="p", budget=Budget(tokens=60))
        async with asyncio.timeout(30):
            while not (await desk.store.newest(status=("held",)))[0]:
                await asyncio.sleep(0.01)
        assert await desk.run(echo(7)) == "You said: row 7"
        assert (await standing(desk, "run:p")).spent.tokens <= 60
        await desk.fund(Budget(tokens=600), run="p")
        assert len(await run) == 6
        assert [one.id for one in await desk.store.budgets()] == ["run:p"]


async def test_all_budgets_that_apply_have_room(world: World) -> None:
    async with engine(world, mode="live", budget=Budget(tokens=110)) as desk:
        await desk.run(echo(1), budget=Budget(tokens=1000), id="a")
        with pytest.raises(RunHeld, match=r"that of run 'c'"):
            await desk.run(echo(1), budget=Budget(tokens=2), id="c")
        with pytest.raises(RunHeld, match=r"that of the engine \(store\)"):
            for number in range(20):
                await desk.run(echo(number), id=f"b{number}")
        assert (await standing(desk, "store")).spent.tokens == paid(world.sim)
        await desk.fund(Budget(tokens=10_000))
        assert await (await desk.get("b1")) == "You said: row 1"


async def test_an_engine_with_a_higher_budget_goes_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    if world.store == "memory:":  # type: ignore[attr-defined]
        return
    async with engine(world, mode="live", budget=Budget(tokens=5)) as desk:
        with pytest.raises(RunHeld):
            await desk.run(echo(1), id="a")
    async with engine(world, mode="live", budget=Budget(tokens=500)) as desk:
        assert await (await desk.get("a")) == "You said: row 1"
    assert not caplog.records
    async with engine(world, mode="live", budget=Budget(tokens=20)):
        assert "budget of the engine stays as it is" in caplog.text


@segue.flow(name="budgets.blocks")
async def blocks(wide: int, narrow: int) -> list[Any]:
    with segue.using(budget=Budget(tokens=wide)):
        first = await segue.generate("one", max_tokens=20)
        with segue.using(budget=Budget(tokens=narrow)):
            return [first, await segue.generate("two", max_tokens=20), await segue.spawn(echo(3), id="kid")]


async def test_blocks(world: World) -> None:
    async with engine(world, mode="live") as desk:
        await desk.run(blocks(1000, 900), id="a")
        await (await desk.get("kid"))
        outer, inner = await desk.store.budgets()
        assert (outer.id, inner.id) == ("block:a #0", "block:a #1")
        assert outer.spent.tokens == paid(world.sim) > inner.spent.tokens > 0
        with pytest.raises(RunHeld, match=r"a block of run 'b'"):
            await desk.run(blocks(1000, 10), id="b")
        with pytest.raises(NotInRun), segue.using(budget=Budget(tokens=1)):
            pass


class Ask(segue.Request[str]):
    number: int


class Thrifty(segue.Actor[None]):
    @segue.on
    async def answer(self, asked: Ask) -> str:
        with segue.using(budget=Budget(tokens=1000)):
            return (await asyncio.gather(echo(asked.number)))[0]


async def test_a_block_of_an_actor_is_for_all_its_messages(world: World) -> None:
    async with engine(world, mode="live") as desk:
        actor = await desk.start(Thrifty(), id="a")
        for number in range(3):
            await actor.request(Ask(number))
        (block,) = await desk.store.budgets()
        assert block.spent.tokens == paid(world.sim) > 0


@segue.flow(budget=Budget(tokens=1000))
async def echo_within(number: int) -> str:
    return await echo(number)


class Generous(segue.Actor[None]):
    @segue.on
    async def answer(self, asked: Ask) -> str:
        return await echo_within(asked.number)


async def test_a_flow_that_an_actor_awaits_has_its_own_budget_with_each_message(world: World) -> None:
    async with engine(world, mode="live") as desk:
        actor = await desk.start(Generous(), id="a")
        for number in range(3):
            await actor.request(Ask(number))
        spent = [one.spent.tokens for one in await desk.store.budgets()]
        assert len(spent) == 3
        assert min(spent) > 0
        assert sum(spent) == paid(world.sim)


async def test_a_block_keeps_its_budget_where_calls_come_in_front_of_it(world: World) -> None:
    """Each its own, and what is spent of it stays."""
    asked: list[str] = []

    @segue.flow(name="budgets.changed", version="1")
    async def changed() -> str:
        for text in asked:
            await segue.generate(text, max_tokens=20)
        with segue.using(budget=Budget(tokens=1000)):
            await segue.generate("one", max_tokens=20)
        with segue.using(budget=Budget(tokens=100)):
            await segue.generate("two", max_tokens=20)
            await segue.receive(str)
            return await segue.generate("three", max_tokens=20)

    async with engine(world, mode="live") as desk:
        run = await desk.start(changed(), id="a")
        while (await run.head()).status != "parked":
            await asyncio.sleep(0.001)
        before = [(one.limit, one.spent.tokens) for one in await desk.store.budgets()]
        asked = ["new"]
        await run.tell("go")
        assert (await desk.wait("a")).status == "held"
        await desk.resume("a")
        await run
        one, two = [(one.limit, one.spent.tokens) for one in await desk.store.budgets()]
    assert one == before[0]
    assert (two[0], two[1] > before[1][1]) == (before[1][0], True)


async def test_no_price(world: World) -> None:
    async with engine(world, mode="live") as desk:
        with pytest.raises(Unpriced, match=r"far:free.*tokens"):
            await desk.start(echo(1), model="far:free", budget=Budget(usd=1))
        assert await desk.store.runs() == []
        await desk.run(echo(1), model="far:free", budget=Budget(tokens=100))
        with pytest.raises(RunHeld, match="no price of model 'far:free' is known"):
            await desk.run(picks("far:free"), budget=Budget(usd=1))


@segue.flow(name="budgets.picks")
async def picks(model: str) -> str:
    return await segue.generate("hi", model=model)


@pytest.mark.parametrize("mode", MODES)
async def test_a_process_without_prices_holds_what_needs_them(
    world: World, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was left ready without a word, and taken up again and again."""

    def none(self: Cent, *use: object) -> float | None:
        raise MissingExtra("genai-prices", "cli")

    async with engine(world, mode=mode) as desk:
        desk.worker.room = 0
        run = await desk.start(echo(1), id="a", budget=Budget(usd=1))
        with monkeypatch.context() as without:
            without.setattr(Cent, "usd", none)
            desk.worker.room = 1
            with pytest.raises(RunHeld, match=r"genai-prices isn't installed.*\nThen `segue resume a`"):
                async with asyncio.timeout(10):
                    await run
        await desk.resume("a")
        assert await run == "You said: row 1"


async def test_a_replay_reserves_nothing_and_a_verified_run_is_right(world: World) -> None:
    async with engine(world, mode="live", verify=True, park="always") as desk:
        await desk.run(many(3), id="a", budget=Budget(tokens=500))
        now = await standing(desk, "run:a")
        assert (now.spent.tokens, now.reserved) == (paid(world.sim), Amount())


async def test_a_fork_is_on_the_budgets_of_its_origin_or_its_own(world: World) -> None:
    async with engine(world, mode="live") as desk:
        await desk.run(echo(2), id="a", budget=Budget(tokens=500))
        before = (await standing(desk, "run:a")).spent.tokens
        await (await desk.fork("a", id="b", before="#0"))
        twice = (await standing(desk, "run:a")).spent.tokens
        assert twice == 2 * before == paid(world.sim)
        await (await desk.fork("a", id="c"))
        await (await desk.fork("a", id="d", before="#0", budget=Budget(tokens=500)))
        assert (await standing(desk, "run:a")).spent.tokens == twice
        assert (await standing(desk, "run:d")).spent.tokens == before


async def test_a_call_that_fails_gives_back(world: World) -> None:
    world.sim.faults.fail(1, status=400, on="chat")
    async with engine(world, mode="live") as desk:
        with pytest.raises(segue.SegueError):
            await desk.run(echo(1), id="a", budget=Budget(tokens=100))
        now = await standing(desk, "run:a")
        assert (now.spent, now.reserved) == (Amount(), Amount())


class Slow(Far):
    """Answers that cost what they like, in their own time; unreadable ones first."""

    def __init__(self, cost: int = 5, seconds: float = 0.0, spoilt: int = 0) -> None:
        super().__init__(Remote(FastClock()))
        self.cost, self.seconds, self.spoilt = cost, seconds, spoilt
        self.sent = 0

    async def send(self, endpoint: str, body: bytes, on_text: Any, on_rates: Any = None) -> bytes:
        self.sent += 1
        await asyncio.sleep(self.seconds)
        if self.sent <= self.spoilt:
            raise CallFault(200, "it broke off", again=True, code="truncated")
        return answer(body).replace(b'"completion_tokens": 2', b'"completion_tokens": %d' % (self.cost - 3))


def slow_engine(provider: Slow) -> segue.Engine:
    options: Any = {"mode": "live", "model": "far:m", "providers": {"far": lambda _: provider}}
    return segue.Engine("memory:", clock=FastClock(), **options)


@segue.flow(name="budgets.race")
async def race(patience: float) -> str:
    slow = asyncio.create_task(segue.generate("slow", max_tokens=20))
    done, _ = await asyncio.wait({slow}, timeout=patience)
    if not done:
        slow.cancel()
    await segue.sleep(timedelta(0))
    return "given up" if not done else slow.result()


async def test_a_call_that_is_given_up_gives_back_at_once(world: World) -> None:
    async with slow_engine(Slow(seconds=30.0)) as desk:
        assert await desk.run(race(0.02), id="a", budget=Budget(tokens=100)) == "given up"
        now = await standing(desk, "run:a")
        assert (now.spent, now.reserved) == (Amount(), Amount())


async def test_answers_that_cost_more_than_they_may_are_paid_and_nothing_after_them(world: World) -> None:
    """What is spent above a budget is what calls under way cost above what was reserved for them."""
    provider = Slow(cost=500)
    async with slow_engine(provider) as desk:
        with pytest.raises(RunHeld, match="1,500 of 150 tokens spent"):
            await desk.run(many(6), id="a", budget=Budget(tokens=150))
        assert (provider.sent, (await standing(desk, "run:a")).spent.tokens) == (3, 1500)


async def test_answers_that_are_no_use_count_as_what_was_reserved(world: World) -> None:
    provider = Slow(spoilt=2)
    async with slow_engine(provider) as desk:
        assert await desk.run(echo(1), id="a", budget=Budget(tokens=1000)) == "heard row 1"
        spent = (await standing(desk, "run:a")).spent.tokens
        assert (provider.sent, 5 + 2 * 20 < spent < 5 + 2 * 100) == (3, True)


async def test_bodies_in_batches_that_are_no_answers_count_as_what_was_reserved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "PAUSES", (0.0,))
    world.sim.when("row 1").reply({"object": "chat.completion", "choices": []})
    async with engine(world, mode="batch") as desk:
        with pytest.raises(ModelFailed):
            await desk.run(echo(1), id="a", budget=Budget(usd=100))
        now = await standing(desk, "run:a")
        sent = len([entry for entry in world.sim.ledger.lines() if entry.paid])
        assert (sent, now.reserved, now.spent.tokens % sent) == (ATTEMPTS, Amount(), 0)
        assert now.spent.tokens > 20 * sent
        assert now.spent.nanos == now.spent.tokens * (NANO // 200)


async def test_a_run_may_try_again_without_more_money(world: World) -> None:
    async with slow_engine(Slow()) as desk:
        with pytest.raises(RunHeld):
            await desk.run(echo(1), id="a", budget=Budget(tokens=10))
        await desk.resume("a")
        with pytest.raises(RunHeld, match="0 of 10 tokens spent"):
            await (await desk.get("a"))
        await desk.resume("a", keep=True, budget=Budget(tokens=500))
        assert await (await desk.get("a")) == "heard row 1"
        await desk.run(echo(2), id="b")
        with pytest.raises(Conflict, match="run 'b' has no budget"):
            await desk.fund(Budget(usd=5), run="b")
        with pytest.raises(Conflict, match="job 'j' has no budget"):
            await desk.fund(Budget(usd=5), job="j")
        with pytest.raises(Conflict, match="the engine has no budget"):
            await desk.fund(Budget(usd=5))


async def test_held_runs_can_be_cancelled(world: World) -> None:
    async with slow_engine(Slow()) as desk:
        with pytest.raises(RunHeld):
            await desk.run(echo(1), id="a", budget=Budget(tokens=10))
        await desk.cancel("a")
        with pytest.raises(RunCancelled):
            await (await desk.get("a"))
        assert (await standing(desk, "run:a")).waiting == 0


@segue.flow(name="budgets.vectors")
async def vectors() -> int:
    return len(await segue.embed(["one", "two"]))


@pytest.mark.parametrize("mode", MODES)
async def test_embeddings_are_on_the_budget(world: World, mode: Any) -> None:
    async with engine(world, mode=mode) as desk:
        assert await desk.run(vectors(), id="a", budget=Budget(tokens=100)) == 2
        now = await standing(desk, "run:a")
        assert (now.spent.tokens, now.reserved) == (paid(world.sim), Amount())
        assert now.spent.tokens > 0


@pytest.mark.parametrize("late", ["wait", "live"])
async def test_late_lines_are_reserved_for_both_ways(world: World, late: Any) -> None:
    mode = segue.Batch(within=timedelta(hours=1), late=late)
    async with engine(world, mode=mode, worker=False) as desk:
        await desk.start(echo(1), id="a", budget=Budget(usd=10))
        await desk.worker.claim_once()
        async with asyncio.timeout(10):
            while (await standing(desk, "run:a")).reserved == Amount():
                await asyncio.sleep(0.005)
        reserved = (await standing(desk, "run:a")).reserved
        assert reserved.nanos == reserved.tokens * (NANO // 200) * (1 if late == "wait" else 1.5)


@segue.flow(name="budgets.sdk")
async def sdk(base: str) -> str:
    async with segue.http_client() as client:
        reply = await client.post(
            f"{base}/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20},
            headers={"authorization": f"Bearer {KEY}"},
        )
        return str(reply.json()["choices"][0]["message"]["content"])


async def test_calls_of_sdks_are_on_the_budget(world: World) -> None:
    async with engine(world, mode="live") as desk:
        with pytest.raises(RunHeld):
            await desk.run(sdk(world.sim.base_url), id="a", budget=Budget(tokens=20))
        assert paid(world.sim) == 0
        await desk.resume("a", budget=Budget(tokens=200))
        await (await desk.get("a"))
        assert (await standing(desk, "run:a")).spent.tokens == paid(world.sim) > 0


def test_a_budget_says_something() -> None:
    for wrong in ({}, {"usd": 0.0}, {"tokens": -1}, {"usd": float("nan")}, {"usd": float("inf")}):
        with pytest.raises(ValueError, match="budget"):
            Budget(**wrong)  # type: ignore[arg-type]


class Enough(segue.Note):
    """One call less is needed."""


@segue.flow(name="budgets.fewer")
async def fewer() -> str:
    calls = [asyncio.create_task(segue.generate(f"row {number}", max_tokens=20)) for number in range(3)]
    await segue.receive(Enough)
    calls[0].cancel()
    return await calls[1]


async def test_a_call_is_given_up_while_it_is_looked_what_lacks(world: World) -> None:
    looks, look = asyncio.Event(), asyncio.Event()
    async with engine(world) as desk, asyncio.timeout(20):
        whole = desk.store.budgets

        async def budgets(accounts: Any = ()) -> list[Standing]:
            looks.set()
            await look.wait()
            return await whole(accounts)

        await taken(desk, "run:it", 1000)
        desk.store.budgets = budgets  # type: ignore[method-assign]
        run = await desk.start(fewer(), id="it", budget=Budget(tokens=1000))
        await looks.wait()
        waiting = asyncio.ensure_future(desk.wait("it"))
        await run.tell(Enough())
        await asyncio.sleep(0.05)
        look.set()
        await asyncio.sleep(0.05)
        await desk.store.commit([Turn(run="other", fence=1, status="done")])
        assert (await waiting).status == "done"
        assert await run == "You said: row 1"


asking: list[asyncio.Event] = []


@segue.flow(name="budgets.rash")
async def rash() -> str:
    call = asyncio.create_task(segue.generate("row 1", max_tokens=20))
    await asking[0].wait()
    call.cancel()
    asking[1].set()
    await segue.receive(Enough)
    return "given up"


@pytest.mark.parametrize(
    ("others", "tokens"), [(0, 10), (1000, 1000), (0, 1000)], ids=["short", "waits", "room"]
)
async def test_a_call_is_given_up_while_it_asks_for_room(world: World, others: int, tokens: int) -> None:
    asking[:] = [asyncio.Event(), asyncio.Event()]
    async with engine(world, mode="live") as desk, asyncio.timeout(10):
        if others:
            await taken(desk, "run:it", others)
        reserve = desk.store.reserve

        async def slow(wanted: Any, **how: Any) -> Any:
            results = await reserve(wanted, **how)
            asking[0].set()
            await asking[1].wait()
            return results

        desk.store.reserve = slow  # type: ignore[method-assign]
        run = await desk.start(rash(), id="it", budget=Budget(tokens=tokens))
        await asking[1].wait()
        await asyncio.sleep(0.05)
        await run.tell(Enough())
        assert await run == "given up"
    assert paid(world.sim) == 0


async def taken(desk: segue.Engine, account: str, tokens: int) -> None:
    """All of a budget is reserved by another run."""
    spec = Spec("flow", "elsewhere", b"[[],{}]")
    await desk.store.create([NewRun("other", spec)], now=0.0, worker="other", ttl=1e12)
    wanted = Reservation("call", "other", (Account(account, Limit(tokens=tokens)),), Amount(0, tokens))
    assert await desk.store.reserve([wanted], now=0.0) == ["reserved"]


sent: list[Slow] = []


@segue.flow(name="budgets.outside")
async def outside() -> str:
    calls = [asyncio.create_task(segue.generate(f"row {number}", max_tokens=20)) for number in range(2)]
    try:
        async with asyncio.timeout(0.02):
            await calls[0]
    except TimeoutError:
        pass
    while sent[0].sent < 2:
        await asyncio.sleep(0.001)
    return await calls[1]


async def test_room_that_a_timeout_gives_back_is_had_while_code_waits_for_what_is_foreign() -> None:
    sent[:] = [Slow(seconds=0.05)]
    options: Any = {"mode": "live", "model": "far:m", "providers": {"far": lambda _: sent[0]}}
    async with segue.Engine(Delayed(MemoryStore(), lambda: 0.0), linger=5, **options) as desk:
        await desk.start(outside(), id="it", budget=Budget(tokens=60))
        async with asyncio.timeout(2):
            assert await (await desk.get("it")) == "heard row 1"


stop: list[asyncio.Event] = []


@segue.step
async def lasting() -> None:
    await stop[0].wait()


@segue.flow(name="budgets.besides")
async def besides() -> str:
    async with asyncio.TaskGroup() as group:
        group.create_task(lasting())  # type: ignore[arg-type]  # it is a coroutine
        answer = await segue.generate("row 1", max_tokens=20)
        stop[0].set()
    return answer


async def test_room_that_others_give_back_is_had_beside_a_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.runtime.calls.budgets.LOOK", 0.01)
    stop[:] = [asyncio.Event()]
    async with engine(world, mode="live") as desk, asyncio.timeout(10):
        await taken(desk, "run:it", 1000)
        run = await desk.start(besides(), id="it", budget=Budget(tokens=1000))
        while not (await standing(desk, "run:it")).waiting:
            await asyncio.sleep(0.01)
        await desk.store.commit([Turn(run="other", fence=1, status="done")])
        assert await run == "You said: row 1"


@segue.step
async def passing() -> None:
    await stop[1].wait()


@segue.flow(name="budgets.impatient")
async def impatient() -> str:
    call = asyncio.create_task(segue.generate("row 1", max_tokens=20))
    await passing()
    call.cancel()
    await lasting()
    return "given up"


@pytest.mark.parametrize("others", [0, 1000], ids=["room", "waits"])
async def test_a_call_that_is_given_up_before_a_step_holds_nobody_up(others: int) -> None:
    async def stands(*, free: bool) -> None:
        while True:
            now = next(iter(await desk.store.budgets()), Standing("run:it", Limit()))
            if ((now.reserved.tokens, now.waiting) == (others, 0)) is free:
                return
            await asyncio.sleep(0.01)

    stop[:] = [asyncio.Event(), asyncio.Event()]
    async with slow_engine(Slow(seconds=30.0)) as desk, asyncio.timeout(5):
        if others:
            await taken(desk, "run:it", others)
        run = await desk.start(impatient(), id="it", budget=Budget(tokens=1000))
        await stands(free=False)
        stop[1].set()
        await stands(free=True)
        stop[0].set()
        assert await run == "given up"


class Hurry(segue.Request[str]): ...


class Hasty(segue.Actor[None]):
    @segue.on
    async def hurry(self, asked: Hurry) -> str:
        slow = asyncio.create_task(segue.generate("slow"))  # it stays alive for as long as the handler
        answer = await segue.generate("quick")
        del slow
        return answer


@pytest.mark.parametrize("reuse", [False, True])
async def test_what_an_actors_handler_left_behind_is_paid_once_it_has_been_answered(reuse: bool) -> None:
    class Slow(Far):
        async def send(self, *what: Any, **how: Any) -> bytes:
            await asyncio.sleep(0.05 if b"slow" in what[1] else 0.0)
            return answer(what[1])

    store = Delayed(MemoryStore(), lambda: 0.15)
    far = {"far": lambda _: Slow(Remote(FastClock()))}
    async with segue.Engine(store, model="far:m", mode="live", providers=far, reuse=reuse) as desk:  # type: ignore[arg-type]
        actor = await desk.start(Hasty(), id="hasty", budget=Budget(tokens=1_000_000))
        assert await actor.request(Hurry()) == "heard quick"
        async with asyncio.timeout(10):
            while (now := await standing(desk, "run:hasty")).reserved != Amount():
                await asyncio.sleep(0.01)
        assert now.spent.tokens == await used(desk) == 10  # two answers of five tokens each
