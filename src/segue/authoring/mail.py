"""Runs among runs: mail, and runs started by runs."""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from datetime import timedelta
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, get_args

import msgspec

from ..core.codec import decoder, digest, encode, encode_stable
from ..core.forms import members
from ..core.replay import Place
from ..core.restarts import Kind
from ..model.checks import moment, seconds, text
from ..model.errors import Deadlock, InvalidValue, WrongPlace
from ..model.message import CAUGHT_UP, Mail, MailKind
from ..model.mode import Config
from ..model.run import CallRef, Spec
from ..ports.store import NewRun, Turn, adding
from .config import How, config_of, configured
from .context import Act, Branch, Wait, current, opening
from .flow import Target, take_call
from .message import kind_of, message_reader, nothing, read_pong, sent_as
from .message import message_name as message_name
from .time import overdue

if TYPE_CHECKING:
    from typing_extensions import TypeForm

M = TypeVar("M")
R = TypeVar("R")


class _Tagged(msgspec.Struct):
    name: str
    value: msgspec.Raw


_tagged = msgspec.json.Decoder(_Tagged).decode


# ---------------------------------------------------------------- messages
async def receive(message: TypeForm[M], /, *, timeout: timedelta | None = None) -> M:
    """Wait for mail of a type, or of one of a union's types, in order of arrival; other mail waits.

    Durable like every wait. Raises `TimeoutError` after `timeout`.
    """
    branch = current("receive")
    kinds = {message_name(tp): message_reader(tp) for tp in (members(message) or (message,))}
    args = encode(sorted(kinds))

    def read(data: bytes) -> Any:
        tagged = _tagged(data)
        return kinds[tagged.name](bytes(tagged.value))

    wait = Wait(
        kind="receive",
        name="receive",
        args=args,
        digest=digest(args),
        decode=read,
        due=moment(timeout, "timeout of receive()", branch.run.now()),
        late=overdue(f"waiting for {' or '.join(kinds)}"),
        accepts=frozenset(kinds),
    )
    received: M = await branch.run.record(branch, wait)
    return received


def me() -> Any:
    """The run that this code belongs to: its address, to be told to others."""
    run = current("me").run
    return run.services.handle(run.id, None, None)


class When(msgspec.Struct, frozen=True, omit_defaults=True):
    """When mail is to come: `after` so many seconds, then `every` so many, in the place of what has the `key`."""

    after: float = 0.0
    every: float = 0.0
    key: str = ""

    @classmethod
    def of(cls, after: timedelta | None, every: timedelta | None, key: str) -> When:
        """As `tell` takes it. Raises `ValueError`."""
        text("key of tell()", key)
        pause = 0.0 if every is None else seconds("every", every)
        if every is not None and pause <= 0.0:
            raise ValueError(
                f"every={every!r}: a message repeats after some time, as in timedelta(minutes=5)"
            )
        return cls(pause if after is None else max(seconds("after", after), 0.0), pause, key)

    def due(self, now: float) -> float:
        """When it is due for the first time; 0 for at once."""
        return now + self.after if self.after else now if self.every else 0.0


AT_ONCE: Final = When()


async def tell(
    run: Any,
    message: object,
    /,
    *,
    after: timedelta | None = None,
    every: timedelta | None = None,
    key: str = "",
) -> None:
    """Send mail to another run, from inside one; leaves with the next commit, once. `run` is a `Run` or an id.

    `after`: it comes that much later. `every`: it comes again and again, first after that time, or `after`; times
    that were missed count as one. Of the mail with one `key` that a run hasn't taken yet the latest counts, so telling
    again puts it off; a repeating message that is told again as it is goes on as it was.
    """
    branch = current("tell")
    await send(branch, run if isinstance(run, str) else run.id, message, When.of(after, every, key))


def send(branch: Branch, to: str, message: object, when: When = AT_ONCE) -> Any:
    """The recorded call behind `tell`."""
    run, (name, may_hurry) = branch.run, sent_as(type(message))
    kind: MailKind = kind_of(message, "tell") if may_hurry else "tell"
    value = encode_stable(message, where="the message")
    said: dict[str, Any] = {"to": to, "name": name, "message": msgspec.Raw(value)}
    args = encode(said if when == AT_ONCE else {**said, "when": when})

    def writes(turn: Turn, path: str, n: int) -> None:
        number, now = (
            run.next_number(),
            run.now(),
        )  # when it is sent, not called: numbers must grow in the outbox
        mail = Mail(
            to, run.id, number, kind, name, value, at=now, due=when.due(now), every=when.every, key=when.key
        )
        turn.outbox.append(mail)

    act = Act(kind="tell", name=name, args=args, digest=digest(args), decode=nothing, writes=writes)
    return run.record(branch, act)


