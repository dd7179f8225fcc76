"""`segue run`: one run, live, watched; its questions answered at the prompt."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import logging
import shlex
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..authoring.actor.interruption import Interrupt
from ..authoring.config import as_config
from ..core import codec, forms
from ..core.signature import InputShape, Parameter
from ..model.errors import AuthorError, InvalidValue, UnknownName
from ..model.message import Question
from ..model.run import ENDED, Head, is_over
from ..runtime.engine import Engine
from ..runtime.ground.events import Asked, Emitted, Event, Finished, Recorded, Retrying, Token, Waiting
from ..runtime.ground.names import new_id, unknown_run
from ..runtime.ground.patience import patiently
from ..runtime.handles import Ask, Run
from ..runtime.interruption import Strokes, ask_to_end
from ..runtime.proof import origins, verify
from . import exit
from .answers import expects
from .company import tell_company
from .interruption import interruption
from .place import GONE, at_store, check_models, declare_how, declare_store, how, is_kept
from .prompt import Typist, answer_at_prompt, as_text
from .rows import BadFile, strange_field
from .runs import what
from .screen import duration, error_of, is_terminal, kind_of, note, put_json, shown, told, visible
from .target import definition_of, file_of, load_target
from .waits import Waits

#: What is said at each Ctrl-C to an actor.
LEVELS = {
    Interrupt.QUEUED: "when it has handled its mail; Ctrl-C once more: after the handler at work",
    Interrupt.AFTER_HANDLER: "after the handler at work; Ctrl-C once more: at once",
    Interrupt.NOW: "at once; Ctrl-C once more leaves it as it is",
}
#: Of shorter waits, in seconds, nothing is said.
SHORT = 5.0
#: Seconds after which it is said for whom a run waits that has no time.
QUIET = 2.0
#: Seconds that the replay of an ended run may take.
VERIFY = 5.0


def declare_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("flow", metavar="app.py:flow", help="the flow, step or actor to run")
    parser.add_argument(
        "input",
        nargs="*",
        metavar="INPUT",
        help="its arguments in order, or each as name=value; JSON, or plain text for a str",
    )
    parser.add_argument(
        "--input", dest="file", metavar="FILE", help="read the input from a file; - is standard input"
    )
    parser.add_argument("--id", default="", help="the run's id; the run that is there by it goes on")
    parser.add_argument(
        "--no-wait",
        action="store_true",
        help="make it, print its id and leave it to a worker or `segue advance`",
    )
    parser.add_argument("--json", action="store_true", help="print events as JSON lines; ask nothing")
    declare_how(parser)
    declare_store(parser)


async def do_run(args: argparse.Namespace) -> int:
    is_kept(args)
    flow = load_target(args.flow)
    if args.file:  # before strokes are counted: Ctrl-C ends a read from the terminal
        args.input = [_content(args.file)]
    levels = len(Interrupt) if definition_of(flow).kind == "actor" else 1
    with interruption(levels) as stop, origins.kept():
        async with Engine(args.store, worker=not args.no_wait) as engine:
            check_models(engine, args)
            id = args.id or await _free_id(engine, flow)
            if args.no_wait:
                return await _left(await _start(engine, flow, id, args), args)
            events: asyncio.Queue[Any] = asyncio.Queue()
            tell_company(engine.worker, id, ".", events.put_nowait)
            engine.bus.watch(id, events.put_nowait)  # before it begins, or its first tokens go by unseen
            with told_as_events(id):
                run = await _start(engine, flow, id, args)
                code = await _Watch(engine, run, events, args).until(stop)
        return code


async def _free_id(engine: Engine, flow: Any) -> str:
    """One that no run has."""
    while await engine.store.get(id := new_id(definition_of(flow))) is not None:
        pass
    return id


async def _left(run: Run[Any], args: argparse.Namespace) -> int:
    """It is there; who works on the store carries it out."""
    head = await run.head()
    put_json({"run": run.id, "status": head.status}) if args.json else print(run.id)
    if not is_over(head.status):
        sweep = shlex.join(["segue", "advance", file_of(args.flow), *at_store(args)])
        note(f"it is made; it goes on in whatever works on this store, or with `{sweep}`")
        return exit.WAITING
    return exit.OK if head.status == "done" else exit.FAILED


@contextlib.contextmanager
def told_as_events(run: str) -> Generator[None]:
    """Calls of that run that are tried again are shown each time: the log needn't say so."""

    def of_others(record: logging.LogRecord) -> bool:
        return getattr(record, "run", "") != run

    log = logging.getLogger("segue.retrying")
    log.addFilter(of_others)
    try:
        yield
    finally:
        log.removeFilter(of_others)


