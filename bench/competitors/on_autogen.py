"""autogen-core: an agent in its SingleThreadedAgentRuntime. One way is a message published to a topic."""

import logging
from dataclasses import dataclass
from typing import Any

import common
from autogen_core import (
    AgentId,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TopicId,
    TypeSubscription,
    message_handler,
)
from common import Figures, watch


@dataclass
class Tick:
    pass


@dataclass
class Ask:
    n: int


@dataclass
class Total:
    pass


class Counter(RoutedAgent):
    def __init__(self) -> None:
        super().__init__("counts")
        self.total = 0

    @message_handler
    async def tick(self, message: Tick, ctx: MessageContext) -> None:
        self.total += 1

    @message_handler
    async def ask(self, message: Ask, ctx: MessageContext) -> int:
        return message.n + 1

    @message_handler
    async def tell_total(self, message: Total, ctx: MessageContext) -> int:
        return self.total


async def actor_memory(order: dict[str, Any]) -> Figures:
    n, trips = order["n"], order["n"] // 5
    logging.disable(logging.CRITICAL)
    runtime = SingleThreadedAgentRuntime()
    await Counter.register(runtime, "counter", Counter)
    await runtime.add_subscription(TypeSubscription("ticks", "counter"))
    runtime.start()
    counter, topic = AgentId("counter", "one"), TopicId("ticks", "one")
    with watch() as one_way:
        for _ in range(n):
            await runtime.publish_message(Tick(), topic)
        await runtime.stop_when_idle()
    runtime.start()
    assert await runtime.send_message(Total(), counter) == n
    with watch() as round_trip:
        for i in range(trips):
            assert await runtime.send_message(Ask(i), counter) == i + 1
    await runtime.stop()
    return {"one-way": one_way.rate(n), "round": round_trip.rate(trips)}


if __name__ == "__main__":
    common.serve({"actor_memory": actor_memory}, common.versions("autogen-core"))
