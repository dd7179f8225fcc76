"""`segue dead`: mail that nobody took, and why; sent again, or dropped."""

from __future__ import annotations

import argparse
import time

import msgspec

from ..model.message import DeadLetter
from ..runtime.engine import Engine
from ..runtime.ground.names import unknown_run
from . import exit
from .place import declare_store, existing, from_zero, looking, where
from .screen import duration, note, put_json, short, table


def declare_dead(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List dead letters: messages that no handler took, that could not be read, whose handler failed, that came\n"
        "to a run that had ended, or that a full mailbox dropped."
    )
    parser.add_argument("run", nargs="?", default="", help="only those to this run")
    parser.add_argument(
        "--resend",
        type=from_zero,
        action="append",
        default=[],
        metavar="ID",
        help="send it again; may be given again",
    )
    parser.add_argument(
        "--drop",
        type=from_zero,
        action="append",
        default=[],
        metavar="ID",
        help="forget it; may be given again",
    )
    parser.add_argument("--json", action="store_true", help="JSON lines")
    declare_store(parser)


async def do_dead(args: argparse.Namespace) -> int:
    if args.resend or args.drop:
        async with Engine(existing(args.store), worker=False) as engine:
            for dead in args.resend:
                await engine.resend(dead)
            if args.resend:
                note(f"sent again: {len(args.resend)}; handled {where(args)}")
            if args.drop:
                dropped = await engine.store.drop_dead(args.drop)
                note(f"dropped: {dropped}")
                if dropped < len(set(args.drop)):
                    note("the others were not there; `segue dead` lists those that are")
                    return exit.USAGE
        return exit.OK
    async with looking(args) as store:
        after, any_there = 0, False
        while page := await store.dead_letters(run=args.run, after=after):
            after, any_there = page[-1].id, True
            _show(page, json=args.json)
        if args.run and not any_there and await store.get(args.run) is None:
            raise await unknown_run(store, args.run)
        if not any_there and not args.json:
            note("no dead letters")
    return exit.OK


def _show(letters: list[DeadLetter], *, json: bool) -> None:
    if json:
        for letter in letters:
            put_json(_as_plain(letter))
        return
    now = time.time()
    table(
        ("ID", "RUN", "MESSAGE", "AGE", "WHY", "WHAT"),
        [
            (
                f"{one.id}",
                one.mail.to,
                one.mail.name,
                duration(max(now - one.at, 0)),
                one.reason if one.error is None else f"{one.reason}: {short(one.error.message, 80)}",
                short((one.mail.value or b"").decode("utf-8", "replace")),
            )
            for one in letters
        ],
        right="ID",
    )


def _as_plain(letter: DeadLetter) -> dict[str, object]:
    mail, error = letter.mail, letter.error
    return {
        "id": letter.id,
        "run": mail.to,
        "sender": mail.sender,
        "type": mail.name,
        "message": msgspec.Raw(mail.value or b"null"),
        "reason": letter.reason,
        "error": None if error is None else {"type": error.type, "message": error.message},
        "at": letter.at,
    }