async def _start(engine: Engine, flow: Any, id: str, args: argparse.Namespace) -> Run[Any]:
    """The run, new or the one that is there by its id."""
    if args.id and not args.input:
        head = await engine.store.get(args.id)
        if head is not None:
            engine.terms.heed(head, await engine.terms.on_budget(as_config(**how(args)), f"run:{args.id}"))
            return await engine.get(args.id)
        if any(parameter.required for parameter in definition_of(flow).shape.parameters):
            error = await unknown_run(engine.store, args.id)
            raise UnknownName("run", args.id, f"{error.cure}; or give its input to begin it")
    shape = definition_of(flow).shape
    given, named = shape.decode_call(bind_input(shape, args.input))
    return await engine.start(flow(*given, **named), id=id, **how(args))


# ---------------------------------------------------------------- the input
def bind_input(shape: InputShape, words: list[str]) -> bytes:
    """What was typed as one call. Raises `InvalidValue`, which names the argument."""
    takes = shape.parameters
    given = _by_name(takes, words)
    if given:
        return shape.bind_row(given if len(takes) != 1 else given[takes[0].name])
    if len(words) == 1 and len(takes) != 1 and words[0].lstrip().startswith("{"):
        return shape.bind_row(_json(words[0]))  # all arguments by name
    if len(words) > len(takes):
        names = ", ".join(parameter.name for parameter in takes) or "none"
        many = f"{len(takes)} argument" if len(takes) == 1 else f"{len(takes)} arguments"
        raise InvalidValue(f"the input of {shape.name}", names, f"it takes {many}", str(len(words)))
    if len(takes) == 1 and words:
        return shape.bind_row(_value(takes[0], words[0]))
    named = {parameter.name: _value(parameter, word) for parameter, word in zip(takes, words, strict=False)}
    if len(takes) == 1 and takes[0].required:
        raise InvalidValue(
            f"the input of {shape.name}", takes[0].name, "it is missing; give it after the flow"
        )
    return shape.bind_row(named) if len(takes) != 1 else shape.encode_call((), {})


def _by_name(takes: Sequence[Parameter], words: list[str]) -> dict[str, Any]:
    """What was typed as `name=value` words; empty if any of them is none."""
    by_name = {parameter.name: parameter for parameter in takes}
    pairs = [word.partition("=") for word in words]
    strange = [
        word
        for word, (name, equals, _) in zip(words, pairs, strict=True)
        if not equals or name not in by_name
    ]
    if strange and len(strange) < len(words):
        takes_these = ", ".join(by_name)
        raise InvalidValue(
            "the input",
            "all arguments in order, or each as name=value",
            f"{strange[0]!r} names none of {takes_these}",
        )
    if strange:
        return {}
    return {name: _value(by_name[name], value) for name, _, value in pairs}


def _value(parameter: Parameter, word: str) -> Any:
    """A word as what the parameter is: JSON, or the text itself where that fits better."""
    if parameter.type is str:
        return word
    value = _json(word)
    if value is word:
        return word
    read = codec.reader(parameter.type)
    for candidate in (value, word):
        try:
            read(candidate)
        except InvalidValue:
            continue
        if strange := strange_field(parameter, candidate):
            raise InvalidValue(
                f"argument {parameter.name!r}", forms.spell(parameter.type), f"it {strange}", word
            )
        return candidate
    return value


def _json(word: str) -> Any:
    try:
        return msgspec.json.decode(word)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return word


def _content(file: str) -> str:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadFile(file, f"it can't be read: {why}", "give a text or JSON file to --input") from None
    return text.rstrip("\n")


# ---------------------------------------------------------------- watching
def plain(event: Event) -> dict[str, Any]:
    """An event as JSON for programs: values as they are, not as their bytes."""
    fields: dict[str, Any] = {"type": type(event).__name__, **msgspec.structs.asdict(event)}
    if isinstance(event, Recorded | Finished):
        fields["value"] = None if event.value is None else msgspec.Raw(event.value)
        fields["error"] = None if event.error is None else error_of(event.error)
    if isinstance(event, Asked):
        question = msgspec.structs.asdict(event.question)
        fields["question"] = question | {name: msgspec.Raw(question[name]) for name in ("show", "schema")}
    return fields


