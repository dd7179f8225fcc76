from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from web import get

from segue import Actor, Again, state


@dataclass
class Watching:
    total: int = 0
    success: int = 0


class Monitor(Actor[None]):
    url: str = "https://www.rust-lang.org"

    def begin(self) -> Watching:
        return Watching()

    @state(every=timedelta(seconds=10))
    async def poll(self, seen: Watching) -> Again:
        seen.total += 1
        with suppress(OSError):
            await get(self.url)
            seen.success += 1
        return Again()