def unschedule(branch: Branch, to: str, key: str) -> Any:
    """The recorded call that calls off what was told with a key."""
    run, args = branch.run, encode({"to": to, "key": key})

    def writes(turn: Turn, path: str, n: int) -> None:
        mail = Mail(to, run.id, run.next_number(), "unschedule", key=key, at=run.now())
        turn.outbox.append(mail)

    act = Act(kind="unschedule", name=key, args=args, digest=digest(args), decode=nothing, writes=writes)
    return run.record(branch, act)


def cancel(branch: Branch, to: str) -> Any:
    """The recorded call that asks a run to end."""
    run, args = branch.run, encode(to)

    def writes(turn: Turn, path: str, n: int) -> None:
        turn.outbox.append(Mail(to, run.id, run.next_number(), "cancel", at=run.now()))

    act = Act(kind="cancel", name="cancel", args=args, digest=args, decode=nothing, writes=writes)
    return run.record(branch, act)


# ---------------------------------------------------------------- requests
def request(
    branch: Branch,
    to: str,
    name: str,
    value: bytes,
    decode: Any,
    timeout: timedelta | None,
    *,
    kind: MailKind = "request",
    key: str = "",
    tag: str = "",
) -> Any:
    """Ask another run something and wait for its answer. Raises `Deadlock` if it waits for this one."""
    run = branch.run
    callers = (*run.letters.callers(branch.path), run.id)
    if to in callers and kind == "request":
        raise Deadlock(f"run {run.id!r} asks {to!r}, which waits for it: {' → '.join((*callers, to))}")
    args = encode({"to": to, "name": name, "message": msgspec.Raw(value)})
    check = digest(args)
    due = moment(timeout, f"timeout of the request {name}", run.now())
    opened = opening(branch, "request", name, check, args)

    def opens(turn: Turn) -> None:
        mail = Mail(
            to, run.id, run.next_number(), kind, name, value,
            reply=CallRef(run.id, *opened, check), callers=callers, at=run.now(), key=key, tag=tag, until=due,
        )  # fmt: skip
        turn.outbox.append(mail)

    wait = Wait(
        kind="request",
        name=name,
        args=args,
        digest=check,
        decode=decode,
        opens=opens,
        opened=opened,
        due=due,
        late=overdue(f"the request {name} to {to!r}"),
        to=to if kind == "request" else "",
    )
    return run.record(branch, wait)


async def caught_up(branch: Branch, to: str) -> None:
    """Wait until a run has taken what this one sent it; not where it waits for this one itself, or is this one."""
    if to not in (*branch.run.letters.callers(branch.path), branch.run.id):
        await request(branch, to, CAUGHT_UP, b"null", nothing, None)


def forward(
    branch: Branch, to: str, name: str, value: bytes, answer_to: str, tag: str, kind: MailKind
) -> Any:
    """Ask another run something and have the answer sent to a mailbox, as a `Response`; nobody waits for it.

    Whoever waits for this run to answer a request that it keeps waits for this answer too.
    """
    run = branch.run
    callers = run.letters.callers(kept_only=True)
    if to in callers and kind == "request":
        raise Deadlock(
            f"run {run.id!r} asks {to!r}, which waits for it: {' → '.join((*callers, run.id, to))}"
        )
    args = encode({"to": to, "name": name, "message": msgspec.Raw(value), "answer to": answer_to, "tag": tag})

    def writes(turn: Turn, path: str, n: int) -> None:
        mail = Mail(
            to, run.id, run.next_number(), kind, name, value,
            reply=CallRef(answer_to, path, n), callers=callers, at=run.now(), tag=tag, forwarded=True,
        )  # fmt: skip
        turn.outbox.append(mail)

    act = Act(kind="forward", name=name, args=args, digest=digest(args), decode=nothing, writes=writes)
    return run.record(branch, act)


def ping(branch: Branch, to: str, timeout: timedelta | None) -> Any:
    """Ask a run whether it is there."""
    return request(branch, to, "ping", b"null", read_pong, timeout, kind="ping")


# ---------------------------------------------------------------- runs
def child_id(run: str, opened: Place) -> str:
    """The id of a run that a call started, and that wasn't given any: the same in every life."""
    path, n = opened
    return f"{run}.{blake2b(f'{run}{path}:{n}'.encode(), digest_size=6).hexdigest()}"


def next_child(branch: Branch, kind: str, flow: Target, check: bytes, args: bytes) -> tuple[str, Place]:
    """The id of the run that the branch's next call starts, and its opening."""
    opened = opening(branch, kind, flow.name, check, args)
    return child_id(branch.run.id, opened), opened


