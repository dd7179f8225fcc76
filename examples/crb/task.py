from web import get

from segue import Actor, Done, state


class Task(Actor[None]):
    url: str = "https://www.rust-lang.org"

    def begin(self) -> str:
        return self.url

    @state
    async def load(self, url: str) -> Done[None]:
        await get(url)
        return Done()
