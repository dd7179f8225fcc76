"""Runs among runs: mail, and runs started by runs."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import msgspec

from ..core.codec import decoder, digest, encode
from ..core.forms import members
from ..model.errors import Deadlock
from ..model.message import Mail
from ..model.mode import Config
from ..model.run import CallRef, Spec
from ..ports.store import NewRun, Turn
from .config import How, as_config, config_of
from .context import Act, Branch, Wait, current
from .flow import Target, flow, take_call
from .time import overdue

if TYPE_CHECKING:
    from typing_extensions import TypeForm

M = TypeVar("M")
R = TypeVar("R")


class _Tagged(msgspec.Struct):
    name: str
    value: msgspec.Raw


_tagged = msgspec.json.Decoder(_Tagged).decode


def message_name(tp: Any) -> str:
    """The name by which mail of a type is told from other mail."""
    return str(getattr(tp, "__qualname__", tp)).replace("<locals>.", "")


async def receive(message: TypeForm[M], /, *, timeout: timedelta | None = None) -> M:
    """Wait for mail of a type, or of one of a union's types, in order of arrival; other mail waits.

    Durable like every wait. Raises `TimeoutError` after `timeout`.
    """
    branch = current("receive")
    kinds = {message_name(tp): tp for tp in (members(message) or (message,))}
    args = encode(sorted(kinds))

    def read(data: bytes) -> Any:
        tagged = _tagged(data)
        return decoder(kinds[tagged.name])(bytes(tagged.value))

    wait = Wait(
        kind="receive",
        name="receive",
        args=args,
        digest=digest(args),
        decode=read,
        due=0.0 if timeout is None else branch.run.now() + timeout.total_seconds(),
        late=overdue(f"waiting for {' or '.join(kinds)}"),
        accepts=frozenset(kinds),
    )
    received: M = await branch.run.record(branch, wait)
    return received


async def tell(run: Any, message: object, /) -> None:
    """Send mail to another run, from inside one; leaves with the next commit, once. `run` is a `Run` or an id."""
    branch = current("tell")
    await send(branch, run if isinstance(run, str) else run.id, message)


def send(branch: Branch, to: str, message: object) -> Any:
    """The recorded call behind `tell`."""
    run = branch.run
    name, value = message_name(type(message)), encode(message, where="the message")
    args = encode({"to": to, "name": name, "message": msgspec.Raw(value)})

    def writes(turn: Turn, path: str, n: int) -> None:
        number = run.next_number()  # when it is sent, not when it is called: numbers must grow in the outbox
        mail = Mail(to, run.id, number, "tell", name, value, at=run.now())
        turn.outbox = [*turn.outbox, mail]

    act = Act(kind="tell", name=name, args=args, digest=digest(args), decode=_nothing, writes=writes)
    return run.record(branch, act)


def _nothing(value: bytes) -> None:
    return None


def child_id(branch: Branch, flow: Target, args: bytes) -> str:
    """The id of a child started by the branch's next call: the same in every life."""
    run, place = branch.run, f"{branch.run.id}{branch.path}:{branch.n}"
    call = f"{flow.name}{digest(args).hex()}" if run.rebased else ""  # another one may stand there now
    return f"{run.id}.{blake2b(f'{place}{call}'.encode(), digest_size=6).hexdigest()}"


def child(branch: Branch, flow: Target, args: bytes, config: Config, *, id: str = "") -> Any:
    """Start a run of a flow and wait for its end: one recorded call, whose outcome is the child's."""
    run = branch.run
    run.services.register(flow)
    run_id = id or child_id(branch, flow, args)

    def opens(turn: Turn, path: str, n: int) -> None:
        parent = CallRef(run.id, path, n)
        turn.spawn = [*turn.spawn, NewRun(run_id, make_spec(flow, args, config, run.now(), parent=parent))]

    def drops(turn: Turn, path: str, n: int) -> None:
        turn.outbox = [*turn.outbox, Mail(run_id, f"{run.id}{path}:{n}", 1, "cancel", at=run.now())]

    wait = Wait(
        kind="child",
        name=flow.name,
        args=args,
        digest=digest(args),
        decode=flow.read_result,
        opens=opens,
        drops=drops,
        sender=f"run:{run_id}",
    )
    return run.record(branch, wait)


def make_spec(flow: Target, args: bytes, config: Config, now: float, **more: Any) -> Spec:
    """The record of a run of a flow or an actor."""
    import sys

    return Spec(
        kind=flow.kind,
        target=flow.name,
        args=args,
        config=config,
        version=flow.version,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        created=now,
        **more,
    )


async def spawn(call: Coroutine[Any, Any, R], /, *, id: str = "", **how: Unpack[How]) -> Any:
    """Start a run that goes on by itself; its `Run` is given back at once. An `id` makes it idempotent."""
    branch = current("spawn")
    run = branch.run
    flow, args = take_call(call)
    run.services.register(flow)
    config = as_config(**how).over(config_of(branch))
    run_id = id or child_id(branch, flow, args)

    def writes(turn: Turn, path: str, n: int) -> None:
        parent = CallRef(run.id, path, n)
        turn.spawn = [*turn.spawn, NewRun(run_id, make_spec(flow, args, config, run.now(), parent=parent))]

    place = (branch.path, branch.n)
    act = Act(
        kind="spawn",
        name=flow.name,
        args=args,
        digest=digest(args),
        decode=lambda value: run.services.handle(decoder(str)(value), flow, place),
        writes=writes,
        value=encode(run_id),
    )
    return await run.record(branch, act)


def join(branch: Branch, run: str, place: tuple[str, int], decode: Any) -> Any:
    """Wait for the end of a run that this one spawned at that place."""
    args = encode(run)
    wait = Wait(
        kind="join",
        name="join",
        args=args,
        digest=digest(args),
        decode=decode,
        joins=place,
        looks="" if run.startswith(f"{branch.run.id}.") else run,
        sender=f"run:{run}",
    )
    return branch.run.record(branch, wait)


def request(branch: Branch, to: str, name: str, value: bytes, decode: Any, timeout: timedelta | None) -> Any:
    """Ask another run something and wait for its answer. Raises `Deadlock` if it waits for this one."""
    run = branch.run
    callers = (*run.callers, run.id)
    if to in callers:
        raise Deadlock(f"run {run.id!r} asks {to!r}, which waits for it: {' → '.join((*callers, to))}")
    args = encode({"to": to, "name": name, "message": msgspec.Raw(value)})
    check = digest(args)

    def opens(turn: Turn, path: str, n: int) -> None:
        mail = Mail(
            to, run.id, run.next_number(), "request", name, value,
            reply=CallRef(run.id, path, n, check), callers=callers, at=run.now(),
        )  # fmt: skip
        turn.outbox = [*turn.outbox, mail]

    wait = Wait(
        kind="request",
        name=name,
        args=args,
        digest=check,
        decode=decode,
        opens=opens,
        due=0.0 if timeout is None else run.now() + timeout.total_seconds(),
        late=overdue(f"the request {name} to {to!r}"),
    )
    return run.record(branch, wait)


@flow(name="segue.request", version="1")
async def request_from_outside(to: str, name: str, message: Any, timeout: timedelta | None) -> Any:
    """A request of a caller that is no run, as a run: it survives the caller."""
    branch = current("request")
    return await request(branch, to, name, encode(message), decoder(Any), timeout)
