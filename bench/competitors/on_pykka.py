"""Pykka: an actor on a thread."""

from typing import Any

import common
import pykka
from common import Figures, watch


class Counter(pykka.ThreadingActor):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def on_receive(self, message: Any) -> Any:
        if message is None:
            return self.total
        self.total += 1
        return message


async def actor_memory(order: dict[str, Any]) -> Figures:
    n, trips = order["n"], order["n"] // 5
    ref = Counter.start()
    with watch() as one_way:
        for _ in range(n):
            ref.tell(1)
        assert ref.ask(None) == n
    with watch() as round_trip:
        for i in range(trips):
            assert ref.ask(i) == i
    ref.stop()
    return {"one-way": one_way.rate(n), "round": round_trip.rate(trips)}


if __name__ == "__main__":
    common.serve({"actor_memory": actor_memory}, common.versions("pykka"))
