import asyncio
from dataclasses import dataclass

from web import get

from segue import Actor, Done, field, state

URLS = [
    "https://www.rust-lang.org",
    "https://crates.example",
    "https://crateful.substack.com",
    "https://knowledge.dev",
]


@dataclass
class Loading: ...


class ConcurrentTask(Actor[list[int]]):
    urls: list[str] = field(default_factory=lambda: URLS)

    def begin(self) -> Loading:
        return Loading()

    @state
    async def load(self, _: Loading) -> Done[list[int]]:
        return Done([len(page) for page in await asyncio.gather(*map(get, self.urls))])
