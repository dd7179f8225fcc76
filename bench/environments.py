"""Environments of peers: each has its own, made from pinned requirements when it is first needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ENVS = Path(__file__).resolve().parent / ".envs"


def environment(name: str, requirements: Path, base: str = sys.executable) -> Path:
    """The Python of an environment, made of another if it isn't there or its requirements have changed."""
    root, wanted = ENVS / name, requirements.read_text()
    python, stamp = root / "bin/python", root / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making an environment for {name}", file=sys.stderr)
    shutil.rmtree(root, ignore_errors=True)
    uv = Path(sys.executable).with_name("uv")
    found = str(uv) if uv.exists() else shutil.which("uv")
    env = os.environ | {"UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy"}
    if found:
        make = [[found, "-q", "venv", "--python", base, root]]
        make += [[found, "-q", "pip", "install", "--python", python, "-r", requirements]]
    else:
        make = [[base, "-m", "venv", root]]
        make += [[python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", requirements]]
    for command in make:
        subprocess.run([str(part) for part in command], check=True, env=env)
    stamp.write_text(wanted)
    return python
