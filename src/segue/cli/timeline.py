"""`segue show`: what a run did, call by call."""

from __future__ import annotations

import argparse
import re
import textwrap
import time
from typing import Any

import msgspec

from ..authoring.actor.checkpoint import Checkpoint
from ..core import journal
from ..core.budget import owner
from ..core.replay import Place
from ..model.entry import LEFT, Entry
from ..model.errors import Damaged, UnknownName
from ..model.run import ENDED, Head, Spec
from ..ports.store import History, Store
from ..runtime.ground.names import unknown_run
from ..runtime.wake import rebase
from . import budgets, exit
from .place import declare_store, looking
from .runs import as_plain
from .screen import count, duration, error_of, kind_of, note, put_json, short, shown, table, told, visible
from .waits import Waits, given_up
from .waits import as_plain as waits_as_plain

#: Where a turn has no calls yet, so many of those before it are shown, if the past has no more commits than this.
RECENT, SHOWN = 2_000, 20
#: The outcome of a call that has none, and for which the code waits no more.
GIVEN_UP = "… given up"


def declare_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="the run")
    parser.add_argument("--call", default="", metavar="PATH#N", help="one call, whole")
    parser.add_argument(
        "--history",
        action="store_true",
        help="past turns of an actor too, as far as they are kept; what a resumed run did anew, as it was before",
    )
    parser.add_argument("--json", action="store_true", help="JSON lines: the run, then its calls")
    declare_store(parser)


async def do_show(args: argparse.Namespace) -> int:
    async with looking(args) as store:
        head = await store.get(args.run)
        if head is None:
            raise await unknown_run(store, args.run)
        try:
            standing = await rebase.standing_of(store, head.id) if head.spec.kind == "actor" else None
            calls = await _calls_of(store, head, standing)
        except Damaged:
            put_json(as_plain(head)) if args.json else _head(head)
            raise
        past = await store.history(args.run, rows=args.history)
        recent = not args.history and not calls and 0 < past.archived <= RECENT
        if args.history or recent:
            past = await store.history(args.run)
            calls = _but(calls, await past_calls(store, past)) + calls
        found = await budgets.standings(store, budgets.accounts_of([head]))
        waits = Waits(store)
        waits_for = await waits.words(head)
        gone = await given_up(store, head, [call.entry for call in calls])
        plain = as_plain(head) | await waits_as_plain(waits, head)
    if args.call:
        _whole(args.call, calls, plain=args.json)
    elif args.json:
        if past.archived or past.dropped:
            plain["history"] = {"kept": past.archived, "dropped": past.dropped}
        if standing is not None:
            plain |= {"state": standing.state, "turns": standing.turns, "fields": standing.fields}
        put_json({**plain, "budgets": [budgets.as_plain(one) for one in found]} if found else plain)
        for call in calls:
            put_json(_plain(call))
    else:
        _head(head)
        if waits_for:
            print(f"  waits {visible(waits_for)}")
        if standing is not None:
            _standing(head, standing)
        for one in found:
            print(f"budget   of {owner(one.id)}: {budgets.words(one)}")
        _usage(head)
        if past.archived and not args.history and not recent:
            commits = "1 commit" if past.archived == 1 else f"{count(past.archived)} commits"
            are = "is" if past.archived == 1 else "are"
            since = "it was resumed" if standing is None else "its last turn"
            print(f"  {commits} before {since} {are} history: --history lists their calls")
        if past.dropped:
            print(f"  {dropped(past)}")
        _calls(head, calls[-SHOWN:] if recent else calls, gone)
        if recent and len(calls) > SHOWN:
            note(f"{count(len(calls) - SHOWN)} calls of earlier turns: --history lists them")
    return exit.OK


class Call(msgspec.Struct):
    """A recorded call with its times, in seconds since the epoch; `ended` is 0 while it is open.

    Of a turn that is over it isn't known any more when a call began: `began` is when it ended.
    """

    entry: Entry
    began: float
    ended: float

    @property
    def name(self) -> str:
        return f"{self.entry.path}#{self.entry.n}"


