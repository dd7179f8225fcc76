"""What the tests of the command line share: a directory with flows, and the command in it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from segue.cli.main import main
from segue.testing.simulator import Simulator

APP = """
import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import segue


@segue.step
async def double(n: int) -> int:
    if n == 7:
        raise ValueError("seven is right out")
    return n * 2


@segue.flow
async def twice(n: int) -> int:
    return await double(await double(n))


@segue.flow
async def pair(left: str, right: int = 3) -> str:
    return f"{left}:{right}"


@segue.flow
async def sure(text: str) -> str:
    ok = await segue.ask(f"Send {text!r}?", show={"draft": text}, returns=bool, to="boss")
    return "sent" if ok else "kept"


@segue.flow
async def triage(ticket: str) -> str:
    topic = await segue.generate(f"Classify: {ticket}", returns=Literal["bug", "billing"])
    return await segue.generate(f"Answer {ticket!r} as {topic}")


@segue.step
async def slow(n: int) -> int:
    with Path("done.txt").open("a") as log:
        log.write(f"{n}\\n")
    await asyncio.sleep(0.05)
    return n


@segue.flow
async def steps(n: int) -> int:
    return sum([await slow(n * 100 + i) for i in range(5)])
"""


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[Any]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Desk:
    """A directory to work in; commands run in this process, or in one of their own."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys
        self._open: list[subprocess.Popen[str]] = []
        (path / "app.py").write_text(APP)

    def write(self, name: str, text: str) -> str:
        (self.path / name).write_text(text)
        return name

    def change(self, old: str, new: str) -> None:
        """Change the flows' code; the next command loads it anew."""
        app = self.path / "app.py"
        source = app.read_text()
        assert old in source
        app.write_text(source.replace(old, new))
        for name in ("app", "_segue_app"):
            sys.modules.pop(name, None)

    def rows(self, name: str = "out.jsonl") -> list[Any]:
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    def segue(self, *words: str) -> Said:
        """Run a command here."""
        self._capsys.readouterr()
        code = main(words)
        said = self._capsys.readouterr()
        return Said(code, said.out, said.err)

    def start(self, *words: str, stdin: Any = subprocess.DEVNULL, **how: Any) -> subprocess.Popen[str]:
        """Run a command in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "segue", *words],
            cwd=self.path,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            **how,
        )
        self._open.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], stdin: str | None = None) -> Said:
        out, err = process.communicate(stdin, timeout=30)
        return Said(process.returncode, out, err)

    def close(self) -> None:
        for process in self._open:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()


class Provider:
    """A simulator on a thread, so that commands may have this one."""

    def __init__(self, batch_time: timedelta = timedelta(seconds=0.05)) -> None:
        self.simulator = Simulator(batch_time=batch_time)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self.simulator.start())
        self.model = f"openai:test@{self.simulator.base_url}"

    def _do(self, coro: Any) -> None:
        asyncio.run_coroutine_threadsafe(coro, self._loop).result(10)

    def close(self) -> None:
        self._do(self.simulator.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
