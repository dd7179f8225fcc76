from datetime import timedelta

from web import get

from segue import Actor, Done, Retry, state


class Routine(Actor[None]):
    url: str = "https://www.rust-lang.org"

    def begin(self) -> str:
        return self.url

    @state(retry=Retry(1_000_000, wait=timedelta(seconds=1)))  # until it succeeds
    async def load(self, url: str) -> Done[None]:
        await get(url)
        return Done()
