"""Thespian: its `simpleSystemBase`, where all actors share one thread."""

from typing import Any

import common
from common import Figures, watch
from thespian.actors import Actor, ActorSystem


class Counter(Actor):
    total = 0

    def receiveMessage(self, message: Any, sender: Any) -> None:
        if message == "total":
            self.send(sender, self.total)
        elif isinstance(message, int):
            self.total += 1
            if message >= 0:
                self.send(sender, message)


async def actor_memory(order: dict[str, Any]) -> Figures:
    n, trips = order["n"], order["n"] // 5
    system = ActorSystem("simpleSystemBase")
    ref = system.createActor(Counter)
    with watch() as one_way:
        for _ in range(n):
            system.tell(ref, -1)
        assert system.ask(ref, "total", 5) == n
    with watch() as round_trip:
        for i in range(trips):
            assert system.ask(ref, i, 5) == i
    system.shutdown()
    return {"one-way": one_way.rate(n), "round": round_trip.rate(trips)}


if __name__ == "__main__":
    common.serve({"actor_memory": actor_memory}, common.versions("thespian"))
