"""Providers on your own machine: OpenAI's, Anthropic's and Gemini's protocols, batches included, and an account.

```python
async with Simulator(clock=VirtualClock(), batch_time=timedelta(hours=1)) as sim:
    sim.when("capital of France").reply("Paris")
    client = AsyncOpenAI(base_url=sim.base_url, api_key="any")
    ...  # upload, create a batch
    await sim.advance(timedelta(hours=1))
    assert sim.ledger.counts()["batch_paid"] == 1
```

Needs `aiohttp`.
"""

import importlib.util

from segue.model.errors import MissingExtra

if importlib.util.find_spec("aiohttp") is None:
    raise MissingExtra("aiohttp", "simulator")

from .batches import Batch, BatchError, Pace
from .chaos import Chaos
from .clock import SystemClock, VirtualClock
from .command import add_arguments, main, serve
from .faults import Faults
from .ledger import Entry, Ledger
from .processor import Limits
from .replies import Failure, Reply, Rule, Said, ToolCall, ToolCalls
from .server import Simulator

__all__ = [
    "Batch",
    "BatchError",
    "Chaos",
    "Entry",
    "Failure",
    "Faults",
    "Ledger",
    "Limits",
    "Pace",
    "Reply",
    "Rule",
    "Said",
    "Simulator",
    "SystemClock",
    "ToolCall",
    "ToolCalls",
    "VirtualClock",
    "add_arguments",
    "main",
    "serve",
]
