"""What both spikes need: a server of one's own, values to store, a clock for the figures."""

from __future__ import annotations

import asyncio
import atexit
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "src"))  # the contract, installed or not

from segue.model.message import Mail
from segue.model.run import CallRef, Spec
from segue.ports.store import NewRun, Turn

BODY = random.Random(1).randbytes(600)  #: a journal row of usual size; nothing can shrink it


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """A real server in a directory of its own, to be killed and started again."""

    def __init__(self, command: Callable[[Path, int], list[str]]) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="segue-spike-"))
        self.port = free_port()
        self.command = command(self.dir, self.port)
        self.start()
        atexit.register(self.remove)  # also where a check fails

    def start(self) -> None:
        """Start, or start again on the same data; returns when the port answers."""
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.dir
        )
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"{self.command[0]} doesn't answer")

    def kill(self) -> None:
        """SIGKILL: what a crash of the process leaves. (Not a crash of the machine: its page cache survives.)"""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def remove(self) -> None:
        """Kill it and drop its data."""
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def rss(self) -> int:
        """Resident bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        return 0

    @property
    def disk(self) -> int:
        """Bytes of all files."""
        return sum(p.stat().st_size for p in self.dir.rglob("*") if p.is_file())


def new_run(id: str, *, job: str = "", parent: CallRef | None = None) -> NewRun:
    """A run of usual size."""
    spec = Spec("flow", "triage", b'[["a ticket of usual length, some ninety bytes of it, to be sorted"],{}]')
    return NewRun(id, Spec(**{**_fields(spec), "job": job, "parent": parent}))


def _fields(spec: Spec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


def tell(to: str, sender: str, number: int) -> Mail:
    """A message."""
    return Mail(to, sender, number, "tell", "hello", b'"hi"')


def crashing_worker(script: str, port: int, run: str) -> None:
    """Have another process claim `run`, commit with mail in its outbox, and die by SIGKILL before any relay."""
    done = subprocess.run([sys.executable, script, "--crash", str(port), run], timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL, done.returncode


def turn(run: str, fence: int, **more: object) -> Turn:
    """A turn, for short."""
    return Turn(run=run, fence=fence, **more)  # type: ignore[arg-type]


async def rate(label: str, work: Sequence[Callable[[], Awaitable[object]]], at_once: int) -> float:
    """Do all `work`, `at_once` at a time; print and give how many a second."""
    left = iter(work)

    async def one() -> None:
        for item in left:
            await item()

    began = time.perf_counter()
    await asyncio.gather(*[one() for _ in range(at_once)])
    took = time.perf_counter() - began
    print(f"  {label}: {len(work) / took:,.0f}/s", flush=True)
    return len(work) / took


def passed(what: str) -> None:
    """Say that a check held."""
    print(f"  ok: {what}", flush=True)
