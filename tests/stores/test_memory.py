"""The store in memory: the contract, and whom it gives a request at once."""

import tracemalloc
from contextlib import contextmanager

import pytest

from segue.core.contents import content_digest
from segue.model.budget import Account, Amount, Limit, Reservation, Settlement
from segue.model.entry import BLOB
from segue.model.message import Mail, Question
from segue.model.run import CallRef, Spec
from segue.ports.store import NewRun, Turn
from segue.stores.memory import MemoryStore
from segue.testing.store_contract import StoreContract, acts


class TestMemoryStore(StoreContract):
    @pytest.fixture
    async def store(self):
        store = MemoryStore()
        await store.open()
        yield store
        await store.close()


class Run:
    """One in memory."""

    def __init__(self):
        self.id, self.seen, self.names = "r", 0, []

    def mail(self, letters):
        self.seen = letters[-1].id
        self.names += [letter.mail.name for letter in letters]


async def deliver(store, number, *, name="", asks=True):
    reply = CallRef("port:p", "call", 0) if asks else None
    mail = Mail("r", "client", number, "request" if asks else "tell", name, b"1", reply=reply)
    assert await store.deliver([mail], now=0.0) == ["delivered"]


@pytest.fixture
async def store():
    store = MemoryStore()
    await store.open()
    await store.create([NewRun("r", Spec("flow", "greet", b"[]"))], now=0.0, worker="w", ttl=60.0)
    yield store
    await store.close()


async def test_a_request_goes_to_a_run_in_memory_at_once(store):
    run, hints = Run(), []
    end = store.subscribe(hints.append, {"r": run})
    await deliver(store, 1, name="first")  # whose sender the store doesn't know
    assert [hint.came["r"].letters[0].mail.name for hint in hints] == ["first"]
    run.mail(hints.pop().came["r"].letters)
    await deliver(store, 2, name="second")
    assert (run.names, hints) == (["first", "second"], [])
    assert [letter.mail.name for letter in await store.inbox("r", 0)] == ["first", "second"]
    end()
    await deliver(store, 3, name="third")
    assert (run.names, hints) == (["first", "second"], [])


async def test_a_request_comes_after_what_came_before(store):
    run, hints = Run(), []
    store.subscribe(hints.append, {"r": run})
    await deliver(store, 1, name="told", asks=False)
    await deliver(store, 2, name="asked")
    assert [letter.mail.name for letter in hints[0].came["r"].letters] == ["told", "asked"]
    assert run.names == []
    await deliver(store, 3, name="it hasn't seen those")
    assert len(hints) == 2
    assert run.names == []


async def test_of_two_that_are_one_run_none_gets_it_alone(store):
    """One of them has lost its claim, and doesn't know yet."""
    stale, run, hints = Run(), Run(), []
    store.subscribe(hints.append, {"r": stale})
    store.subscribe(hints.append, {"r": run})
    await deliver(store, 1)
    stale.mail(hints[0].came["r"].letters)
    run.mail(hints[0].came["r"].letters)
    await deliver(store, 2)
    assert len(hints) == 4
    assert len(run.names) == 1


async def test_what_others_were_told_before_a_request_is_told_of_first(store):
    run, hints = Run(), []
    await store.create([NewRun("other", Spec("flow", "greet", b"[]"))], now=0.0, worker="w", ttl=60.0)
    store.subscribe(hints.append, {"r": run})
    await deliver(store, 1)
    run.mail(hints.pop().came["r"].letters)
    await store.deliver([Mail("other", "client", 2, "tell", "told", b"1")], now=0.0)
    await deliver(store, 3, name="asked")
    assert [list(hint.came) for hint in hints] == [["other", "r"]]


async def test_a_request_that_comes_again_is_given_once(store):
    run, hints = Run(), []
    store.subscribe(hints.append, {"r": run})
    await deliver(store, 1)
    run.mail(hints.pop().came["r"].letters)
    await deliver(store, 2, name="asked")
    again = Mail("r", "client", 2, "request", "asked", b"1", reply=CallRef("port:p", "call", 0))
    assert await store.deliver([again], now=0.0) == ["duplicate"]
    assert run.names == ["", "asked"]
    assert len(await store.inbox("r", 0)) == 2


async def test_a_large_result_or_what_is_shown_is_kept_once(store):
    large = [b'"' + b"x" * BLOB + b'"' for _ in range(3)]
    name = content_digest(large[0])
    asks = [Question("q", "r", "0", 0, "ok?", large[1])]
    await store.commit([Turn(run="r", fence=1, entries=b"1", blobs=[(name, large[0])], asks=asks)])
    ask, _ = await store.get_ask("q")
    assert ask.show is large[0]
    await store.commit([Turn(run="r", fence=1, status="done", value=large[2])])
    assert (await store.get("r")).value is large[0]


@contextmanager
def keeps_less_than(size):
    tracemalloc.start()
    try:
        yield
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < size


async def test_of_waits_that_mail_ends_before_their_time_none_is_kept(store):
    with keeps_less_than(400_000):
        for fence in range(1, 5000):
            await acts.park(store, "r", fence, wake=1e9 + fence, consumed=[fence - 1], seen=fence - 1)
            await deliver(store, fence, asks=False)
            assert len(await acts.claim(store)) == 1


async def test_of_calls_that_waited_for_room_behind_another_none_is_kept(store):
    def wants(id):
        return store.reserve(
            [Reservation(id, "r", (Account("store", Limit(tokens=9)),), Amount(0, 9))], now=0.0
        )

    assert await wants("has it") == ["reserved"]
    assert await wants("first") == ["waits"]
    with keeps_less_than(400_000):
        for n in range(5000):
            assert await wants(f"behind {n}") == ["waits"]
            await acts.commit(store, "r", 1, settled=[Settlement(f"behind {n}")])


async def test_of_runs_that_are_removed_no_question_is_kept(store):
    with keeps_less_than(500_000):
        for n in range(50):
            await acts.start(store, f"r{n}")
            asked = acts.question(f"q{n}", f"r{n}", show=b"%d" % n * 50_000)
            await acts.commit(store, f"r{n}", 1, asks=[asked])
            await acts.commit(store, f"r{n}", 1, status="done")
        del asked
        assert all(await store.remove([f"r{n}" for n in range(50)]))