class _Watch:
    """One run on the screen, until it ends, waits for somebody who isn't here, or is interrupted."""

    def __init__(
        self, engine: Engine, run: Run[Any], events: asyncio.Queue[Any], args: argparse.Namespace
    ) -> None:
        self.engine, self.run, self.events, self.args = engine, run, events, args
        self.kept = is_kept(args)
        self.asks_here = is_terminal(sys.stdin) and is_terminal(sys.stderr) and not args.json
        self.typist = Typist()
        self._midline = False
        self._speaking = ""
        self._waited: set[str] = set()  # what for, as it was told
        self._asked: set[str] = set()  # questions that were shown: what is open is read while they come
        self._until = 0.0  # it was said that it waits so long
        self._since = 0.0  # and since then
        self._quiet = asyncio.Lock()  # held while somebody types

    async def until(self, stop: Strokes) -> int:
        showing = asyncio.ensure_future(self._show())
        asking = asyncio.ensure_future(self._answer() if self.asks_here else self._alone())
        stopped = asyncio.ensure_future(self._stopped(stop))
        tasks: set[asyncio.Future[Any]] = {showing, asking, stopped}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if showing.done():
                showing.result()
                head = await self.engine.wait(self.run.id)
                code = self._finish(head)
                await self._verify(head)
                return code
            if asking.done():
                return await self._leave_open(asking.result())
            self._midline = self._midline or self._quiet.locked()  # a prompt stands there
            self._line_end()
            note(f"parked; it goes on with `{self._again()}`" if self.kept else f"parked; {GONE}")
            return exit.INTERRUPTED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stopped(self, stop: Strokes) -> None:
        """Returns at the first Ctrl-C; of an actor, which is asked to end by each, never."""
        if (await patiently(self.run.head, self.engine.check)).spec.kind == "flow":
            await stop.wait()
            return
        await ask_to_end(self.run, stop, lambda level: self._dim(f"it is asked to end {LEVELS[level]}"))
        await asyncio.get_running_loop().create_future()

    def _segue(self, *words: str) -> str:
        """A command on the same store."""
        return shlex.join(["segue", *words, *at_store(self.args)])

    def _again(self) -> str:
        return self._segue("run", self.args.flow, "--id", self.run.id)

    async def _show(self) -> None:
        """Show what happens until the run ends or is held."""
        for question in await patiently(self._open, self.engine.check):
            self._event(Asked.of(question))
        ending = asyncio.ensure_future(self.engine.wait(self.run.id))
        ending.add_done_callback(self.events.put_nowait)
        try:
            while (event := await self.events.get()) is not ending:
                if not isinstance(event, Finished):  # told before it is durable
                    async with self._quiet:
                        self._event(event)
            head = ending.result()
            self._event(
                Finished(
                    run=head.id, status=head.status, value=head.value, error=head.error, reason=head.reason
                )
            )
        finally:
            ending.cancel()

    def _event(self, event: Event | str) -> None:
        if isinstance(event, str):  # of others
            self._dim(f"· {event}")
            return
        if isinstance(event, Asked):
            if event.question.id in self._asked:
                return
            self._asked.add(event.question.id)
        if self.args.json:
            put_json(plain(event))
            return
        match event:
            case Token(text=text):
                if event.call != self._speaking:
                    self._line_end()
                    self._speaking = event.call
                sys.stderr.write(visible(text))
                sys.stderr.flush()
                self._midline = not text.endswith("\n")
            case Recorded(error=None) if event.kind not in ("generate", "ask"):
                self._dim(f"· {event.name} → {shown(event.value)}")
            case Recorded(error=error) if error is not None:
                self._dim(f"· {event.name} ✗ {told(error)}")
            case Retrying():
                status = f"HTTP {event.status}, " if event.status else ""
                again = f"again in {duration(event.wait)}, after attempt {event.attempt}"
                self._dim(f"· {event.model} ✗ {status}{event.message}; {again}")
            case Waiting():
                if event.what not in self._waited:
                    self._waited.add(event.what)
                    self._dim(f"· {event.name} waits for {event.what}")
            case Emitted(value=value):
                self._dim(f"· {as_text(value)}")
            case _:
                pass

    def _dim(self, text: str) -> None:
        self._line_end()
        note(text, faint=True)

    def _line_end(self) -> None:
        if self._midline:
            sys.stderr.write("\n")
            sys.stderr.flush()
            self._midline = False
        self._speaking = ""

    # ------------------------------------------------------------ questions
    async def _open(self) -> list[Question]:
        return await self.engine.store.asks(run=self.run.id)

    async def _mine(self) -> list[Ask]:
        """Open questions of this run and of those that it started."""
        found = await self.engine.open_asks()
        return [ask for ask in found if ask.run == self.run.id or ask.run.startswith(f"{self.run.id}.")]

    async def _say_what_for(self, asks: list[Ask]) -> None:
        """A run that waits for long says so, once: until when, or for whom, where nobody is asked here."""
        head = await self.run.head()
        if head.status != "parked" or head.reason or self.args.json:
            return
        now = self.engine.clock.now()
        ctrl_c = "Ctrl-C parks it" if head.spec.kind == "flow" else "Ctrl-C asks it to end"
        if head.wake is not None:
            left = head.wake - now
            if left > SHORT and head.wake != self._until:
                self._until = head.wake
                self._dim(f"· it waits {what(head)}, {duration(left)} from now; {ctrl_c}")
        elif not asks and head.updated != self._since and now - head.updated > QUIET:
            self._since = head.updated
            if words := await Waits(self.engine.store).words(head):
                self._dim(f"· it waits {words}; {ctrl_c}")

    async def _look(self) -> list[Ask]:
        asks = await self._mine()
        await self._say_what_for(asks)
        return asks

    async def _answer(self) -> list[Ask]:
        """Put each question as it comes; returns only at the end of the input, with what is open."""
        while True:
            signal = self.engine.ends.next()
            for ask in await patiently(self._look, self.engine.check):
                async with self._quiet:
                    self._line_end()
                    if not await answer_at_prompt(self.engine, ask, self.typist):
                        return await self._mine()
            await signal

    async def _alone(self) -> list[Ask]:
        """Nobody is here to answer: returns once nothing but questions is left."""
        while True:
            signal = self.engine.ends.next()
            if asks := await patiently(self._left, self.engine.check):
                return asks
            await signal

    async def _left(self) -> list[Ask]:
        """What is open, if nothing else is left."""
        asks = await self._look()
        head = await self.run.head()
        if asks and head.status == "parked" and not self.engine.worker.awake:
            ready, _ = await self.engine.worker.backlog()
            if not ready and not await self.engine.store.lanes():
                return asks
        return []

    async def _leave_open(self, asks: list[Ask]) -> int:
        self._line_end()
        if self.args.json:
            return exit.WAITING
        for ask in asks:
            note(f"? {ask.question}" + (f"  (for {ask.to})" if ask.to else ""))
            if ask.show is not None:
                note(as_text(ask.show), faint=True)
            if self.kept:
                note(f"  answer: {self._segue('answer', ask.id, 'VALUE')}   ({expects(ask.schema)})")
        if not self.kept:
            note(f"{self.run.id} waits; {GONE}")
            return exit.WAITING
        sweep = self._segue("advance", file_of(self.args.flow))
        note(f"{self.run.id} waits; then it goes on with `{self._again()}` or `{sweep}`")
        return exit.WAITING

    # ------------------------------------------------------------ the end
    async def _verify(self, head: Head) -> None:
        """Replay the run once, and tell its author at the desk what would hold it one day, or whoever awaits it."""
        if head.status == "done":
            try:
                self.run.result_of(head)
            except InvalidValue as problem:
                note(f"warning: {problem}; whoever awaits the run gets that as an error")
        try:
            async with asyncio.timeout(VERIFY):
                if head.status in ENDED:
                    logging.getLogger("segue.raised").disabled = True  # as what the flow prints
                    with contextlib.redirect_stdout(io.StringIO()):  # what the flow prints was seen
                        await verify.replay_stored(self.engine.worker, self.engine.store, head)
        except AuthorError as difference:
            note(f"warning: replayed from its journal, the run differs. {difference}")
        except TimeoutError:
            note("the run wasn't verified: its code waits outside segue for long", faint=True)

    def _has_model(self, head: Head) -> bool:
        """Whether it didn't fail for want of a model's name."""
        assert head.error is not None  # it failed
        return head.error.type != f"{UnknownName.__module__}:{UnknownName.__name__}" or bool(
            head.spec.config.model
        )

    def _finish(self, head: Head) -> int:
        self._line_end()
        if self.args.json:
            return exit.OK if head.status == "done" else exit.FAILED
        if head.status == "done":
            value = msgspec.json.decode(head.value or b"null")
            text = value if isinstance(value, str) else (head.value or b"null").decode()
            print(visible(text) if is_terminal(sys.stdout) else text, flush=True)
            return exit.OK
        if head.status == "held" or head.status not in ENDED:
            note(f"segue: run {self.run.id!r} is held: {head.reason}")
        elif head.error is not None and kind_of(head.error.type) in ("RunInterrupted", "RunCancelled"):
            what = kind_of(head.error.type).removeprefix("Run").lower()
            again = f"; `{self._segue('resume', self.run.id)}` has it go on" if self.kept else ""
            note(f"segue: run {self.run.id!r} was {what}{again}")
        elif head.error is not None:
            note(f"segue: run {self.run.id!r} failed: {kind_of(head.error.type)}: {head.error.message}")
            if head.error.trace:
                note(head.error.trace, faint=True)
            if not self.kept:
                return exit.FAILED
            resume = self._segue(
                "resume", self.run.id, *(() if self._has_model(head) else ("--model", "NAME"))
            )
            note(
                f"  `{self._segue('show', self.run.id)}` lists its calls, `{resume}` tries the failed one anew"
            )
        else:
            note(f"segue: run {self.run.id!r} was {head.status}")
        return exit.FAILED
