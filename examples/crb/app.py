from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from server import Client, Server

import segue
from segue import Actor, Listen, Restart, state


class Group(IntEnum):  # ended from the last to the first
    SERVER = 1
    REQUESTS = 2
    WORKERS = 3


@dataclass
class Opening: ...


class App(Actor[None]):
    groups = Group
    restart = Restart("one", times=3, within=timedelta(minutes=1))

    def begin(self) -> Opening:
        return Opening()

    @state
    async def open(self, _: Opening) -> Listen:
        server = await segue.spawn(Server(), group=Group.SERVER)
        await segue.spawn(Client(server=server), group=Group.WORKERS)
        return Listen()
