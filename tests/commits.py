"""Being told of what the runs of a worker commit, before the store is."""

from collections.abc import Callable
from typing import Any

from segue.ports.store import Landed, Turn
from segue.runtime.worker import Worker


def tell(worker: Worker, hook: Callable[[Turn], Any]) -> None:
    """Tell of each turn; a row that is appended alone is one too."""
    store = worker.store

    def commit(turn: Turn, then: Landed) -> Any:
        hook(turn)
        return store.land(turn, then)

    def commit_all(turns: list[Turn]) -> Any:
        for turn in turns:
            hook(turn)
        return store.commit(turns)

    def append(run: str, fence: int, entries: bytes, then: Landed) -> bool:
        hook(Turn(run=run, fence=fence, entries=entries))
        return store.append(run, fence, entries, then)

    vars(worker).update(commit=commit, commit_all=commit_all, append=append)
