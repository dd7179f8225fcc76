import logging

from web import get

from segue import Actor, Done, fallback, state


class Stubborn(Actor[None]):
    url: str = "https://www.rust-lang.org"

    def begin(self) -> str:
        return self.url

    @state
    async def load(self, url: str) -> Done[None]:
        await get(url)
        return Done()

    @fallback
    def again(self, url: str, error: OSError) -> str:
        logging.error("Can't load a page: %s. Trying again...", error)
        return url
