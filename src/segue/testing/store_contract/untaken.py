"""What every store promises of mail that can't be delivered at once, or at all; part of `StoreContract`."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from ...model.entry import Failure
from ...model.message import CAUGHT_UP, Answered, DeadLetter, Mail
from ...model.run import CallRef, Spec, Status
from ...ports.store import Delivery, Hint, NewRun, Store, Turn
from .acts import start


def _tell(to: str, sender: str, number: int, **fields: Any) -> Mail:
    given: dict[str, Any] = {"kind": "tell", "name": "Note", "value": b"%d" % number, **fields}
    return Mail(to, sender, number, **given)


def _request(to: str, sender: str, number: int, **fields: Any) -> Mail:
    reply = CallRef(sender, "/x", number, b"digest")
    return _tell(to, sender, number, kind="request", name="Ask", reply=reply, **fields)


async def _commit(store: Store, run: str, **fields: Any) -> str:
    (result,) = await store.commit([Turn(run=run, fence=1, now=5.0, **fields)])
    return result


async def _numbers(store: Store, run: str) -> list[int]:
    return [letter.mail.number for letter in await store.inbox(run, 0)]


async def _dead(store: Store, run: str = "") -> list[tuple[str, int, str]]:
    return [(one.mail.to, one.mail.number, one.reason) for one in await store.dead_letters(run=run)]


class UntakenContract:
    """Dead letters, errors instead of answers, kept letters and bounded mailboxes."""

    # ------------------------------------------------------------ dead letters
    async def test_code_declares_mail_dead(self, store: Store) -> None:
        await start(store, "a", "b")
        assert await store.dead_letters() == []
        error = Failure("m:Bad", "it broke", b'["x"]')
        mail = [_tell("a", "x", number) for number in (1, 2)]
        await store.deliver(mail, now=0.0)
        letters = [letter.id for letter in await store.inbox("a", 0)]
        dead = [DeadLetter(mail[0], "nobody takes it"), DeadLetter(mail[1], "it failed", error)]
        await _commit(store, "a", consumed=letters, dead=dead)
        one, two = await store.dead_letters()
        assert (one.mail, one.reason, one.error, one.at) == (mail[0], "nobody takes it", None, 5.0)
        assert (two.mail, two.reason, two.error, two.at) == (mail[1], "it failed", error, 5.0)
        assert 0 < one.id < two.id
        assert await store.dead_letters(after=one.id) == [two]
        assert await store.dead_letters(limit=1) == [one]
        assert await store.dead_letters(run="b") == []
        assert await store.dead_letters(run="a") == [one, two]

    async def test_a_fenced_turn_declares_nothing_dead(self, store: Store) -> None:
        await start(store, "a")
        dead = [DeadLetter(_tell("a", "x", 1), "no")]
        assert await store.commit([Turn(run="a", fence=7, dead=dead)]) == ["fenced"]
        assert await store.dead_letters() == []

    @pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
    async def test_what_an_ended_run_leaves(self, store: Store, end: Status) -> None:
        await start(store, "a", "b")
        mail = [
            _tell("a", "b", 1),
            _tell("a", "b", 2, due=5.0),
            _tell("a", "b", 3, due=5.5),  # scheduled, and so not yet come
            _tell("a", "a", 4, due=2.0, every=3.0),
            _tell("a", "b", 5, kind="result", call=CallRef("a", "", 1)),
            _request("a", "b", 6),
        ]
        await store.deliver(mail, now=0.0)
        await _commit(store, "a", status=end)
        kept = [1, 2] if end == "done" else [1, 2, 3, 4]  # for it may go on
        assert [number for _, number, _ in await _dead(store)] == kept
        assert {reason for _, _, reason in await _dead(store)} == {f"the run had ended ({end})"}
        assert [(one.mail.due, one.mail.every) for one in await store.dead_letters()][2:] == (
            [] if end == "done" else [(5.5, 0.0), (2.0, 3.0)]
        )
        (answer,) = await store.inbox("b", 0)
        assert (answer.mail.kind, answer.mail.call) == ("result", CallRef("b", "/x", 6, b"digest"))
        error = answer.mail.error
        assert error is not None
        assert error.type == "segue.model.errors:RunEnded"
        assert error.message == f"run 'a' answers no more: it is {end}"
        assert msgspec.json.decode(error.args) == ["a", end]
        assert await store.inbox("a", 0) == []

    @pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
    async def test_answers_to_a_run_that_may_go_on(self, store: Store, end: Status) -> None:
        """Both what lay there when it ended and what comes later; who only waits for its end hears nothing of it."""
        await start(store, "a", "b")
        asked = CallRef("a", "/x", 7, b"digest")
        answers = [_tell("a", "b", number, kind="result", call=asked) for number in (1, 2, 3)]
        other = _tell("a", "c", 1, kind="result", call=CallRef("a", "", 1))
        await store.deliver([other, answers[0]], now=0.0)
        await _commit(store, "a", status=end)
        kept = end != "done"
        assert await _numbers(store, "a") == [1] * kept
        await _commit(
            store, "b", outbox=[answers[1], _tell("a", "d", 1, kind="result", call=CallRef("a", "", 1))]
        )
        came: list[Delivery] = ["delivered", "duplicate", "gone"] if kept else ["gone"] * 3
        assert await store.deliver([answers[2], answers[2], other], now=0.0) == came
        assert await _numbers(store, "a") == [1, 2, 3] * kept
        assert await store.dead_letters() == []
        head = await store.get("a")
        assert head is not None
        assert head.status == end
        if kept:
            assert await store.revive("a", pool=None, now=6.0, status=(end,))
            (claimed,) = await store.claim("w", 9, 60.0, now=6.0)
            assert [letter.mail for letter in claimed.inbox] == answers

    async def test_who_asks_an_ended_run_whether_it_has_taken_all(self, store: Store) -> None:
        """Who sent more than it took, and who asks later, isn't told so."""
        await start(store, "a", "b", "c", "d")
        mail = [_tell("a", "b", 1), _tell("a", "c", 1), _tell("a", "c", 2)]
        asks = [msgspec.structs.replace(_request("a", run, 5), name=CAUGHT_UP) for run in ("b", "c", "d")]
        await store.deliver(mail + asks[:2], now=0.0)
        taken = [letter.id for letter in await store.inbox("a", 0)][:2]
        await _commit(store, "a", status="done", release=True, value=b"1", consumed=taken)
        await _commit(store, "d", outbox=asks[2:])
        for run, ended in (("b", False), ("c", True), ("d", True)):
            (letter,) = await store.inbox(run, 0)
            assert (letter.mail.error is not None) == ended, run

    async def test_runs_that_end_together_leave_each_their_own(self, store: Store) -> None:
        await start(store, "a", "b", "caller")
        mail = [
            _tell("a", "x", 1),
            _tell("b", "x", 1),
            _request("a", "caller", 1),
            _request("b", "caller", 1),
        ]
        await store.deliver(mail, now=0.0)
        await store.commit(
            [Turn(run="a", fence=1, status="failed"), Turn(run="b", fence=1, status="done", value=b"1")]
        )
        dead = [(to, reason) for to, _, reason in await _dead(store)]
        assert dead == [("a", "the run had ended (failed)"), ("b", "the run had ended (done)")]
        assert [letter.mail.sender for letter in await store.inbox("caller", 0)] == ["run:a", "run:b"]

    @pytest.mark.parametrize("mailbox", [0, 5])
    async def test_a_message_for_later_wakes_its_recipient_then(self, store: Store, mailbox: int) -> None:
        spec = Spec("flow", "f", b"[]", mailbox=mailbox)
        await store.create([NewRun("a", spec)], now=0.0, worker="w", ttl=1e9)
        await start(store, "b")
        await _commit(store, "a", status="parked", wake=50.0)
        await store.deliver([_tell("a", "x", 1, due=90.0)], now=1.0)
        await store.deliver(
            [_tell("a", "x", 2, due=20.0), _tell("a", "x", 3, due=30.0, kind="urgent")], now=1.0
        )
        head = await store.get("a")
        assert head is not None
        if mailbox:  # those that replace each other mustn't fill it
            assert (head.status, head.wake) == ("ready", None)
            return
        assert (head.status, head.wake) == ("parked", 20.0)
        assert await store.backlog(now=1.0) == (1, 20.0)
        assert await store.claim("w", 9, 60.0, now=19.0) == []
        (got,) = await store.claim("w", 9, 60.0, now=20.0)
        assert [letter.mail.number for letter in got.inbox] == [1, 2, 3]
        await store.commit([Turn(run="a", fence=2, status="parked", seen=got.inbox[-1].id, now=21.0)])
        await _commit(store, "b", outbox=[_tell("a", "b", 1, due=40.0), _tell("a", "b", 2, due=5.0)])
        head = await store.get("a")  # the second was due when it came
        assert head is not None
        assert (head.status, head.wake) == ("ready", None)

    async def test_what_comes_too_late(self, store: Store) -> None:
        await start(store, "a", "b", "c")
        await _commit(store, "a", status="done")
        assert await store.deliver([_tell("a", "b", 1)], now=0.0) == ["gone"]
        assert await store.dead_letters() == []  # who delivers is told at once
        out = [_tell("a", "b", 2), _request("a", "b", 3), _tell("x", "b", 4), _request("x", "b", 5)]
        out += [_tell("a", "b", 6, kind="cancel"), _tell("a", "b", 7, every=1.0)]
        out += [_tell("a", "b", 8, name="Interruption")]  # as it was asked to: nothing to tell anybody
        await _commit(store, "b", outbox=out)
        assert await _dead(store) == [("a", 2, "the run had ended (done)"), ("x", 4, "there is no such run")]
        ended, unknown = [letter.mail for letter in await store.inbox("b", 0)]
        assert ended.call == CallRef("b", "/x", 3, b"digest")
        assert ended.error is not None
        assert ended.error.type == "segue.model.errors:RunEnded"
        assert unknown.error is not None
        assert unknown.error.type == "segue.model.errors:UnknownName"
        assert "no run 'x'" in unknown.error.message

    async def test_a_parked_requester_wakes_to_the_error(self, store: Store) -> None:
        await start(store, "a", "b")
        await _commit(store, "b", outbox=[_request("a", "b", 1)], status="parked")
        await _commit(store, "a", status="done")
        head = await store.get("b")
        assert head is not None
        assert head.status == "ready"

    async def test_a_forwarded_request_fails_as_a_message(self, store: Store) -> None:
        await start(store, "a", "b", "c")
        asked = _request("a", "b", 1, forwarded=True, tag="mine", callers=("z",))
        asked = msgspec.structs.replace(asked, reply=CallRef("c", "", 0))
        await _commit(store, "b", outbox=[asked])
        await _commit(store, "a", status="done")
        (letter,) = await store.inbox("c", 0)
        mail = letter.mail
        assert (mail.kind, mail.name, mail.callers) == ("tell", "Response[Ask]", ("z",))
        read = msgspec.json.decode(mail.value or b"", type=Answered)
        assert read.tag == "mine"
        assert read.error is not None
        assert read.error.type == "segue.model.errors:RunEnded"

    async def test_dead_letters_are_sent_again_or_forgotten(self, store: Store) -> None:
        await start(store, "a", "b")
        mail = [_tell("b", "a", number) for number in (1, 2, 3)]
        await _commit(store, "a", dead=[DeadLetter(one, "no") for one in mail])
        one, two, three = await store.dead_letters()
        assert await store.resend_dead(two.id, now=6.0) == "delivered"
        assert await store.resend_dead(two.id, now=6.0) is None
        assert await _numbers(store, "b") == [2]
        assert await store.drop_dead([one.id, two.id]) == 1
        assert await store.drop_dead([]) == 0
        await _commit(store, "b", status="parked", seen=10**6)
        assert await store.resend_dead(three.id, now=6.0) == "delivered"
        head = await store.get("b")
        assert head is not None
        assert head.status == "ready"
        assert await store.dead_letters() == []

    async def test_a_dead_letter_to_an_ended_run_stays(self, store: Store) -> None:
        await start(store, "a", "b")
        await _commit(store, "a", dead=[DeadLetter(_tell("b", "a", 1), "no")])
        await _commit(store, "b", status="done")
        (one,) = await store.dead_letters()
        assert await store.resend_dead(one.id, now=6.0) == "gone"
        assert await store.dead_letters() == [one]

    # ------------------------------------------------------------ letters that are kept
    async def test_kept_letters(self, store: Store) -> None:
        await start(store, "a", "b")
        await store.deliver([_request("a", "b", number) for number in (1, 2)], now=0.0)
        first, second = await store.inbox("a", 0)
        assert not first.kept
        await _commit(store, "a", kept=[first.id])
        found = await store.load("a")
        assert found is not None
        assert [letter.kept for letter in found.inbox] == [True, False]
        assert found.inbox[0].mail == first.mail
        assert [letter.kept for letter in await store.inbox("a", 0)] == [True, False]
        await _commit(store, "a", consumed=[first.id, second.id], kept=[second.id])
        assert await store.inbox("a", 0) == []

    async def test_what_is_kept_ends_with_its_run(self, store: Store) -> None:
        """A request that was kept is answered with an error; a subscriber hears the end."""
        await start(store, "a", "b")
        follow = _request("a", "b", 2, key="stream-7", tag="stream-7")
        follow = msgspec.structs.replace(follow, kind="subscribe", name="Progress")
        await store.deliver([_request("a", "b", 1), follow], now=0.0)
        await _commit(store, "a", kept=[letter.id for letter in await store.inbox("a", 0)])
        await _commit(store, "a", status="failed")
        mail = [letter.mail for letter in await store.inbox("b", 0)]
        assert [one.kind for one in mail] == ["result", "result", "event"]
        assert (mail[2].name, mail[2].key) == ("stream-7.end", "stream-7")
        failure = msgspec.json.decode(mail[2].value or b"", type=Failure)
        assert failure.type == "segue.model.errors:RunEnded"

    async def test_an_event_for_nobody_calls_its_subscription_off(self, store: Store) -> None:
        await start(store, "a", "b")
        await _commit(store, "b", status="done")
        await _commit(store, "a", outbox=[_tell("b", "a", 1, kind="event", name="Step", key="s1")])
        (letter,) = await store.inbox("a", 0)
        assert (letter.mail.kind, letter.mail.key) == ("unsubscribe", "s1")
        assert await store.dead_letters() == []

    # ------------------------------------------------------------ bounded mailboxes
    async def test_who_delivers_to_a_full_mailbox_is_told(self, store: Store) -> None:
        await start(store, "a", mailbox=2)
        mail = [_tell("a", "x", number) for number in (1, 2, 3)]
        assert await store.deliver(mail, now=0.0) == ["delivered", "delivered", "full"]
        assert await store.deliver([_tell("a", "x", 3)], now=0.0) == [
            "full"
        ]  # no duplicate: nothing was done
        hints: list[Hint] = []
        end = store.subscribe(hints.append)
        first = (await store.inbox("a", 0))[0]
        await _commit(store, "a", consumed=[first.id])
        for _ in range(100):
            if any(hint.kind == "room" and "a" in hint.runs for hint in hints):
                break
            await asyncio.sleep(0)
        else:
            raise AssertionError("nobody was told that there is room")
        end()
        assert await store.deliver([_tell("a", "x", 4), _tell("a", "x", 5)], now=0.0) == ["delivered", "full"]
        assert await _numbers(store, "a") == [2, 4]

    async def test_mail_of_runs_waits_for_room_in_order(self, store: Store) -> None:
        await start(store, "b", "c")
        await start(store, "a", mailbox=2)
        out = [_tell("a", "b", number) for number in range(1, 6)]
        await _commit(store, "b", outbox=out)
        assert await _numbers(store, "a") == [1, 2]
        await _commit(store, "b", outbox=out)  # each is sent once
        await _commit(store, "c", outbox=[_tell("a", "c", 6)])
        letters = await store.inbox("a", 0)
        await _commit(store, "a", consumed=[letters[0].id])
        assert await _numbers(store, "a") == [2, 3]
        assert await store.deliver([_tell("a", "x", 9)], now=0.0) == ["full"]  # nobody overtakes
        letters = await store.inbox("a", 0)
        await _commit(store, "a", consumed=[letter.id for letter in letters], status="parked", seen=10**9)
        assert await _numbers(store, "a") == [4, 5]
        head = await store.get("a")
        assert head is not None
        assert head.status == "ready"  # what was let in wakes it
        (claimed,) = await store.claim("w", 1, 60.0, now=6.0)
        done = [letter.id for letter in claimed.inbox]
        await store.commit([Turn(run="a", fence=2, consumed=done, now=6.0)])
        assert await _numbers(store, "a") == [6]
        assert await store.dead_letters() == []

    async def test_a_letter_that_is_kept_makes_room(self, store: Store) -> None:
        await start(store, "b")
        await start(store, "a", mailbox=1)
        await _commit(store, "b", outbox=[_request("a", "b", 1), _tell("a", "b", 2)])
        (letter,) = await store.inbox("a", 0)
        await _commit(store, "a", kept=[letter.id])
        assert await _numbers(store, "a") == [1, 2]

    async def test_what_a_bound_doesnt_count(self, store: Store) -> None:
        await start(store, "a", "b", mailbox=1)
        free = [
            _tell("a", "b", 1, kind="result", call=CallRef("a", "", 1)),
            _tell("a", "b", 2, kind="cancel"),
            _tell("a", "b", 3, kind="event"),
            Mail("a", "a", 4, "tell", "Tick"),
        ]
        assert await store.deliver(free, now=0.0) == ["delivered"] * 4
        assert await store.deliver([_request("a", "b", 5), *free[:1]], now=0.0) == ["delivered", "duplicate"]
        assert await store.deliver([_tell("a", "b", 6)], now=0.0) == ["full"]
        request = (await store.inbox("a", 0))[-1]
        await _commit(store, "a", kept=[request.id])  # what is kept takes no room
        assert await store.deliver([_tell("a", "b", 7)], now=0.0) == ["delivered"]

    async def test_a_full_mailbox_that_drops(self, store: Store) -> None:
        await start(store, "b")
        await start(store, "a", mailbox=1, full="drop")
        mail = [_tell("a", "x", number) for number in (1, 2)]
        assert await store.deliver(mail, now=0.0) == ["delivered", "dropped"]
        await _commit(store, "b", outbox=[_tell("a", "b", 3), _request("a", "b", 4)])
        assert await _dead(store) == [("a", number, "the mailbox was full (1 messages)") for number in (2, 3)]
        (letter,) = await store.inbox("b", 0)
        assert letter.mail.error is not None
        assert letter.mail.error.type == "segue.model.errors:MailboxFull"
        assert await store.deliver(mail, now=0.0) == ["duplicate"] * 2

    async def test_what_is_scheduled_and_dropped_is_a_dead_letter(self, store: Store) -> None:
        """As it is, so that it may be sent again."""
        await start(store, "a", mailbox=1, full="drop")
        mail = [
            _tell("a", "x", 1),
            _tell("a", "x", 2, due=9.0),
            _tell("a", "x", 3, due=9.0, every=9.0, key="k"),
        ]
        assert await store.deliver(mail, now=0.0) == ["delivered", "dropped", "dropped"]
        dead = await store.dead_letters()
        assert [letter.mail for letter in dead] == mail[1:]
        await _commit(store, "a", consumed=[(await store.inbox("a", 0))[0].id])
        assert await store.resend_dead(dead[1].id, now=1.0) == "delivered"
        assert [letter.mail for letter in await store.inbox("a", 0)] == mail[2:]

    async def test_a_full_mailbox_that_fails(self, store: Store) -> None:
        await start(store, "b")
        await start(store, "a", mailbox=1, full="fail")
        mail = [_tell("a", "x", number) for number in (1, 2)]
        assert await store.deliver(mail, now=0.0) == ["delivered", "full"]
        assert await store.dead_letters() == []  # who delivers is told
        await _commit(store, "b", outbox=[_tell("a", "b", 3), _request("a", "b", 4)])
        assert await _dead(store) == [("a", 3, "the mailbox was full (1 messages)")]
        (letter,) = await store.inbox("b", 0)
        assert letter.mail.error is not None
        assert letter.mail.error.type == "segue.model.errors:MailboxFull"

    @pytest.mark.parametrize("full", ["wait", "drop", "fail"])
    async def test_who_asks_how_far_a_mailbox_was_taken(self, store: Store, full: str) -> None:
        """It is no message: what refuses mail doesn't refuse that, and where mail waits for room it waits behind it."""
        await start(store, "b")
        await start(store, "a", mailbox=1, full=full)
        await store.deliver([_tell("a", "x", 1)], now=0.0)
        caught_up = msgspec.structs.replace(_request("a", "b", 3), name=CAUGHT_UP)
        await _commit(store, "b", outbox=[_tell("a", "b", 2), caught_up])
        numbers = [letter.mail.number for letter in await store.inbox("a", 0)]
        assert numbers == ([1] if full == "wait" else [1, 3])
        assert await store.inbox("b", 0) == []
        await _commit(store, "a", consumed=[(await store.inbox("a", 0))[0].id])
        assert await store.deliver([_tell("a", "x", 4)], now=0.0) == [
            "full" if full == "wait" else "delivered"
        ]

    async def test_what_waited_for_room_when_the_run_ended(self, store: Store) -> None:
        await start(store, "b")
        await start(store, "a", mailbox=1)
        out = [_tell("a", "b", 1), _tell("a", "b", 2), _request("a", "b", 3)]
        await _commit(store, "b", outbox=out)
        await _commit(store, "a", status="done", consumed=[(await store.inbox("a", 0))[0].id])
        assert await _dead(store) == [("a", 2, "the run had ended (done)")]
        (letter,) = await store.inbox("b", 0)
        assert letter.mail.call == CallRef("b", "/x", 3, b"digest")

    async def test_a_dead_letter_to_a_full_mailbox_stays(self, store: Store) -> None:
        await start(store, "a", mailbox=1)
        await store.deliver([_tell("a", "x", 1)], now=0.0)
        await _commit(store, "a", dead=[DeadLetter(_tell("a", "b", 2), "no")])
        (one,) = await store.dead_letters()
        assert await store.resend_dead(one.id, now=6.0) == "full"
        assert await store.dead_letters() == [one]
