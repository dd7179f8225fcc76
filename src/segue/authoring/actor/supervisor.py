"""Supervision: an actor's children, by groups.

A child that is about to end, and may begin anew, asks its supervisor first and waits for the answer: so its address
and its mail stay, and a supervisor that is restarted itself answers when it is back. Its end then comes as a message.
Both are envelopes, like a user's own, and come before queued mail and while a handler waits.
"""

from __future__ import annotations

import dataclasses
import logging
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from ...core.codec import decoder, encode
from ...core.restarts import END, Kind, Restart, Verdict, decide, wanted
from ...model.entry import Failure
from ...model.errors import WrongPlace
from ...model.message import CHILD_ENDED
from ...model.run import CHILD, ENDED, CallRef
from ...ports.store import NewRun, Turn, adding
from ..context import Act, Branch, current
from ..failures import to_exception
from ..mail import cancel, make_spec, next_child, request, send
from .checkpoint import Child
from .envelope import Envelope
from .envelope import Turn as Handling
from .interruption import Interrupt, Interruption
from .nexts import Fail
from .ranks import Rank

if TYPE_CHECKING:
    from ...model.mode import Config
    from ..flow import Target
    from .life import Life
    from .standing import Standing

log = logging.getLogger("segue")

#: A group, or what of it: `(Group.SESSIONS, "ada")`.
Group = Enum | tuple[Enum, object]
#: How long a child that is asked to end may take, before it is asked more urgently.
GRACE: Final = timedelta(seconds=30)
#: What carries out a flow listens to nothing softer than `Interrupt.NOW`.
QUIET = Interrupt.AFTER_HANDLER
#: Beyond the levels of `Interrupt`: its run is cancelled; then it is left behind.
CANCELLED, LEFT = Interrupt.NOW + 1, Interrupt.NOW + 2


@dataclasses.dataclass(frozen=True)
class Ended:
    """The end of a child, as `finished` is told it. `value` of one that is done, else `error`.

    `group`: a member of its supervisor's `groups`; only its name, where those don't have it any more.
    `member`: the value that its group was given with, as in `group=(Group.SESSIONS, "ada")`, or None.

    One that is `set aside` ended too often: it is held with its error, for a person, and may go on.
    """

    run: Any
    group: Any
    why: Literal["done", "failed", "interrupted", "set aside"]
    value: Any = None
    error: Exception | None = None
    member: Any = None


def _as_actor(target: Target, args: bytes) -> tuple[Target, bytes]:
    """What is supervised is an actor, also of a flow: one that runs it."""
    if target.kind != "flow":
        return target, args
    from .supervised import SUPERVISED

    wanted = {"target": target.name, "args": msgspec.Raw(args), "module": target.module}
    return SUPERVISED, msgspec.json.encode(wanted)


