"""What every store promises of large contents: wherever they lie, they come back whole."""

from __future__ import annotations

from ...core.contents import content_digest
from ...model.entry import BLOB
from ...model.message import Mail
from ...model.mode import DROP
from ...model.run import CallRef
from ...ports.store import NewRun, Store
from .acts import claim, commit, create, loaded, mail_of, park, pool, question, spec, start

LARGE = b'"' + b"x" * BLOB + b'"'
OTHER = b'"' + b"\xc3\xa9" * BLOB + b'"'
ONE = b"[[" + LARGE + b"],{}]"
TWO = b"[[" + LARGE + b"," + OTHER + b'],{"more":' + OTHER + b"}]"


class LargeContract:
    """The part of `StoreContract` on large contents."""

    async def test_large_inputs(self, store: Store) -> None:
        inputs = {"one": ONE, "two": TWO, "none": b"{}" + b" " * BLOB, "small": b"[[1],{}]", "again": ONE}
        for id, args in inputs.items():
            (made,) = await store.create([NewRun(id, spec(args=args, job="j"))], now=0.0)
            assert made.head.spec.args == args
        (there,) = await store.create([NewRun("two", spec(args=b"[[1],{}]"))], now=0.0)
        assert not there.new
        assert there.head.spec.args == TWO
        assert {head.id: head.spec.args for head in (await store.newest(job="j"))[0]} == inputs
        assert {id: got.head.spec.args for id, got in (await claim(store)).items()} == inputs
        child = NewRun("child", spec(args=TWO, parent=CallRef("one", "", 0)))
        await commit(store, "one", 1, spawn=[child])
        assert (await loaded(store, "child")).head.spec == child.spec

    async def test_large_results(self, store: Store) -> None:
        await start(store, "a", job="j")
        await start(store, "b", parent=CallRef("a", "", 0), job="j")
        await commit(store, "b", 1, status="done", value=LARGE)
        assert [mail.value for mail in await mail_of(store, "a")] == [LARGE]
        await commit(store, "a", 1, status="done", value=OTHER)
        assert [head.value for head in await store.finished("j", 0, 9)] == [LARGE, OTHER]
        assert {head.id: head.value for head in (await store.newest(job="j"))[0]} == {"a": OTHER, "b": LARGE}
        head = await store.get("a")
        assert head is not None
        assert (head.value, head.damage) == (OTHER, "")

    async def test_what_large_questions_show(self, store: Store) -> None:
        (fence,) = await start(store, "a")
        asks = [question("q", "a", show=LARGE, to="ann"), question("r", "a", show=b"1", to="ann")]
        await park(store, "a", fence, asks=asks)
        assert await store.asks() == await store.asks(to="ann") == await store.asks(run="a") == asks
        assert (await store.asked(0))[0] == asks
        assert await store.get_ask("q") == (asks[0], "open")
        await store.answer("q", b"1", now=0.0)
        assert await store.get_ask("q") == (asks[0], "answered")
        assert await store.asks() == asks[1:]

    async def test_what_may_be_taken_over_of_a_large_past(self, store: Store) -> None:
        await store.create(
            [NewRun("a", spec(), pool=pool(LARGE)), NewRun("b", spec(), pool=pool(b"1"))], now=0.0
        )
        got = await claim(store)
        assert (got["a"].pool, got["b"].pool) == (pool(LARGE), pool(b"1"))
        for id in "ab":
            await commit(store, id, 1, status="cancelled")
        more = {"b": pool(OTHER, kind="generate")}
        assert await store.revive("a", pool=pool(OTHER), now=0.0, status=("cancelled",), along=more)
        got = await claim(store)
        assert (got["a"].pool, got["b"].pool) == (pool(OTHER), more["b"])
        assert (await loaded(store, "b")).pool == more["b"]

    async def test_what_a_run_has_stays_when_its_past_is_dropped(self, store: Store) -> None:
        name, other = content_digest(LARGE), content_digest(OTHER)
        await store.create([NewRun("a", spec(args=ONE, history=DROP), pool=pool(OTHER))], now=0.0)
        await claim(store)
        await park(
            store,
            "a",
            1,
            entries=b"1",
            blobs=[(name, LARGE), (other, OTHER)],
            asks=[question("q", "a", show=LARGE)],
        )
        await store.deliver([Mail("a", "x", 1, "tell")], now=0.0)
        await claim(store)
        await commit(store, "a", 2, entries=b"2", checkpoint=b"s")
        await commit(store, "a", 2, entries=b"3", checkpoint=b"s", status="failed", value=LARGE)
        while await store.sweep(now=1.0, limit=9):
            pass
        found = await loaded(store, "a")
        assert (found.head.spec.args, found.head.value, found.pool) == (ONE, LARGE, pool(OTHER))
        assert (await store.get_ask("q")) == (question("q", "a", show=LARGE), "closed")

    async def test_a_question_that_is_asked_anew_holds_what_it_shows_now(self, store: Store) -> None:
        await start(store, "a")
        both = b"[" + LARGE + b"," + OTHER + b"]"
        await commit(store, "a", 1, asks=[question("p", "a", show=LARGE), question("q", "a", show=both)])
        await commit(store, "a", 1, asks=[question("q", "a", show=b"1")])
        assert await store.get_ask("p") == (question("p", "a", show=LARGE), "open")
        assert await store.get_ask("q") == (question("q", "a", show=b"1"), "open")
        assert await store.get_blobs([content_digest(OTHER)]) == {}
        await commit(store, "a", 1, asks=[question("p", "a", show=b"1")])
        assert await store.get_blobs([content_digest(LARGE)]) == {}

    async def test_contents_that_nothing_holds_any_more_are_dropped(self, store: Store) -> None:
        digests = [content_digest(LARGE), content_digest(OTHER)]
        await create(store, "a", history=DROP)
        await claim(store)
        for digest, content in zip(digests, (LARGE, OTHER), strict=True):
            await commit(store, "a", 1, entries=b"1", blobs=[(digest, content)])
        await commit(store, "a", 1, entries=b"2", checkpoint=b"s", status="failed", value=LARGE)
        assert await store.revive("a", pool=pool(OTHER), now=0.0, status=("failed",))
        assert await store.revive("a", pool=pool(b"1"), now=0.0, status=("ready",))
        while await store.sweep(now=1.0, limit=9):
            pass
        assert await store.get_blobs(digests) == {}
