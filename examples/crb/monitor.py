from dataclasses import dataclass
from datetime import timedelta

from segue import Actor, Again, state
from web import get


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
        await get(self.url)
        seen.success += 1
        return Again()