async def _calls_of(store: Store, head: Head, standing: Checkpoint | None) -> list[Call]:
    """A run's calls in the order in which they were made, contents in place; of an actor, where it stands."""
    entries = await rebase.entries_of(store, head.id)
    times = {entry.batch: entry.at for entry in entries if not entry.made}
    spec = head.spec
    first = spec.created if standing is None else standing.at  # an actor's journal begins with its turn

    def began(entry: Entry) -> float:
        at = times.get(entry.after - 1, first)
        return (
            at if not entry.made and entry.at < spec.begun else max(at, spec.begun)
        )  # a fork's own: not before it

    calls = [Call(entry, began(entry), 0.0 if entry.made else entry.at) for entry in entries]
    return sorted(calls, key=lambda call: (call.entry.after, _in_order(call.entry.path), call.entry.n))


def _in_order(path: str) -> list[tuple[int, str]]:
    """Paths as people count: `/9` before `/10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


async def past_calls(store: Store, past: History) -> list[Call]:
    """The calls of turns that are over, oldest first, contents in place. When each began isn't known any more."""
    entries = [entry for entry in journal.read(past.rows[: past.archived]) if entry.kind != LEFT]
    digests = journal.blobs_of(entries)
    contents = await store.get_blobs(digests) if digests else {}
    calls: dict[Place, Call] = {}
    out: list[Call] = []
    there = [entry for entry in entries if all(digest in contents for digest in journal.blobs_of([entry]))]
    for entry in journal.load_large(there, contents):  # others were dropped just now
        place = (entry.path, entry.n)
        known = calls.get(place)
        if known is not None and known.entry.made and not entry.made:  # its outcome
            whole = msgspec.structs.replace(
                entry, kind=known.entry.kind, name=known.entry.name, args=known.entry.args
            )
            known.entry, known.began, known.ended = whole, entry.at, entry.at
        else:
            calls[place] = Call(entry, entry.at, 0.0 if entry.made else entry.at)
            out.append(calls[place])
    return out


def _but(calls: list[Call], past: list[Call]) -> list[Call]:
    """Those of the past that a resumed run hasn't taken over."""
    taken = {(call.name, call.entry.kind, call.ended) for call in calls}
    return [call for call in past if (call.name, call.entry.kind, call.ended) not in taken]


def dropped(past: History) -> str:
    """What a person is told of a past that isn't there any more."""
    return f"{count(past.dropped)} commits of its past were dropped, as its history= says"


