"""`segue`: which command, which file holds it, and what an error or an interruption looks like."""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import io
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple, NoReturn, TextIO

from ..model.errors import SegueError
from . import exit
from .examples import EXAMPLES
from .screen import note
from .wrapping import Wrapped

TOUR = """\
a tour:
  segue run app.py:triage "My invoice is wrong"         live: tokens as they come, questions at the prompt
  segue plan app.py:triage tickets.jsonl                 what it would cost, live and in batch
  segue map app.py:triage tickets.jsonl --batch -o out.jsonl
                                                         the same flow over many rows, at half the price;
                                                         kill it at any time: the same command goes on
  segue map app.py:triage tickets.jsonl --batch --no-wait && segue advance app.py
                                                         no process need stay: one sweep from cron or CI
  segue runs --asks                                      who waits for whom; also --job, --failed
  segue answer triage-1f0c:3 yes                         an answer; its run goes on
  segue show triage-1f0c                                 every call, in order, with times and tokens
  segue receipt --job triage:tickets.jsonl               tokens and money, and what it would have cost live

Runs live in a file, sqlite:segue.db here unless --store or $SEGUE_STORE says otherwise.
Exit codes: 0 done, 1 something failed, 2 wrong usage or input, 3 something still waits, 130 interrupted.
`segue COMMAND --help` tells more.
"""


class Command(NamedTuple):
    """Where a command is: `declare_NAME` and `do_NAME` of that module."""

    home: str
    about: str


COMMANDS = {
    "run": Command("run", "run a flow live on one input, and watch it"),
    "map": Command("job", "run a flow over the rows of a file; the same command goes on where it ended"),
    "advance": Command("job", "one sweep: run what is ready, submit, poll, deliver; then leave"),
    "plan": Command("plan", "what a map would send and cost, live and in batch"),
    "worker": Command("worker", "run what is ready, until interrupted"),
    "runs": Command("runs", "list runs and questions; failures grouped by cause"),
    "diagram": Command("diagram", "the graph of an actor as Mermaid text; of a run, where it stands"),
    "show": Command("timeline", "what a run did, call by call"),
    "answer": Command("mail", "answer a question"),
    "tell": Command("mail", "send a run a message"),
    "dead": Command("dead", "messages that nobody took, and why; sent again, or dropped"),
    "resume": Command("revival", "let held or failed runs go on"),
    "cancel": Command("revival", "ask runs to end"),
    "fork": Command("revival", "a new run that shares another's history up to a call"),
    "replay": Command("replay", "run a run's history against today's code; nothing is called"),
    "check": Command(
        "check", "rehearse today's code with every run that is stored: who goes on, who would be held"
    ),
    "compare": Command(
        "compare", "two jobs, or a job and its labels: agreement, cost, time, and where they differ"
    ),
    "remove": Command("removal", "remove runs and jobs that are over, with all that is stored of them"),
    "forget": Command("forgetting", "drop the answers that are kept for --reuse"),
    "receipt": Command("receipt", "tokens and money, and what it would have cost live"),
    "export": Command("journal", "a run's journal as JSON lines"),
    "simulate": Command(
        "simulator",
        "providers on this machine: the protocols of OpenAI, Anthropic and Gemini, batches included",
    ),
}


#: After so many new objects, and younger generations, the garbage collector looks.
SELDOM = 5000, 20, 50


#: Options that may have a value or none, and what they are with one.
SHORT = {"--batch=": "--batch-within=", "--reuse=": "--reuse-within="}


def written_out(words: list[str]) -> list[str]:
    """With `--batch=6h` and `--reuse=7d` as argparse knows them: an option that may have a value would take the next
    word for it."""
    for short, long in SHORT.items():
        words = [long + word.removeprefix(short) if word.startswith(short) else word for word in words]
    return words


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    open_streams()
    words = written_out(list(sys.argv[1:] if argv is None else argv))
    try:
        return _main(words)  # whose command is loaded first, which takes a moment
    except KeyboardInterrupt:
        print("interrupted; what was done is kept", file=sys.stderr)
        return exit.INTERRUPTED


def open_streams() -> None:
    """Have all three standard streams, also where whoever started the command closed some: `segue worker <&- &`.

    What a terminal or a pipe of another encoding has no sign for is spelt out, as Python does on standard error.
    """
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115  # for as long as the process lives
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _main(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    try:
        parser = make_parser(words)
    except SegueError as error:  # what the command needs isn't installed
        print(f"segue: {error}", file=sys.stderr)
        return exit.USAGE
    if words and words[0] not in COMMANDS and words[0] not in ("-h", "--help", "--version"):
        parser.error(unknown(words[0]))
    args, left = parser.parse_known_args(words)
    if left:
        _command(parser, args.command).error(left_over(left[0], words, _command(parser, args.command)))
    if args.command is None:
        parser.print_help()
        return exit.USAGE
    if args.traceback:
        show_raised()
    try:
        with warnings_shown(), collecting_seldom(), ctrl_c_ends():
            code: int = asyncio.run(find(args.command, "do")(args))
        return code
    except BrokenPipeError:  # `segue runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit.FAILED
    except OSError as error:  # such as a full disk
        if args.traceback:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"segue: {where}{error.strerror or error}", file=sys.stderr)
        # What is left in its buffer can't be written either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit.USAGE
    except SegueError as error:
        if args.traceback:
            raise
        print(f"segue: {error}", file=sys.stderr)
        return exit.USAGE


