"""Runs, gone through page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from ...model.run import Head
from ...ports.store import Store


async def each_run(
    store: Store,
    *,
    job: str | None = None,
    parent: str = "",
    status: Sequence[str] = (),
    page: int = 1000,
) -> AsyncIterator[Head]:
    """All runs that are as `Store.newest` says, the newest first."""
    before = 0
    while True:
        heads, before = await store.newest(job=job, parent=parent, status=status, before=before, limit=page)
        if not heads:
            return
        for head in heads:
            yield head
