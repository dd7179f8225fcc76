from datetime import timedelta
from enum import IntEnum

from server import Client, Server

import segue
from segue import Actor, Restart


class Group(IntEnum):  # ended from the last to the first
    WORKERS = 1
    REQUESTS = 2
    SERVER = 3
    HEALTH_CHECK = 4
    DB_CLEANER = 5
    USER_SESSION = 6  # each user's is a group of its own


class App(Actor[None]):
    groups = Group
    restart = Restart("one", times=3, within=timedelta(minutes=1))

    async def setup(self) -> None:
        server = await segue.spawn(Server(), group=Group.SERVER)
        await segue.spawn(Client(server), group=(Group.USER_SESSION, "ada"))
