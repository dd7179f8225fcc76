"""Subscriptions: a snapshot, and then what is published, until it is called off; an envelope like a user's own."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, dataclass_transform, get_args, get_origin

import msgspec

from ...core.codec import decoder, digest, encode, encode_stable
from ...model.entry import Failure
from ...model.message import Mail
from ...ports.store import Turn as Commit
from ..context import Act, Branch, Wait, current
from ..failures import to_exception
from ..mail import request
from ..message import Request, message_name, nothing
from .envelope import Envelope, Turn

S = TypeVar("S")
E = TypeVar("E")


@dataclass_transform()
class Subscription(Envelope, Request[S], Generic[S, E]):
    """A message that asks for a snapshot and for what is published from then on.

    `class Progress(segue.Subscription[Snapshot, Step])`: an actor's `@on def progress(self, p: Progress) -> Snapshot`
    gives the snapshot, also while another handler waits; `await segue.publish(Progress, Step(…))` tells all who
    subscribed; `async with run.subscribe(Progress()) as feed` is the other side.
    """

    urgent = True

    async def carry_out(self, actor: Any, turn: Turn, /) -> object:
        """The snapshot."""
        return await turn.handler("on", type(self))(self)


def event_type(subscription: type[Any]) -> Any:
    """The type of what a subscription brings."""
    for cls in subscription.__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is Subscription and not isinstance(get_args(base)[1], TypeVar):
                return get_args(base)[1]
    return Any


async def publish(subscription: type[Subscription[Any, E]], event: E, /) -> None:
    """Tell an event to all who subscribed to that with this actor, with its next commit: each once, in order."""
    branch = current("publish")
    run, name = branch.run, message_name(subscription)
    value = encode_stable(event, where=f"an event of {name}")
    args = encode({"name": name, "event": msgspec.Raw(value)})

    def writes(turn: Commit, path: str, n: int) -> None:
        now = run.now()
        for one in run.letters.subscribers(name):
            assert one.reply is not None  # it asked for the snapshot
            called = one.tag or message_name(type(event))
            mail = Mail(one.reply.run, run.id, run.next_number(), "event", called, value, at=now, key=one.key)
            turn.outbox.append(mail)

    act = Act(kind="publish", name=name, args=args, digest=digest(args), decode=nothing, writes=writes)
    await run.record(branch, act)


# ---------------------------------------------------------------- the other side
def subscribe(branch: Branch, to: str, message: Subscription[S, Any], key: str, tag: str) -> Any:
    """Ask for the snapshot, as it travels; events come from then on, called `tag`, or by their type."""
    name, value = message_name(type(message)), encode_stable(message, where="the subscription")
    return request(branch, to, name, value, bytes, None, kind="subscribe", key=key, tag=tag)


def unsubscribe(branch: Branch, to: str, key: str) -> Any:
    """Call a subscription off; what is still on its way to this run is dropped."""
    run, args = branch.run, encode({"to": to, "key": key})

    def writes(turn: Commit, path: str, n: int) -> None:
        mail = Mail(to, run.id, run.next_number(), "unsubscribe", key=key, at=run.now())
        turn.outbox.append(mail)

    act = Act(kind="unsubscribe", name=key, args=args, digest=digest(args), decode=nothing, writes=writes)
    recorded = run.record(
        branch, act
    )  # raises where the run leaves memory: then what has come is for its next life
    run.letters.drop_events(key)
    return recorded


class _Tagged(msgspec.Struct):
    name: str
    value: msgspec.Raw


_tagged = msgspec.json.Decoder(_Tagged).decode
_failure = msgspec.json.Decoder(Failure).decode


def next_event(branch: Branch, key: str, tp: Any) -> Any:
    """The next event of a subscription whose events have its key as their name. Raises how its publisher ended."""
    args = encode(key)

    def read(data: bytes) -> Any:
        tagged = _tagged(data)
        if tagged.name != key:
            raise to_exception(_failure(bytes(tagged.value)))
        return decoder(tp)(bytes(tagged.value))

    accepts = frozenset({key, f"{key}.end"})
    wait = Wait(kind="receive", name="event", args=args, digest=digest(args), decode=read, accepts=accepts)
    return branch.run.record(branch, wait)
