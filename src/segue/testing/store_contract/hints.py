"""Hints: what a process is told of."""

from __future__ import annotations

import asyncio

from ...model.lane import LineOutcome
from ...ports.store import Hint, Store
from ...stores.poison import SUSPECT
from .acts import (
    HOUR,
    LANE,
    claim,
    commit,
    create,
    line,
    park,
    question,
    start,
    take,
    tell,
)


class HintsContract:
    """Part of `StoreContract`."""

    async def test_hints(self, store: Store) -> None:
        hints: list[Hint] = []
        end = store.subscribe(hints.append)

        async def told() -> set[tuple[str, str]]:
            for _ in range(5):
                await asyncio.sleep(0)
            out: set[tuple[str, str]] = {(hint.kind, run) for hint in hints for run in hint.runs}
            hints.clear()
            return out

        await start(store, "a", "b")
        assert await told() == set()
        await create(store, "c")
        assert await told() == {("ready", "c")}
        await commit(store, "a", 1, lines=[line("l1", "a")], asks=[question("q", "a")])
        assert await told() == {("lines", LANE)}
        await store.deliver([tell("a", 1)], now=0.0)
        assert await told() == {("mail", "a")}
        fence = await store.claim_lane(LANE, "w", HOUR, now=0.0)
        assert fence is not None
        await take(store, fence, job="B1")
        await store.outcomes("B1", fence, [LineOutcome("l1", "error", again=True)], now=0.0)
        assert await told() == {("lines", LANE)}
        await take(store, fence, job="B2")
        await store.outcomes("B2", fence, [LineOutcome("l1", "ok", b"1")], now=0.0)
        assert await told() == {("mail", "a")}
        letter = (await store.inbox("a", 0))[-1]
        await park(store, "a", seen=letter.id)
        assert await told() == set()
        await store.answer("q", b"1", now=0.0)
        assert await told() == {("ready", "a")}
        await commit(store, "b", 1, status="done")
        assert await told() == {("ended", "b")}
        await claim(store)
        await commit(store, "a", 2, release=True)
        assert await told() == {("ready", "a")}
        await commit(store, "c", 1, status="done")
        for n in range(1, SUSPECT + 1):
            (lapsed,) = await claim(store, now=n * HOUR)
            assert lapsed == "a"
        await told()
        await commit(store, "a", 2 + SUSPECT, entries=b"row")
        assert await told() == {("ready", "a")}  # it is no suspect any more: another one may be claimed
        await commit(store, "a", 2 + SUSPECT, entries=b"row")
        assert await told() == set()
        await start(store, "later", worker="v")
        await park(store, "later")
        await store.deliver([tell("later", 1, due=9.0)], now=0.0)
        assert await told() == {("ready", "later")}  # then
        end()
        await create(store, "d")
        assert await told() == set()
