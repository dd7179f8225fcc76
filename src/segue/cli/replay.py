"""`segue replay`: a run's history through today's code."""

from __future__ import annotations

import argparse
import asyncio
import bdb
import dis
import os
import pdb
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ..authoring.context import Act, Branch, BranchTask, Wait, Work
from ..model.entry import Entry
from ..model.errors import AuthorError, UnknownName
from ..model.run import ENDED, Head
from ..ports.store import History
from ..runtime.engine import Engine
from ..runtime.proof import verify
from ..runtime.wake.executor import Executor
from ..runtime.wake.rebase import entries_of
from . import exit
from .parity import against
from .place import declare_store, to_look_at
from .screen import count, note, put_json, shown
from .target import load_modules
from .timeline import dropped, said


def declare_replay(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run a run's history through today's code. Nothing is called, paid or written: recorded calls return what\n"
        "they returned, and the first one that differs is shown. --pdb stops at the flow's first line and there;\n"
        "`call` goes on to the next recorded call. --against builds the run's model requests for the other mode too,\n"
        "and shows the first byte that differs."
    )
    parser.add_argument("file", metavar="app.py", help="what defines the flow")
    parser.add_argument("run", help="the run")
    parser.add_argument(
        "--pdb", action="store_true", help="step through it: the flow's first line, and a difference"
    )
    parser.add_argument(
        "--against", choices=("live", "batch"), help="compare its model requests with those of that mode"
    )
    parser.add_argument("--json", action="store_true", help="what came of it, as JSON")
    declare_store(parser)


async def do_replay(args: argparse.Namespace) -> int:
    load_modules([args.file])
    async with Engine(to_look_at(args), worker=False) as engine:
        head = await engine.head(args.run)
        entries = await entries_of(engine.store, args.run)
        target = engine.worker.target(head.spec.target, head.spec.module)
        if target is None:
            raise UnknownName(
                "flow", head.spec.target, f"{args.file} doesn't define it; rename it back, or give its file"
            )
        if args.against:
            return await against(engine, head, args)
        debugger = _Debugger() if args.pdb else None
        if debugger is not None:
            debugger.stop_in(target.fn)
        try:
            look = debugger.look if debugger is not None else None
            watch = debugger.watch if debugger is not None else None
            await verify.replay_stored(engine.worker, engine.store, head, look=look, watch=watch)
        except AuthorError as difference:
            return _differs(args, difference, told=debugger is not None and debugger.told)
        finally:
            sys.settrace(None)
        past = await engine.store.history(args.run, rows=False)
    return _same(args, head, len(entries), past)


def _differs(args: argparse.Namespace, difference: Exception, *, told: bool) -> int:
    if args.json:
        put_json({"run": args.run, "same": False, "difference": str(difference)})
    elif not told:
        note(f"it differs: {difference}")
    return exit.FAILED


def _same(args: argparse.Namespace, head: Head, calls: int, past: History) -> int:
    if args.json:
        put_json({"run": args.run, "same": True, "calls": calls, "status": head.status})
        return exit.OK
    stands = (
        f"and ends as it did: {head.status}"
        if head.status in ENDED
        else f"up to where it stands: {head.status}"
    )
    note(f"today's code makes the same {count(calls)} {'call' if calls == 1 else 'calls'} {stands}")
    if past.archived or past.dropped:
        note(f"that is its last turn; {count(past.archived + past.dropped)} commits before it are history")
    if past.dropped:
        note(dropped(past))
    if head.status == "done":
        print(shown(head.value, 10_000))
    return exit.OK


# ---------------------------------------------------------------- the debugger
class _Debugger(pdb.Pdb):
    """Stops at a flow's first line, at the first difference and, where `call` is said, at the next recorded call."""

    def __init__(self) -> None:
        super().__init__(skip=["segue", "segue.*", "asyncio", "asyncio.*"])
        self.prompt = "(segue) "
        self._standing: list[tuple[FrameType, int]] = []
        self.told = False
        self._to_call = False
        self._first = ""

    def stop_in(self, fn: Any) -> None:
        """Stop where that function begins."""
        lines = [line for _, line in dis.findlinestarts(fn.__code__)]
        body = next((line for line in lines if line != lines[0]), lines[0])
        self.reset()
        self.botframe = sys._getframe()  # nothing stops but breakpoints
        self.set_break(fn.__code__.co_filename, body, temporary=True)
        self._first = str(bdb.Breakpoint.next - 1)
        self.set_continue()
        sys.settrace(self.trace_dispatch)

    def set_quit(self) -> None:
        sys.settrace(None)
        sys.stdout.flush()
        os._exit(exit.OK)  # nothing was written, so there is nothing to tidy up

    def do_clear(self, arg: str) -> bool | None:
        """Nothing is said of the breakpoint that nobody set."""
        if arg == self._first:
            self._first = ""
            self.clear_bpbynumber(int(arg))
            return None
        return super().do_clear(arg)

    def do_call(self, arg: str) -> bool | None:
        """call

        Go on to the next recorded call, and show what came of it.
        """
        self._to_call = True
        return self.do_continue(arg)

    def watch(
        self, run: Executor, branch: Branch, request: Work | Wait | Act, recorded: Entry | None
    ) -> None:
        """Stop at a call that the code makes, if that was asked for."""
        frames = frames_of(run, branch.path) if self._to_call else []
        if not frames:
            return
        self._to_call = False
        sys.settrace(None)
        name = "" if request.name == request.kind else f" {request.name}"
        came = said(recorded) if recorded is not None else "nothing is recorded"
        self.message(f"{branch.path}#{branch.n} {request.kind}{name}: {came}")
        self._standing = [(frame, frame.f_lineno) for frame in frames]
        self.botframe = sys._getframe()
        self.interaction(frames[-1], None)
        self._standing = []
        if self.stopframe is not self.botframe:  # not to go on, but line by line
            frames[-1].f_trace = self.trace_dispatch
            sys.settrace(self.trace_dispatch)

    def look(self, difference: Exception, run: Executor) -> None:
        """Stop at a difference, the code still standing there."""
        sys.settrace(None)
        self.told = True
        note(f"it differs: {difference}")
        frames = frames_of(run, getattr(difference, "path", ""))
        if frames:
            self._standing = [(frame, frame.f_lineno) for frame in frames]
            self.reset()
            self.botframe = sys._getframe()
            self.interaction(frames[-1], None)
            self._standing = []
            sys.settrace(None)

    def get_stack(self, f: Any, t: Any) -> tuple[list[tuple[FrameType, int]], int]:
        if self._standing:
            return list(self._standing), len(self._standing) - 1
        return super().get_stack(f, t)


def frames_of(run: Executor, path: str) -> list[FrameType]:
    """Where a branch of a run stands in its author's code, outermost first."""
    task = asyncio.current_task()
    if task in run.tasks:  # the difference is a call that it makes right now
        found: list[FrameType] = []
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_name != "_run_once":
            found.append(frame)
            frame = frame.f_back
        return [each for each in reversed(found) if _is_authors(each)]
    stands = run.root
    for each in run.tasks:
        if (
            isinstance(each, BranchTask)
            and not each.done()
            and each.branch is not None
            and each.branch.path == path
        ):
            stands = each
    return [] if stands is None else [each for each in _awaiting(stands.get_coro()) if _is_authors(each)]


def _awaiting(coro: Any) -> Iterator[FrameType]:
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        if frame is not None:
            yield frame
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)


_OURS = str(Path(__file__).parent.parent)
_ASYNCIO = str(Path(asyncio.__file__).parent)


def _is_authors(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith((_OURS, _ASYNCIO))
