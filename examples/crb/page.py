from dataclasses import dataclass

from web import get

from segue import Actor, Done, state


@dataclass
class GetPage:
    url: str


@dataclass
class Print:
    text: str


class Page(Actor[None]):
    url: str = "https://www.rust-lang.org"

    def begin(self) -> GetPage:
        return GetPage(self.url)

    @state
    async def get_page(self, state: GetPage) -> Print:
        return Print(await get(state.url))

    @state
    def print(self, state: Print) -> Done[None]:
        print(state.text)
        return Done()