def tokens_of(entry: Entry) -> int:
    """The tokens of a model call, as its response tells them."""
    if entry.kind not in ("generate", "embed") or entry.value is None:
        return 0
    try:
        body = msgspec.json.decode(entry.value)
        return int(body["usage"]["total_tokens"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return 0


def said(entry: Entry, *, over: bool = False) -> str:
    """A call's outcome in short; of a run that is `over`, none comes any more."""
    if entry.made and over:
        return "… had none when the run ended"
    if entry.made and entry.kind == "step":  # at-most-once: at work, or cut off
        return "… begun, no outcome is known"
    if entry.made:
        until = f" until {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(entry.due))}" if entry.due else ""
        return f"… waits{until}"
    if entry.error is not None:
        return f"✗ {told(entry.error)}"
    return answer_of(entry) if entry.kind == "generate" else shown(entry.value, 200)


def answer_of(entry: Entry) -> str:
    """What a model said, of a response in any known form."""
    try:
        body: Any = msgspec.json.decode(entry.value or b"null")
        message = body["choices"][0]["message"]
        calls = [
            f"{call['function']['name']}({call['function']['arguments']})"
            for call in message.get("tool_calls") or ()
        ]
        return " ".join([message.get("content") or "", *calls]).strip()
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        return shown(entry.value, 200)


# ---------------------------------------------------------------- printing
def _head(head: Head) -> None:
    spec = head.spec
    while_held = head.status == "cancelled" and head.reason
    print(f"{head.id}  {'cancelled while it was held' if while_held else head.status}")
    print(f"  {spec.kind} {spec.target}({short(visible(arguments(spec)), 200)}), version {spec.version}")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(spec.begun))
    print(f"  begun {when}, last change {duration(max(head.updated - spec.begun, 0))} later")
    if spec.origin:
        print(f"  forked from {spec.origin}")
    if head.damage:
        print(f"  {visible(head.damage)}")
    if head.status == "held" or head.reason:
        print(textwrap.indent(visible(head.reason), "  "))
    if head.value is not None:
        print(f"  → {shown(head.value, 200)}")
    if head.error is not None:
        print(f"  ✗ {kind_of(head.error.type)}: {visible(head.error.message)}")
        if head.error.trace:
            print(visible(head.error.trace))


def arguments(spec: Spec) -> str:
    """What a run was given, as a call of it has it: values in order, and by name; of an actor, its first fields."""
    args: list[msgspec.Raw] = []
    try:
        if spec.kind == "actor":
            named = msgspec.json.decode(spec.args, type=dict[str, msgspec.Raw])
        else:
            args, named = msgspec.json.decode(
                spec.args, type=tuple[list[msgspec.Raw], dict[str, msgspec.Raw]]
            )
    except msgspec.DecodeError:  # it is damaged
        return shown(spec.args, 200)
    given = [bytes(value).decode() for value in args]
    return ", ".join([*given, *(f"{name}={bytes(value).decode()}" for name, value in named.items())])


def _standing(head: Head, standing: Checkpoint) -> None:
    where = "" if head.status in ENDED else f"in state {standing.state}" if standing.state else "listening"
    turns = f"{count(standing.turns)} turn{'' if standing.turns == 1 else 's'}"
    actor = f", as {standing.actor}" if standing.actor else ""
    fields = shown(bytes(standing.fields), 500)
    print(f"  {', '.join(part for part in (where, turns) if part)}{actor}; its fields: {fields}")


def _usage(head: Head) -> None:
    for use in head.usage:
        tokens = f"{count(use.input_tokens)} tokens in, {count(use.output_tokens)} out"
        print(f"  {use.model}, {use.lane}: {count(use.calls)} call{'' if use.calls == 1 else 's'}, {tokens}")


def _name(head: Head, entry: Entry) -> str:
    """A call's name; of a model call the model, and the lane where all of the run's went in one."""
    if entry.kind not in ("generate", "embed"):
        return entry.name if entry.name != entry.kind else ""
    try:
        model = str(msgspec.json.decode(entry.args)["model"]).partition("@")[0]
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""
    lanes = {use.lane for use in head.usage if use.model == model}
    return f"{model} ({lanes.pop()})" if len(lanes) == 1 else model


def _calls(head: Head, calls: list[Call], gone: set[Place]) -> None:
    if not calls:
        note("it made no call that is recorded" if head.status in ENDED else "no call is recorded yet")
        return
    print()
    rows, over = [], head.status in ENDED
    for call in calls:
        spent = tokens_of(call.entry)
        rows.append(
            (
                call.name,
                call.entry.kind,
                _name(head, call.entry),
                f"+{duration(max(call.began - head.spec.begun, 0))}",
                duration(call.ended - call.began) if call.ended > call.began else "",
                count(spent) if spent else "",
                GIVEN_UP
                if (call.entry.path, call.entry.n) in gone
                else " ".join(said(call.entry, over=over).split()),
            )
        )
    table(("CALL", "KIND", "NAME", "AT", "TOOK", "TOKENS", "OUTCOME"), rows, right="AT,TOOK,TOKENS")
    total = sum(tokens_of(call.entry) for call in calls)
    if total:
        print(f"{count(len(calls))} call{'' if len(calls) == 1 else 's'}, {count(total)} tokens")


def _plain(call: Call) -> dict[str, Any]:
    entry = call.entry
    plain: dict[str, Any] = {
        "call": call.name,
        "kind": entry.kind,
        "name": entry.name,
        "began": call.began,
        "ended": call.ended or None,
        "args": raw(entry.args),
    }
    if entry.value is not None:
        plain["value"] = raw(entry.value)
    if entry.error is not None:
        plain["error"] = error_of(entry.error)
    if entry.due:
        plain["due"] = entry.due
    return plain


def raw(content: bytes) -> msgspec.Raw:
    """JSON as it stands; nothing as null."""
    return msgspec.Raw(content or b"null")


def _whole(name: str, calls: list[Call], *, plain: bool) -> None:
    found = next((call for call in calls if call.name == name or call.name == f"#{name}"), None)
    if found is None:
        raise UnknownName(
            "call", name, f"the run's calls are {', '.join(call.name for call in calls) or 'none'}"
        )
    if plain:
        put_json(_plain(found))
    else:
        print(msgspec.json.format(msgspec.json.encode(_plain(found)), indent=2).decode())
