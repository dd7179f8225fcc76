"""Lives of the command line. `lives.py WORDS…` reads a line for each: how long it may live, or `-`.

A life is a process forked from this one, which has loaded all there is to load, so that kills strike while the
command works and not while Python starts. It says how each ended: minus the signal, or the exit code.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import aiohttp  # noqa: F401 - loaded now, not in every life

from segue.cli import job, main, progress, tally  # noqa: F401
from segue.providers import openai, registry  # noqa: F401
from segue.runtime.lanes import lane
from segue.stores import sqlite  # noqa: F401
from segue.transports import pooled  # noqa: F401

#: The provider here lists a job at once, so that an orphan is known as one soon.
lane.GRACE = 1.5


def live(words: list[str]) -> None:
    """In the child."""
    code = 70
    try:
        code = main.main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        sys.stderr.flush()
        os._exit(code)


def one(words: list[str], seconds: float | None) -> int:
    """A life and its end."""
    child = os.fork()
    if child == 0:
        live(words)
    if seconds is not None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        ended = one(sys.argv[1:], None if line.strip() == "-" else float(line))
        print(ended, flush=True)
