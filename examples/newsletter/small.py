"""The newsletter on the small model of the demo, which needs no key: `make newsletter` has all that it takes.

The model has 135 million parameters: its articles are short, and often wrong. The newsletter is made all the same.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent


@contextlib.contextmanager
def model(threads: int = os.cpu_count() or 1) -> Iterator[str]:
    """The demo's model in a process of its own; how segue names it."""
    program = [sys.executable, HERE.parents[1] / "demo" / "model.py", str(threads), "--chat"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            if not (url := server.stdout.readline().strip()):
                raise SystemExit("the model didn't start; `make newsletter` installs it")
            yield f"openai:small@{url}"
        finally:
            server.terminate()


def main(*words: str) -> int:
    """`small.py [INPUT] [OPTIONS OF segue run]`"""
    if not words or words[0].startswith("-"):
        words = ('{"number": 1, "like": "python"}', *words)
    with model() as name:
        command = [sys.executable, "-m", "segue", "run", f"{HERE / 'newsletter.py'}:Newsletter", *words]
        left = HERE / ".data"
        left.mkdir(exist_ok=True)
        return subprocess.run([*command, "--model", name], cwd=left, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
