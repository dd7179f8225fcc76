from segue import Actor, Note, field, on


class AddUrl(Note):
    url: str


class DeleteUrl(Note):
    url: str


class Crawler(Actor[None]):
    urls: list[str] = field(default_factory=list)

    @on
    async def add(self, note: AddUrl) -> None:
        self.urls.append(note.url)

    @on
    async def delete(self, note: DeleteUrl) -> None:
        self.urls.remove(note.url)
