"""What every store promises of ports, and of looking at several inboxes at once; part of `StoreContract`."""

from __future__ import annotations

import asyncio

from ...model.message import PORT, Mail
from ...model.run import CallRef
from ...ports.store import Hint, Store, Turn
from .acts import start, tell


def _answer(port: str, number: int) -> Mail:
    return Mail(port, "a", number, "result", value=b"%d" % number, call=CallRef(port, f"call.{number}", 0))


async def _send(store: Store, run: str, *mail: Mail, fence: int = 1) -> str:
    (result,) = await store.commit([Turn(run=run, fence=fence, outbox=list(mail), now=1.0)])
    return result


class PortsContract:
    """Mail to processes."""

    async def test_a_port_is_there_without_being_made(self, store: Store) -> None:
        port = f"{PORT}me"
        await start(store, "a")
        assert await store.letters({port: 0, "a": 0, "nobody": 0}) == {}
        await _send(store, "a", _answer(port, 1), _answer(port, 2), _answer(f"{PORT}other", 3))
        first, second = (await store.letters({port: 0}))[port]
        assert (first.mail, second.mail) == (_answer(port, 1), _answer(port, 2))
        assert 0 < first.id < second.id
        assert await store.letters({port: first.id}) == {port: [second]}
        assert await store.deliver([_answer(port, 4), tell("a", 1)], now=0.0) == ["delivered", "delivered"]
        assert await store.dead_letters() == []

    async def test_letters_of_a_port_stay_until_they_are_cleared(self, store: Store) -> None:
        port = f"{PORT}me"
        await start(store, "a")
        await _send(store, "a", *(_answer(port, number) for number in (1, 2, 3)))
        letters = (await store.letters({port: 0}))[port]
        await store.clear(port, letters[1].id)
        assert await store.letters({port: 0}) == {port: letters[2:]}
        await store.clear(port, letters[2].id)
        await store.clear(port, letters[2].id)
        assert await store.letters({port: 0}) == {}
        await _send(store, "a", _answer(port, 4))
        (later,) = (await store.letters({port: letters[2].id}))[port]
        assert later.mail.number == 4  # ids are never used again

    async def test_a_fenced_turn_tells_no_port(self, store: Store) -> None:
        await start(store, "a")
        assert await _send(store, "a", _answer(f"{PORT}me", 1), fence=7) == "fenced"
        assert await store.letters({f"{PORT}me": 0}) == {}

    async def test_what_a_port_asked_of_a_run_that_ended_is_answered(self, store: Store) -> None:
        port = f"{PORT}me"
        await start(store, "a")
        asked = Mail("a", "client", 1, "request", "Ask", b"{}", reply=CallRef(port, "call.1", 0))
        assert await store.deliver([asked], now=0.0) == ["delivered"]
        await store.commit([Turn(run="a", fence=1, status="failed", now=1.0)])
        (letter,) = (await store.letters({port: 0}))[port]
        assert letter.mail.call == asked.reply
        assert letter.mail.error is not None
        assert letter.mail.error.type == "segue.model.errors:RunEnded"

    async def test_ports_of_the_buried_are_dropped(self, store: Store) -> None:
        await start(store, "a")
        await _send(store, "a", _answer(f"{PORT}dead", 1), _answer(f"{PORT}living", 2))
        assert await store.workers() == ["dead", "living", "w"]
        await store.bury(["dead", "unknown"])
        assert await store.workers() == ["living", "w"]
        assert list(await store.letters({f"{PORT}dead": 0, f"{PORT}living": 0})) == [f"{PORT}living"]

    async def test_several_inboxes_at_once(self, store: Store) -> None:
        await start(store, "a", "b", "c")
        mail = [Mail(run, "x", number, "tell", "Note") for number in (1, 2) for run in ("a", "b")]
        await store.deliver(mail, now=0.0)
        a, b = await store.inbox("a", 0), await store.inbox("b", 0)
        assert await store.letters({"a": 0, "b": 0, "c": 0}) == {"a": a, "b": b}
        assert await store.letters({"a": a[0].id, "b": b[1].id}) == {"a": a[1:]}

    async def test_a_port_is_hinted_at(self, store: Store) -> None:
        hints: list[Hint] = []
        end = store.subscribe(hints.append)
        await start(store, "a")
        await _send(store, "a", _answer(f"{PORT}me", 1))
        for _ in range(100):
            if any(hint.kind == "mail" and f"{PORT}me" in hint.runs for hint in hints):
                break
            await asyncio.sleep(0)
        else:
            raise AssertionError("nobody was told of the letter")
        end()

    async def test_what_hints_bring_along_is_all_that_came(self, store: Store) -> None:
        """Or they bring nothing. Who has seen what lay there before has seen all; whoever else sends."""
        hints: list[Hint] = []
        end = store.subscribe(hints.append)
        port = f"{PORT}me"
        await start(store, "a", "b")
        seen = {"b": 0, port: 0}
        for number in range(1, 7):
            sent = [Mail("b", "x", 2 * number + i, "tell", "Note", b"{}") for i in range(number % 3)]
            await store.deliver(sent, now=0.0)
            await _send(store, "a", _answer(port, number), Mail("b", "a", number, "tell", "Word", b"{}"))
            if number % 3 == 0:
                kept = (await store.inbox("b", 0))[:-1]
                await store.commit([Turn(run="b", fence=1, consumed=[letter.id for letter in kept])])
            there = await store.letters({"b": seen["b"], port: seen[port]})
            for _ in range(100):
                if {port, "b"} <= {run for hint in hints if hint.kind == "mail" for run in hint.runs}:
                    break
                await asyncio.sleep(0)
            for hint in hints:
                for address, came in hint.came.items():
                    if address in there and came.after <= seen[address]:
                        fresh = [letter for letter in came.letters if letter.id > seen[address]]
                        assert fresh == [one for one in there[address] if one in came.letters]
                        before = [one for one in there[address] if one.id < fresh[0].id] if fresh else []
                        assert before == [], f"{address}: {before} came before what the hint brings along"
            if number % 2 == 0:  # else these letters are as those of another process, which no hint told of
                seen.update((address, letters[-1].id) for address, letters in there.items())
            hints.clear()
        end()
