"""Which workers of this machine are gone, so that nobody waits for their leases to lapse.

A worker's name says where it runs: machine and boot, process, and when that began. One that can't be judged
from here, such as one of another machine, counts as alive; its lease lapses in time.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from functools import cache
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

_retired: set[str] = set()


def new_name() -> str:
    """A name for a worker of this process."""
    return f"{_machine()}-{os.getpid()}-{_begun(os.getpid()) or 0}-{uuid4().hex[:8]}"


def retire(worker: str) -> None:
    """That worker of this process works no more."""
    _retired.add(worker)


def is_gone(worker: str) -> bool:
    """Whether that worker is retired, or its process ran on this machine and doesn't any more."""
    if worker in _retired:
        return True
    parts = worker.split("-")
    if len(parts) != 4 or parts[0] != _machine() or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return False
    process, begun = int(parts[1]), int(parts[2])
    if sys.platform == "win32":  # there, signal 0 isn't a question
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it's somebody else's, and there
        pass
    return bool(begun) and _begun(process) not in (begun, None)


def _begun(process: int) -> int | None:
    """When a process began, in ticks since boot, 0 if it is dead. None where that can't be read: this system doesn't
    tell, the process is another user's and hidden, or no file can be opened now."""
    try:
        after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return 0 if after_name[0] in "ZX" else int(after_name[19])
    except (OSError, ValueError, IndexError):
        return None


@cache
def _machine() -> str:
    """This machine, since it was switched on; containers count as machines of their own."""
    known = [platform.node()]
    with contextlib.suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        known.append(os.readlink("/proc/self/ns/pid"))
    return blake2b("\0".join(known).encode(), digest_size=6).hexdigest()