def check_fits(branch: Branch, kind: str, flow: Target, args: bytes) -> bytes:
    """The digest of arguments. Raises `InvalidValue` for those that a new run of that couldn't read: it would be held,
    and its caller wait."""
    check = digest(args)
    if not branch.run.opening(branch.path, branch.n, kind, flow.name, check, args)[1]:
        flow.check_args(args)
    return check


def child(
    branch: Branch,
    flow: Target,
    args: bytes,
    config: Config,
    *,
    check: bytes = b"",
    **more: Any,
) -> Any:
    """Start a run and wait for its end: one recorded call, whose outcome is the child's.

    `check`: the digest of its arguments, if that was taken. `more` is of its spec.
    """
    run, check = branch.run, check or digest(args)
    run.services.register(flow)
    run_id, opened = next_child(branch, "child", flow, check, args)
    place = CallRef(run.id, *opened)
    config = config.opened(f"run:{run_id}")

    def opens(turn: Turn) -> None:
        spec = make_spec(flow, args, config, run.now(), parent=place, **more)
        turn.spawn = adding(turn.spawn, NewRun(run_id, spec))

    def drops(turn: Turn) -> None:
        number = 1 + run.revived  # the same in each wake; it may have been cancelled before, and have gone on
        sender = f"{place.run}{place.path}:{place.n}"
        turn.outbox.append(Mail(run_id, sender, number, "cancel", at=run.now()))

    wait = Wait(
        kind="child",
        name=flow.name,
        args=args,
        digest=check,
        decode=flow.read_result,
        opens=opens,
        drops=drops,
        opened=opened,
    )
    return run.record(branch, wait)


_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def make_spec(flow: Target, args: bytes, config: Config, now: float, **more: Any) -> Spec:
    """The record of a run of a flow or an actor."""
    box = flow.mailbox
    if flow.history is not None:
        more = {"history": flow.history, **more}
    if box is not None:
        more = {"mailbox": box.size, "full": box.full, **more}
    return Spec(
        kind=flow.kind,
        target=flow.name,
        module=flow.module,
        args=args,
        config=config.begun(now),
        version=flow.version,
        python=_PYTHON,
        created=now,
        **more,
    )


async def spawn(
    call: Awaitable[R],
    /,
    *,
    id: str = "",
    group: Enum | tuple[Enum, object] | None = None,
    restart: Kind = "transient",
    **how: Unpack[How],
) -> Any:
    """Start a run that goes on by itself; its `Run` is given back at once. An `id` makes it idempotent.

    In an actor that has `groups`, a `group` puts it under supervision: it is ended before its supervisor ends, and by
    `restart` begins anew when it ends: always (`permanent`), only after a failure (`transient`), or never
    (`temporary`). `group=(Group.SESSIONS, "ada")`: within a group those of one value end before others, the value that
    came last first, and `finished` is told it. If the supervisor itself begins anew, its children have ended, and those
    that it spawns then have the number of its life in their ids: `clock`, then `clock.2`.
    """
    branch = current("spawn")
    run = branch.run
    flow, args = take_call(call)
    text("the id of a run", id)
    if restart not in get_args(Kind):
        raise InvalidValue(
            "restart of spawn()", " or ".join(get_args(Kind)), "it is none of them", repr(restart)
        )
    check = check_fits(branch, "spawn", flow, args)
    run.services.register(flow)
    config = config_of(branch, configured("spawn()", how) if how else None, flow.options)
    if group is not None:
        if run.supervisor is None:
            raise WrongPlace(
                f"run {run.id!r} is no actor, so it can't supervise in {group!r}: leave group= out"
            )
        return await run.supervisor.spawn(branch, flow, args, config, group, restart, id)
    if restart != "transient":
        raise WrongPlace(
            f"spawn(restart={restart!r}) without a group: nobody would begin it anew; give a `group=` too"
        )
    made, place = next_child(branch, "spawn", flow, check, args)
    run_id = id or made
    config = config.opened(f"run:{run_id}")

    def writes(turn: Turn, path: str, n: int) -> None:
        parent = CallRef(run.id, *place)
        turn.spawn = adding(
            turn.spawn, NewRun(run_id, make_spec(flow, args, config, run.now(), parent=parent))
        )

    act = Act(
        kind="spawn",
        name=flow.name,
        args=args,
        digest=check,
        decode=lambda value: run.services.handle(decoder(str)(value), flow, place),
        writes=writes,
        value=encode(run_id),
        opened=place,
    )
    return await run.record(branch, act)


def join(branch: Branch, run: str, place: Place, decode: Any) -> Any:
    """Wait for the end of a run that this one spawned at that place."""
    args = encode(run)
    wait = Wait(
        kind="join",
        name="join",
        args=args,
        digest=digest(args),
        decode=decode,
        joins=place,
        looks="" if run.startswith(f"{branch.run.id}.") and not branch.run.rebased else run,
    )
    return branch.run.record(branch, wait)
