from segue import Actor, Done, state
from web import get


class Task(Actor[None]):
    url: str = "https://www.rust-lang.org"

    def begin(self) -> str:
        return self.url

    @state
    async def load(self, url: str) -> Done[None]:
        await get(url)
        return Done()
