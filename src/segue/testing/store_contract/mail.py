"""Mail that is delivered: once, in order."""

from __future__ import annotations

from ...model.entry import Failure
from ...model.message import Letter, Mail
from ...model.run import CallRef, Usage
from ...ports.store import Store, Turn
from .acts import (
    claim,
    commit,
    loaded,
    mail_of,
    park,
    start,
    status,
    tell,
)


class MailContract:
    """Part of `StoreContract`."""

    async def test_mail_is_delivered_once_for_ever(self, store: Store) -> None:
        await start(store, "a", "b")
        assert await store.deliver([tell("a", 1)], now=0.0) == ["delivered"]
        assert await store.deliver([tell("a", 1)], now=0.0) == ["duplicate"]
        (letter,) = await store.inbox("a", 0)
        await commit(store, "a", 1, consumed=[letter.id])
        await park(store, "a")
        assert await store.deliver([tell("a", 1), tell("b", 1)], now=0.0) == ["duplicate", "delivered"]
        assert await status(store, "a") == "parked"
        both = [tell("a", 2), tell("a", 2), tell("a", 1, "another"), tell("a", 3)]
        assert await store.deliver(both, now=0.0) == ["delivered", "duplicate", "delivered", "delivered"]
        assert await mail_of(store, "a") == [both[0], both[2], both[3]]

    async def test_mail_keeps_its_order_and_content(self, store: Store) -> None:
        await start(store, "a")
        mail = [
            tell("a", 1, "s", value=None, at=1.125),
            Mail("a", "t", 7, "request", "Ask", b"{}", reply=CallRef("b", "0", 1), callers=("x", "y")),
            Mail("a", "s", 2, "result", error=Failure("m:E", "no", b"[1]"), call=CallRef("a", "1", 2)),
            Mail("a", "u", 0, "cancel"),
            tell("a", 9, "s", value=b"\x00\xff"),
        ]
        for one in mail[:3]:
            await store.deliver([one], now=0.0)
        await store.deliver(mail[3:], now=0.0)
        letters = await store.inbox("a", 0)
        assert [letter.mail for letter in letters] == mail
        ids = [letter.id for letter in letters]
        assert ids == sorted(set(ids))
        assert min(ids) > 0
        assert await store.inbox("a", ids[2]) == letters[3:]
        assert (await loaded(store, "a")).inbox == letters

    async def test_a_cancel_that_comes_again_makes_no_held_run_ready(self, store: Store) -> None:
        await start(store, "a")
        cancel = Mail("a", "u", 1, "cancel")
        assert await store.deliver([cancel], now=0.0) == ["delivered"]
        (letter,) = await store.inbox("a", 0)
        await commit(store, "a", 1, consumed=[letter.id], status="held", seen=letter.id)
        assert await store.deliver([cancel, tell("a", 1)], now=0.0) == ["duplicate", "delivered"]
        assert await status(store, "a") == "held"

    async def test_letter_numbers_are_never_used_again(self, store: Store) -> None:
        await start(store, "a")
        newest = 0
        for number in range(5):
            await store.deliver([tell("a", number)], now=0.0)
            (letter,) = await store.inbox("a", 0)
            assert letter.id > newest
            newest = letter.id
            await commit(store, "a", 1, consumed=[newest])

    async def test_mail_to_nobody_and_to_the_dead(self, store: Store) -> None:
        await start(store, "a", "b")
        await store.deliver([tell("a", 1)], now=0.0)
        await commit(store, "a", 1, status="done")
        assert await store.deliver([tell("a", 2), tell("x", 1), tell("b", 1)], now=0.0) == [
            "gone",
            "gone",
            "delivered",
        ]
        assert await mail_of(store, "a") == []

    async def test_outbox(self, store: Store) -> None:
        await start(store, "a", "b", "c")
        await park(store, "b")
        out = [Mail("b", "run:a", n, "tell", value=b"%d" % n) for n in range(1, 4)]
        turn = Turn(
            run="a", fence=1, outbox=[*out, Mail("x", "run:a", 1, "tell"), Mail("a", "run:a", 4, "tell")]
        )
        assert await store.commit([turn]) == ["committed"]
        assert await mail_of(store, "b") == out
        assert await status(store, "b") == "ready"
        assert [mail.number for mail in await mail_of(store, "a")] == [4]
        assert await store.commit([turn]) == ["committed"]
        assert await store.deliver(out, now=0.0) == ["duplicate"] * 3
        assert await mail_of(store, "b") == out

    async def test_many_letters_at_once(self, store: Store) -> None:
        ids = [f"r{i:03}" for i in range(400)]
        await start(store, *ids)
        await store.commit([Turn(run=id, fence=1, status="parked") for id in ids])
        mail = [tell(id, number) for number in (1, 2) for id in ids]
        assert await store.deliver(mail, now=0.0) == ["delivered"] * 800
        got = await claim(store, 1000)
        assert list(got) == ids
        assert all([letter.mail.number for letter in run.inbox] == [1, 2] for run in got.values())

    async def test_letters_are_values(self, store: Store) -> None:
        """What comes out can't be changed from outside."""
        await start(store, "a")
        await store.deliver([tell("a", 1)], now=0.0)
        found = await loaded(store, "a")
        found.inbox.clear()
        found.journal.append(b"x")
        found.head.usage.append(Usage("m", "live"))
        again = await loaded(store, "a")
        assert (len(again.inbox), again.journal, again.head.usage) == (1, [], [])
        assert all(isinstance(letter, Letter) for letter in again.inbox)
