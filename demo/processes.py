"""Processes that the demo starts, and ends: whatever happens, none is left behind."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

SEGUE = str(Path(sys.executable).with_name("segue"))


class Processes:
    """What was started in a `with` block; ended at its end."""

    def __init__(self, directory: Path, logs: Path) -> None:
        self.directory, self.logs = directory, logs
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
            if process.poll() is None:
                process.kill()
                process.wait()

    def segue(self, words: Sequence[str]) -> "subprocess.Popen[bytes]":
        """A `segue` command on this terminal."""
        return self._started([SEGUE, *words])

    def server(self, words: Sequence[str], name: str, *, ready: float = 60) -> str:
        """A server that prints its URL first; the URL. What else it says goes to a log."""
        with (self.logs / f"{name}.log").open("wb") as log:
            process = self._started(words, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL)
        late = threading.Timer(ready, process.kill)
        late.start()
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        late.cancel()
        if not url.startswith("http"):
            raise SystemExit(f"{name} didn't start; {self.logs / name}.log says why")
        return url

    def background(self, words: Sequence[str], name: str) -> "subprocess.Popen[bytes]":
        """A process that nobody listens to."""
        with (self.logs / f"{name}.log").open("wb") as log:
            return self._started(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _started(self, words: Sequence[str], **how: object) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(list(words), cwd=self.directory, env=environment, **how)  # type: ignore[call-overload]
        self._running.append(process)
        return process
