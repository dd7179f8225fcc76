"""Questions: open until they are answered or closed."""

from __future__ import annotations

import asyncio

from ...model.run import CallRef
from ...ports.store import Store
from .acts import (
    claim,
    commit,
    mail_of,
    park,
    pool,
    question,
    start,
    status,
)


class QuestionsContract:
    """Part of `StoreContract`."""

    async def test_asks(self, store: Store) -> None:
        await start(store, "a", "b")
        one = question("q2", "a", to="ann", show=b'{"x":1}', schema=b"{}", created=2.5, deadline=9.5)
        two = question("q1", "a", to="bob")
        three = question("q0", "b", to="ann")
        await commit(store, "a", 1, asks=[one, two])
        await commit(store, "b", 1, asks=[three])
        assert await store.asks() == [one, two, three]
        assert await store.asks(to="ann") == [one, three]
        assert await store.asks(run="a") == [one, two]
        assert await store.asks(run="a", to="ann") == [one]
        assert await store.asks(to="nobody") == []
        assert await store.get_ask("q2") == (one, "open")
        await commit(store, "a", 1, closed_asks=["q2", "unknown"])
        assert await store.get_ask("q2") == (one, "closed")
        assert await store.asks() == [two, three]

    async def test_questions_are_read_as_they_come(self, store: Store) -> None:
        await start(store, "a", "b")
        one, two, three = question("q2", "a", to="ann"), question("q1", "a", to="bob"), question("q0", "b")
        assert await store.asked(0) == ([], 0)
        await commit(store, "a", 1, asks=[one, two])
        found, after = await store.asked(0, limit=1)
        assert found == [one]
        await commit(store, "b", 1, asks=[three])
        found, after = await store.asked(after, limit=1)
        assert found == [two]
        found, after = await store.asked(after)
        assert found == [three]
        assert await store.asked(after) == ([], after)
        assert await store.asked(0, to="ann") == ([one], after)
        await commit(store, "a", 1, closed_asks=["q2", "q1"])
        assert await store.asked(0) == ([three], after)
        await commit(store, "a", 1, asks=[one])  # once more
        assert (await store.asked(after))[0] == [one]
        assert (await store.asked(0))[0] == [three, one]

    async def test_the_first_answer_wins(self, store: Store) -> None:
        await start(store, "a")
        asked = question("q", "a", path="", n=0)  # a flow's first call
        await park(store, "a", asks=[asked])
        answers = [store.answer("q", b"%d" % i, now=3.5) for i in range(10)]
        results = await asyncio.gather(*answers)
        assert sorted(results) == ["answered"] + ["closed"] * 9
        (mail,) = await mail_of(store, "a")
        assert (mail.kind, mail.call, mail.at) == ("result", CallRef("a", "", 0), 3.5)
        assert mail.value == b"%d" % results.index("answered")
        assert await status(store, "a") == "ready"
        assert await store.get_ask("q") == (asked, "answered")
        assert await store.answer("unknown", b"1", now=0.0) == "unknown"

    async def test_an_ask_can_be_opened_again(self, store: Store) -> None:
        await start(store, "a")
        await commit(store, "a", 1, asks=[question("q", "a")], status="failed")
        assert await store.answer("q", b"1", now=0.0) == "closed"
        await store.revive("a", pool=pool(b"1"), now=0.0, status=["failed"])
        await claim(store)
        await park(store, "a", 2, asks=[question("q", "a")])
        assert [ask.id for ask in await store.asks(run="a")] == ["q"]
        assert await store.answer("q", b"2", now=0.0) == "answered"
