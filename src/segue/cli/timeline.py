"""`segue show`: what a run did, call by call."""

from __future__ import annotations

import argparse
import time
from typing import Any

import msgspec

from ..core import journal
from ..core.replay import Place, Replay
from ..model.entry import Entry
from ..model.errors import UnknownName
from ..model.run import Head
from ..ports.store import History, Store
from ..runtime.names import unknown_run
from . import exit
from .place import declare_store, looking
from .runs import as_plain
from .screen import count, duration, error_of, kind_of, note, put_json, shown, table


def declare_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="the run")
    parser.add_argument("--call", default="", metavar="PATH#N", help="one call, whole")
    parser.add_argument(
        "--history", action="store_true", help="an actor's past turns too, as far as they are kept"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines: the run, then its calls")
    declare_store(parser)


async def do_show(args: argparse.Namespace) -> int:
    async with looking(args) as store:
        head = await store.get(args.run)
        if head is None:
            raise await unknown_run(store, args.run)
        calls = await calls_of(store, args.run)
        past = await store.history(args.run, rows=args.history)
        if args.history:
            calls = await past_calls(store, past) + calls
    if args.call:
        _whole(args.call, calls, plain=args.json)
    elif args.json:
        plain = as_plain(head)
        if past.archived or past.dropped:
            plain["history"] = {"kept": past.archived, "dropped": past.dropped}
        put_json(plain)
        for call in calls:
            put_json(_plain(call))
    else:
        _head(head)
        if past.archived and not args.history:
            print(
                f"  {count(past.archived)} commits before its last turn are history: --history lists their calls"
            )
        if past.dropped:
            print(f"  {dropped(past)}")
        _calls(head, calls)
    return exit.OK


class Call(msgspec.Struct):
    """A recorded call with its times, in seconds since the epoch; `ended` is 0 while it is open."""

    entry: Entry
    began: float
    ended: float

    @property
    def name(self) -> str:
        return f"{self.entry.path}#{self.entry.n}"


async def calls_of(store: Store, run: str) -> list[Call]:
    """A run's calls in the order in which they were made, contents in place."""
    loaded = await store.load(run)
    if loaded is None:
        return []
    entries = journal.read(loaded.journal)
    digests = journal.blobs_of(entries)
    contents = await store.get_blobs(digests) if digests else {}
    merged = Replay(journal.load_large(entries, contents), 0.0).calls.values()
    times = {entry.batch: entry.at for entry in merged if not entry.made}
    calls = [
        Call(entry, times.get(entry.after - 1, loaded.head.spec.created), 0.0 if entry.made else entry.at)
        for entry in merged
    ]
    return sorted(calls, key=lambda call: (call.entry.after, call.ended or float("inf")))


async def past_calls(store: Store, past: History) -> list[Call]:
    """The calls of turns that are over, oldest first, contents in place. When each began isn't known any more."""
    entries = journal.read(past.rows[: past.archived])
    digests = journal.blobs_of(entries)
    contents = await store.get_blobs(digests) if digests else {}
    calls: dict[Place, Call] = {}
    out: list[Call] = []
    for entry in journal.load_large(entries, contents):
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


def said(entry: Entry) -> str:
    """A call's outcome in short."""
    if entry.made:
        until = f" until {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(entry.due))}" if entry.due else ""
        return f"… waits{until}"
    if entry.error is not None:
        return f"✗ {kind_of(entry.error.type)}: {entry.error.message}"
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
    print(f"{head.id}  {head.status}")
    print(f"  {spec.kind} {spec.target}, version {spec.version}, input {shown(spec.args, 200)}")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(spec.created))
    print(f"  begun {when}, last change {duration(max(head.updated - spec.created, 0))} later")
    if spec.origin:
        print(f"  forked from {spec.origin}")
    if head.status == "held" or head.reason:
        print(f"  {head.reason}")
    if head.value is not None:
        print(f"  → {shown(head.value, 200)}")
    if head.error is not None:
        print(f"  ✗ {kind_of(head.error.type)}: {head.error.message}")
        if head.error.trace:
            print(head.error.trace)


def _calls(head: Head, calls: list[Call]) -> None:
    if not calls:
        note("no call is recorded yet")
        return
    print()
    rows = []
    for call in calls:
        spent = tokens_of(call.entry)
        rows.append(
            (
                call.name,
                call.entry.kind,
                call.entry.name if call.entry.name != call.entry.kind else "",
                f"+{duration(max(call.began - head.spec.created, 0))}",
                "" if call.entry.made else duration(max(call.ended - call.began, 0)),
                count(spent) if spent else "",
                " ".join(said(call.entry).split()),
            )
        )
    table(("CALL", "KIND", "NAME", "AT", "TOOK", "TOKENS", "OUTCOME"), rows, right="AT,TOOK,TOKENS")
    total = sum(tokens_of(call.entry) for call in calls)
    if total:
        print(f"{count(len(calls))} calls, {count(total)} tokens")


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
