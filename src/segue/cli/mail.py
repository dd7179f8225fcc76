"""`segue answer` and `segue tell`: words from people to runs."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

import msgspec

from ..authoring.actor import ActorDef
from ..authoring.message import message_name, message_reader
from ..core import forms
from ..model.errors import AskClosed, CallerError, InvalidValue, UnknownName
from ..model.message import Question
from ..model.run import Head
from ..runtime.engine import Engine
from ..runtime.ground.names import meant, unknown_ask
from ..runtime.handles import gone_on, open_question
from ..runtime.wake.rebase import standing_of
from . import exit
from .answers import Unfit, read
from .place import at_store, declare_store, existing, sweep, where
from .screen import note, put_json
from .target import load_message


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
        id: str = args.ask
        if await engine.store.get_ask(id) is None:
            asks = await engine.open_asks(run=id)
            if len(asks) > 1:
                raise UnknownName("ask", id, f"that run asks {', '.join(ask.id for ask in asks)}")
            if not asks:
                raise await _why_not(engine, id)
            id = asks[0].id
        question = await open_question(engine, id)
        await _check_goes_on(engine, question, args)
        schema = msgspec.json.decode(question.schema)
        try:
            value = read(text, schema)
        except Unfit as error:
            raise InvalidValue(
                f"the answer to {question.question!r}", error.expected, error.problem
            ) from None
        await engine.answer(question.id, value)
        then = await _then(engine, question.run, args)
    told(args, {"ask": question.id, "run": question.run, "value": value}, f"answered; {then}")
    return exit.OK


async def _then(engine: Engine, run: str, args: argparse.Namespace) -> str:
    """What a run does with what came for it."""
    head = await engine.head(run)
    if head.status == "held":
        failed = shlex.join(["segue", "runs", "--failed", *at_store(args)])
        return f"it goes on once it is resumed, for it is held: `{failed}` says why"
    return f"it goes on {where(args)}"


async def _why_not(engine: Engine, name: str) -> CallerError:
    head = await engine.store.get(name)
    if head is None:
        return await unknown_ask(engine.store, name)
    if head.status in ("failed", "cancelled"):
        return AskClosed(name, gone_on(head))
    return AskClosed(name, f"the run asks nothing: it is {head.status}")


async def _check_goes_on(engine: Engine, question: Question, args: argparse.Namespace) -> None:
    """Raise `AskClosed` where the run was asked to end, and hasn't been at work since: that closes what it asks now."""
    if any(letter.mail.kind == "cancel" for letter in await engine.store.inbox(question.run, 0)):
        raise AskClosed(
            question.id,
            f"its run was cancelled, and hasn't been at work since: {sweep(args)} ends it, or has it ask what it asks "
            f"then; `segue resume {shlex.quote(question.run)}` has it go on",
        )


def declare_tell(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Send a run a message. TYPE is the name of its class; as app.py:Say, that class and the run's actor are\n"
        "looked at first, and what they don't take is refused here. Without a file it is sent as it stands: what\n"
        "an actor doesn't take becomes a dead letter, which `segue dead` lists."
    )
    parser.add_argument("run", help="whom")
    parser.add_argument(
        "type", metavar="TYPE", help="the message's class: Say, or app.py:Say to have it checked"
    )
    parser.add_argument(
        "message",
        metavar="MESSAGE",
        help='its fields as JSON, such as \'{"text": "hi"}\'; or plain text, of a str',
    )
    declare_json(parser)
    declare_store(parser)


async def do_tell(args: argparse.Namespace) -> int:
    found = load_message(args.type)
    name = args.type if found is None else message_name(found)
    try:
        msgspec.json.decode(args.message)
        value = args.message.encode()
    except msgspec.DecodeError:
        value = msgspec.json.encode(args.message)
    async with Engine(existing(args.store), worker=False) as engine:
        head = await engine.head(args.run)
        if found is not None:
            await _check_taken(engine, head, name)
            _check_fits(found, name, value)
        await engine.tell(args.run, name, value)
        then = await _then(engine, args.run, args)
    told(args, {"run": args.run, "type": name, "message": msgspec.Raw(value)}, f"told; {then}")
    return exit.OK


async def _check_taken(engine: Engine, head: Head, name: str) -> None:
    """Raise `UnknownName` for what a run's actor has no handler for, as far as its class is known here."""
    if head.spec.kind != "actor":
        return
    standing = await standing_of(engine.store, head.id)
    actor = engine.worker.target((standing and standing.actor) or head.spec.target, head.spec.module)
    if not isinstance(actor, ActorDef):
        return
    if name in actor.handlers.messages or actor.handlers.envelope(name) is not None:
        return
    takes = sorted(actor.handlers.messages)
    known = ", ".join(takes) or "no messages"
    raise UnknownName("message", name, f"{meant(name, takes)}run {head.id!r}, of {actor.name}, takes {known}")


def _check_fits(found: type[Any], name: str, value: bytes) -> None:
    """Raise `InvalidValue` for a message that its class doesn't take, or would lose a field of."""
    fields = forms.fields(found)
    names = ", ".join(f"{field.key}: {forms.spell(field.type)}" for field in fields or ())
    takes = f"{name} ({names})" if names else f"{name}, which has no fields: {{}}"
    try:
        message_reader(found)(value)
    except InvalidValue as error:
        raise InvalidValue(error.where, takes, error.problem, error.got) from None
    given = msgspec.json.decode(value)
    known = {each for field in fields or () for each in (field.key, field.name)}
    if fields is not None and isinstance(given, dict) and (strange := given.keys() - known):
        raise InvalidValue(f"the message {name}", takes, f"it has no field {min(strange)!r}", value.decode())