@contextmanager
def ctrl_c_ends() -> Generator[None]:
    """Have Ctrl-C end what a command is at, also where that keeps the loop to itself, as an import or a read does.

    asyncio's own way is to cancel the command, which is heard when the loop has its turn. Runs at work count strokes
    themselves meanwhile.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def make_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; only the command that is asked for is loaded."""
    parser = _Parser(
        prog="segue",
        description="Write an LLM workflow once; run it live, or over many rows in batch, durable in both.",
        epilog=TOUR,
        formatter_class=Wrapped,
    )
    parser.add_argument("--version", action="version", version=f"segue {sys.modules['segue'].__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    chosen = next((word for word in words if not word.startswith("-")), "")
    for name, command in COMMANDS.items():
        about = f"{command.about[0].upper()}{command.about[1:]}."
        sub = commands.add_parser(name, help=command.about, description=about)
        if name == chosen:
            sub.formatter_class = Wrapped
            sub.epilog = f"examples:\n{EXAMPLES[name]}"
            sub.add_argument("--traceback", action="store_true", help="show where an error came from")
            find(name, "declare")(sub)
    return parser


def unknown(word: str) -> str:
    """What to say of a first word that is no command."""
    from difflib import get_close_matches

    if word.startswith("-"):
        near = get_close_matches(word, ("--version", "--help"), 1)
        meant = f"did you mean {near[0]}? " if near else ""
        return f"{word} stands where a command is expected; {meant}options come after it"
    near = get_close_matches(word, COMMANDS, 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no command {word!r}; {meant}there are {', '.join(COMMANDS)}"


def left_over(word: str, words: list[str], command: argparse.ArgumentParser) -> str:
    """What to say of a word that a command has no use for."""
    from difflib import get_close_matches

    if not word.startswith("-"):
        before = words[words.index(word) - 1] if word in words else ""
        meant = f"; did you mean {before}={word}?" if before in ("--batch", "--reuse") else ""
        return f"there is one word too many, {word!r}{meant}"
    options = [
        option for action in command._actions for option in action.option_strings
    ]  # argparse tells no other way
    near = get_close_matches(word.partition("=")[0], options, 1)
    return f"there is no option {word}{f'; did you mean {near[0]}?' if near else ''}"


def _command(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    found: argparse.ArgumentParser = commands.choices[name]
    return found


@contextmanager
def warnings_shown() -> Generator[None]:
    """What segue logs, on standard error, and calls that nobody awaits."""
    log, handler = logging.getLogger("segue"), _Warnings(logging.WARNING)
    log.addHandler(handler)
    before = warnings.showwarning
    warnings.showwarning = _unawaited_shown(before)
    try:
        yield
    finally:
        warnings.showwarning = before
        log.removeHandler(handler)


def _unawaited_shown(other: Callable[..., None]) -> Callable[..., None]:
    """Show each such call once, by the line that made it; Python names what was at work when it was found."""
    told: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = str(message)
        if "never awaited" not in text or file is not None:
            other(message, category, filename, lineno, file, line)
        elif text not in told:
            told.add(text)
            made = _MADE.search(text)
            if made is not None:
                name, file_name, row, function, source = made.groups()
                place = f"{file_name.removeprefix(os.getcwd() + os.sep)}:{row}, in {function}"
                text = f"{name}() was never awaited, so it did nothing\n  {place}{source}"
            note(f"warning: {text.rstrip()}")

    return show


#: A coroutine that was never awaited, in Python's words, with where it was made.
_MADE = re.compile(
    r"coroutine '(.+)' was never awaited\nCoroutine created at .*\n  File \"(.+)\", line (\d+), in (.+)((?:\n.*)?)"
)


class _Warnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        cause = "" if error is None else f": {type(error).__name__}: {error}"
        note(f"{record.levelname.lower()}: {record.getMessage()}{cause}")


@contextmanager
def collecting_seldom() -> Generator[None]:
    """Have the garbage collector look less often: it goes over thousands of runs that are in memory for a while, and a
    run that is over leaves it nothing."""
    before = gc.get_threshold()
    gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def show_raised() -> None:
    """Write the tracebacks of flows that fail to standard error, whole; a run's record keeps the author's lines."""
    raised = logging.getLogger("segue.raised")
    raised.setLevel(logging.DEBUG)
    raised.propagate = raised.disabled = False
    raised.handlers = [logging.StreamHandler()]


def find(command: str, what: str) -> Any:
    """`declare_NAME` or `do_NAME` of a command."""
    module = importlib.import_module(f".{COMMANDS[command].home}", __package__)
    return getattr(module, f"{what}_{command}")


class _Parser(argparse.ArgumentParser):
    """Says where more is to be learnt."""

    def error(self, message: str) -> NoReturn:
        if "arguments are required" in message:
            self.print_usage(sys.stderr)
        for short, long in SHORT.items():  # as it was typed, most probably
            message = message.replace(
                f"argument {long.removesuffix('=')}:", f"argument {short.removesuffix('=')}:"
            )
        self.exit(exit.USAGE, f"{self.prog}: {message}\n`{self.prog} --help` tells more.\n")
