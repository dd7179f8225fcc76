"""Ray: an actor in a process of its own, on this machine. Its CPU time isn't counted, only the caller's."""

import os
from typing import Any

import common
import ray
from common import Figures, watch


@ray.remote
class Counter:
    def __init__(self) -> None:
        self.total = 0

    def tick(self) -> None:
        self.total += 1

    def ask(self, n: int) -> int:
        return n + 1

    def tell_total(self) -> int:
        return self.total


async def actor_memory(order: dict[str, Any]) -> Figures:
    n, trips = order["n"], order["n"] // 5
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    counter = Counter.remote()
    assert ray.get(counter.ask.remote(1)) == 2
    with watch() as one_way:
        for _ in range(n):
            counter.tick.remote()
        assert ray.get(counter.tell_total.remote()) == n
    with watch() as round_trip:
        for i in range(trips):
            assert ray.get(counter.ask.remote(i)) == i + 1
    ray.shutdown()  # its processes too
    return {"one-way": one_way.rate(n), "round": round_trip.rate(trips)}


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    common.serve({"actor_memory": actor_memory}, common.versions("ray"))