class Supervisor:
    """The children of the actor that stands `here`, in one of its wakes."""

    def __init__(self, here: Standing, life: Life) -> None:
        self._here, self._life = here, life
        self._hurried = False  # while children were being asked
        self._asked: tuple[Rank, float] | None = None  # who was, and when to ask them again

    # ------------------------------------------------------------ children come
    async def spawn(
        self, branch: Branch, target: Target, args: bytes, config: Config, group: Group, kind: Kind, id: str
    ) -> Any:
        """Start a child; see `segue.spawn`."""
        here, run = self._here, branch.run
        name, belongs = self._belongs(group)
        if id and here.lives:  # that of its former life has ended
            id = f"{id}.{here.lives + 1}"
        check = msgspec.json.encode(name if belongs == "null" else [name, belongs])
        made, place = next_child(branch, "spawn", target, check, args)
        run_id = id or made
        config = config.opened(f"run:{run_id}")
        started, args = _as_actor(target, args)
        run.services.register(started)
        is_there = "" if not id else await self._is_there(branch, target.name, id, check)

        def writes(turn: Turn, path: str, n: int) -> None:
            if not is_there:
                parent = CallRef(run.id, *place, CHILD)
                spec = make_spec(started, args, config, run.now(), parent=parent, supervised=kind)
                turn.spawn = adding(turn.spawn, NewRun(run_id, spec))

        def came(value: bytes) -> tuple[Any, bool]:
            said = decoder(str | list[str])(value)
            if said == ["another's"]:
                raise WrongPlace(
                    f"run {run_id!r} is there already, started by somebody else, so it can't be supervised here; "
                    f"spawn it under an id of its own"
                )
            return run.services.handle(run_id, target, place), isinstance(said, str)

        given = msgspec.json.encode([is_there] if is_there else run_id)
        act = Act(
            kind="spawn", name=target.name, args=args, digest=check, decode=came, writes=writes, value=given,
            opened=place,
        )  # fmt: skip
        handle, ends = await run.record(branch, act)
        if ends and handle.id not in here.children:
            softest = 0 if started is target else int(QUIET)
            await self._adopt(
                branch,
                Child(
                    handle.id, name, target.name, kind,
                    level=softest, module=target.module, member=belongs, softest=softest,
                ),
            )  # fmt: skip
        return handle

    def _belongs(self, group: Group) -> tuple[str, str]:
        """The name of a group, and what of it a child belongs to, as JSON. Raises `WrongPlace`."""
        definition = self._here.definition
        groups = definition.groups
        group, member = group if isinstance(group, tuple) else (group, None)
        belongs = encode(member, where="the value of the group").decode()
        if not isinstance(group, groups or ()):
            known = "it has no groups" if groups is None else f"its groups are those of {groups.__name__}"
            raise WrongPlace(
                f"actor {definition.name!r} can't supervise in {group!r}: {known}; "
                f"set `groups = {type(group).__name__}` in its class"
            )
        return group.name, belongs

    async def _adopt(self, branch: Branch, child: Child) -> None:
        """It is here from now on; where the others are being ended, it is asked to end at once."""
        self._here.children.put(child)
        self._asked = None
        if self._here.closing:
            self._put({child.id: await self._ask_to_end(branch, child)})

    async def _is_there(
        self, branch: Branch, name: str, id: str, check: bytes
    ) -> Literal["", "over", "another's"]:
        """Whether a run of that id will tell no end: it has, or tells another. What is recorded isn't looked up."""
        run = branch.run
        if id in self._here.children or run.opening(branch.path, branch.n, "spawn", name, check, b"")[1]:
            return ""
        found = await run.services.find(id)
        if found is None:
            return ""
        parent = found.spec.parent
        if parent is None or (parent.run, parent.digest) != (run.id, CHILD):
            return "another's"
        if found.status not in ENDED:
            return ""
        log.warning("run %s: its child %s has ended, so it isn't spawned again", run.id, id)
        return "over"

    def _put(self, changed: dict[str, Child | None]) -> None:
        """Children as they are now; None for one that is left behind. Others may have come or gone meanwhile."""
        family = self._here.children
        for id, child in changed.items():
            if id not in family:
                continue
            if child is None:
                family.leave(id)
            else:
                family.put(child)

    # ------------------------------------------------------------ children go
    async def stops(
        self, id: str, how: Literal["done", "failed"], error: Failure | None
    ) -> tuple[Verdict, object]:
        """What a child that is about to end is told, and what is next for the supervisor."""
        here, child = self._here, self._here.children.get(id)
        if child is None or here.closing or not wanted(child.kind, how):
            return END, None
        now = self._life.now()
        policy = here.definition.restart
        verdict, restarts = decide(policy, child.restarts, now)
        self._put({id: msgspec.structs.replace(child, restarts=restarts)})
        said = f": {error.message}" if error is not None else ""
        if verdict.what == "anew":
            log.warning("run %s: its child %s begins anew%s", self._life.id, id, said)
            await self._restart_others(child, policy)
        elif policy.escalate:
            failure = to_exception(error) if error is not None else RuntimeError("it ended")
            return verdict, Fail(failure)
        elif "finished" in here.definition.own:  # told by itself, so that the verdict waits for no handler
            aside = ChildEnded(run=id, value=msgspec.Raw(b"null"), error=error, aside=True)
            await send(current("a verdict"), self._life.id, aside)
        return verdict, None

    async def _restart_others(self, child: Child, policy: Restart) -> None:
        """Those that begin anew with a child. What is temporary ends with it."""
        if policy.strategy == "one":
            return
        branch, before = current("a restart"), True
        for other in self._here.children:
            if other.id == child.id:
                before = False
            elif not before or policy.strategy == "all":
                await send(branch, other.id, Interruption(Interrupt.NOW, anew=other.kind != "temporary"))

    async def ended(self, mail: ChildEnded, turn: Handling) -> object:
        """A child has ended."""
        here, child = self._here, self._here.children.get(mail.run)
        if child is None:
            return None
        error = mail.error
        why: Literal["done", "failed", "interrupted", "set aside"] = "done" if error is None else "failed"
        if mail.aside:
            why = "set aside"
        elif error is not None and error.type.rpartition(":")[2] in ("RunInterrupted", "RunCancelled"):
            why = "interrupted"
        if here.closing and why == "interrupted":
            here.children.leave(mail.run)
        elif not mail.aside:
            here.children.drop(mail.run)
        if "finished" not in here.definition.own:
            return None
        if not here.closing:
            await turn.settled()
        target, value = self._life.target(child.target, child.module), None
        if error is None and not mail.aside:
            read = decoder(object) if target is None else target.read_result
            value = read(bytes(mail.value))
        known = here.definition.groups
        group = known[child.group] if known is not None and child.group in known.__members__ else child.group
        handle = current("finished").run.services.handle(child.id, target, None)
        raised = None if error is None else to_exception(error)
        member = msgspec.json.decode(child.member)
        said = here.actor.finished(Ended(handle, group, why, value, raised, member))
        return await said if hasattr(said, "send") else said

    # ------------------------------------------------------------ the end of all
    def press(self) -> None:
        """Somebody is in a hurry: children are asked more urgently now."""
        self._hurried, self._asked = True, None
        for child in self._here.children:
            self._here.children.put(msgspec.structs.replace(child, due=0.0))

    async def ask_to_end(self) -> float:
        """Ask the children of the last group, of its last member, to end; when to ask again."""
        here, branch, family = self._here, current("shutting down"), self._here.children
        last, now = family.last(here.definition.ranks), here.at
        if self._asked is not None and self._asked[0] == last and now < self._asked[1]:
            return self._asked[1]  # one of those that were asked has said something: the others have time
        self._hurried, members = False, family.of(last)
        self._put({child.id: await self._ask_to_end(branch, child) for child in members if child.due <= now})
        if self._hurried:
            self.press()
        due = min((each.due for each in family.of(last)), default=now)
        self._asked = last, due
        return due

    async def _ask_to_end(self, branch: Branch, child: Child) -> Child | None:
        """Ask a child to end, more urgently than before; None if it is left behind."""
        here, level = self._here, child.level + 1
        if level <= Interrupt.NOW:
            await send(branch, child.id, Interruption(Interrupt(level)))
        elif level == CANCELLED:
            await cancel(branch, child.id)
        else:
            log.error("run %s: its child %s didn't end, and is left behind", self._life.id, child.id)
            return None
        due = here.at + here.definition.grace.total_seconds()
        return msgspec.structs.replace(child, level=int(level), due=due)


