"""`segue answer` and `segue tell`: words from people to runs."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from ..model.errors import AskClosed, CallerError, InvalidValue, UnknownName
from ..runtime.engine import Engine
from ..runtime.ground.names import unknown_ask
from . import exit
from .answers import Unfit, read
from .place import declare_store, existing
from .screen import note, put_json

WHERE = "in whatever works on this store, or with `segue advance app.py`"
GOES_ON = f"it goes on {WHERE}"


def declare_json(parser: argparse.ArgumentParser) -> None:
    """`--json` of a command that acts."""
    parser.add_argument("--json", action="store_true", help="what was done, as a line of JSON")


def told(args: argparse.Namespace, plain: dict[str, Any], words: str) -> None:
    """Say what was done, for programs or for people."""
    if args.json:
        put_json(plain)
    else:
        note(words)


def declare_answer(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Answer a question; the first answer counts. VALUE is text for a text, y or n for yes or no, one of the\n"
        'choices, or JSON. Of a tool that wants to be called: approve | deny: REASON | edit: {"argument": …}.'
    )
    parser.add_argument("ask", help="as `segue runs --asks` lists it, or a run that asks just one question")
    parser.add_argument("value", nargs="+", help="the answer")
    declare_json(parser)
    declare_store(parser)


async def do_answer(args: argparse.Namespace) -> int:
    text = " ".join(args.value)
    async with Engine(existing(args.store), worker=False) as engine:
        found = await engine.store.get_ask(args.ask)
        if found is None:
            asks = await engine.open_asks(run=args.ask)
            if len(asks) > 1:
                raise UnknownName("ask", args.ask, f"that run asks {', '.join(ask.id for ask in asks)}")
            if not asks:
                raise await _why_not(engine, args.ask)
            found = await engine.store.get_ask(asks[0].id)
            assert found is not None  # it is open
        question, state = found
        if state != "open":
            raise AskClosed(
                question.id, "it was answered already" if state == "answered" else "its run went on or ended"
            )
        schema = msgspec.json.decode(question.schema)
        try:
            value = read(text, schema)
        except Unfit as error:
            raise InvalidValue(
                f"the answer to {question.question!r}", error.expected, error.problem
            ) from None
        await engine.answer(question.id, value)
    told(args, {"ask": question.id, "run": question.run, "value": value}, f"answered; {GOES_ON}")
    return exit.OK


async def _why_not(engine: Engine, name: str) -> CallerError:
    head = await engine.store.get(name)
    if head is None:
        return await unknown_ask(engine.store, name)
    return AskClosed(name, f"the run asks nothing: it is {head.status}")


def declare_tell(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="whom")
    parser.add_argument("type", help="the message's type, as the run's code calls it")
    parser.add_argument("message", help="JSON, or plain text")
    declare_json(parser)
    declare_store(parser)


async def do_tell(args: argparse.Namespace) -> int:
    try:
        msgspec.json.decode(args.message)
        value = args.message.encode()
    except msgspec.DecodeError:
        value = msgspec.json.encode(args.message)
    async with Engine(existing(args.store), worker=False) as engine:
        await engine.head(args.run)
        await engine.tell(args.run, args.type, value)
    told(args, {"run": args.run, "type": args.type, "message": msgspec.Raw(value)}, f"told; {GOES_ON}")
    return exit.OK
