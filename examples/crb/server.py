from dataclasses import dataclass

from segue import Actor, Listen, Request, Response, Run, field, on, state


class GetId(Request[int]): ...


class Server(Actor[None]):
    slab: list[str] = field(default_factory=list)

    @on
    async def reserve(self, _: GetId) -> int:
        self.slab.append("record")
        return len(self.slab)


@dataclass
class Configure: ...


class Client(Actor[None]):
    server: Run[None]

    def begin(self) -> Configure:
        return Configure()

    @state
    async def configure(self, _: Configure) -> Listen:
        await self.server.request(GetId()).forward()
        return Listen()

    @on
    async def reserved(self, id: Response[GetId]) -> None:
        print("Reserved id:", id.value)