# ---------------------------------------------------------------- the child's side
async def ask_verdict(
    branch: Branch, supervisor: str, how: Literal["done", "failed"], error: Failure | None
) -> Verdict:
    """Ask the supervisor whether this run is to begin anew. One that has ended says no."""
    from ...model.errors import CallerError

    value = msgspec.json.encode({"run": branch.run.id, "how": how, "error": error})
    try:
        verdict: Verdict = await request(
            branch, supervisor, ChildStops.__qualname__, value, decoder(Verdict), None, kind="urgent"
        )
    except CallerError:
        return END
    return verdict


class ChildStops(Envelope):
    """A child is about to end; the answer says whether it is to begin anew."""

    urgent = True
    run: str
    how: Literal["done", "failed"]
    error: Failure | None

    async def carry_out(self, actor: Any, turn: Handling) -> object:
        """Decide."""
        from .nexts import Answer

        verdict, then = await turn.supervisor.stops(self.run, self.how, self.error)
        return Answer(verdict, then=then)


class ChildEnded(Envelope):
    """A child has ended."""

    urgent = True
    run: str
    value: msgspec.Raw
    error: Failure | None
    aside: bool = False  #: it goes on once a person lets it

    async def carry_out(self, actor: Any, turn: Handling) -> object:
        """Tell the actor."""
        return await turn.supervisor.ended(self, turn)


assert ChildEnded.__qualname__ == CHILD_ENDED
