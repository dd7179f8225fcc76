"""What a command carries out beside what it is about, since it was ready in the store: its user is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ports.store import Claimed
from ..runtime.worker import Worker


def tell_company(worker: Worker, own: str, between: str, tell: Callable[[str], None]) -> None:
    """Tell, once, of the first run taken up by this process that isn't the command's own.

    Its own are `own`, those whose id goes on with `between` (a run's children, a job's rows), and what was begun since:
    children may have any id.
    """
    began = worker.clock.now()

    def took(claimed: Sequence[Claimed]) -> None:
        for one in claimed:
            head = one.head
            mine = head.id == own or head.id.startswith(own + between) or head.spec.begun >= began
            if not mine and worker.repertoire.meant(head.spec) is not None:
                worker.took = None
                tell(f"run {head.id!r} was ready in this store: it, and what else is, goes on here too")
                return

    worker.took = took
