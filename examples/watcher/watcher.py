"""Watches a folder, and says what changed once it has been quiet for a moment: `python watcher.py FOLDER`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import segue


class Changed(segue.Note):
    path: str
    time: int | None  # of its last change; None: it is gone


class Seen(segue.Request[dict[str, int]]):
    """The files that it knows, and their times."""


class Quiet(segue.Note): ...


class Watcher(segue.Actor[None]):
    quiet: timedelta = timedelta(seconds=1)
    seen: dict[str, int] = segue.field(default_factory=dict)
    changed: list[str] = segue.field(default_factory=list)

    @segue.on
    async def note(self, change: Changed) -> None:
        if change.time is None:
            self.seen.pop(change.path, None)
        else:
            self.seen[change.path] = change.time
        if change.path not in self.changed:
            self.changed.append(change.path)
        await self.me.tell(
            Quiet(), after=self.quiet, key="quiet"
        )  # told again within that time, it waits anew

    @segue.on
    async def report(self, _: Quiet) -> None:
        await say(self.changed)
        self.changed = []

    @segue.on
    async def known(self, _: Seen) -> dict[str, int]:
        return self.seen


@segue.step
def say(paths: list[str]) -> None:
    print(f"changed: {' '.join(sorted(paths))}", flush=True)


async def changes(folder: Path, seen: dict[str, int]) -> AsyncIterator[Changed]:
    """What is new, gone or has another time than was seen, for ever."""
    while True:
        files = [path for path in folder.rglob("*") if path.is_file()]
        now = {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}
        for path in sorted(now.keys() | seen.keys()):
            if now.get(path) != seen.get(path):
                yield Changed(path, now.get(path))
        seen = now
        await asyncio.sleep(0.2)


async def main(folder: Path) -> None:
    async with segue.Engine("sqlite:watcher.db") as engine:
        watcher = await engine.start(Watcher(), id=f"watch/{folder.resolve()}")
        seen = await watcher.request(
            Seen()
        )  # so what changed while nobody watched is told too, and nothing twice
        await watcher.feed(changes(folder, seen))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
