"""Watches a folder, and says what changed once it has been quiet for a moment: `python watcher.py FOLDER`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import segue


class Changed(segue.Note):
    path: str


class Quiet(segue.Note): ...


class Watcher(segue.Actor[None]):
    quiet: timedelta = timedelta(seconds=1)
    changed: list[str] = segue.field(default_factory=list)

    @segue.on
    async def note(self, change: Changed) -> None:
        if change.path not in self.changed:
            self.changed.append(change.path)
        await self.me.tell(
            Quiet(), after=self.quiet, key="quiet"
        )  # told again within that time, it waits anew

    @segue.on
    async def report(self, _: Quiet) -> None:
        await say(self.changed)
        self.changed = []


@segue.step
def say(paths: list[str]) -> None:
    print("changed:", *sorted(paths), flush=True)


async def changes(folder: Path) -> AsyncIterator[Changed]:
    """What is new or has another time, for ever."""
    seen: dict[Path, int] = {}
    while True:
        now = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
        for path in now.keys() | seen.keys():
            if now.get(path) != seen.get(path):
                yield Changed(str(path.relative_to(folder)))
        seen = now
        await asyncio.sleep(0.2)


async def main(folder: Path) -> None:
    async with segue.Engine("sqlite:watcher.db") as engine:
        watcher = await engine.start(Watcher(), id=f"watch/{folder.resolve()}")
        await watcher.feed(changes(folder))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
