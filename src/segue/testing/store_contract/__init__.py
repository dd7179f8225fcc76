"""What every store promises, as tests. A store's author subclasses `StoreContract`::

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self):
            store = MyStore(...)
            await store.open()
            yield store
            await store.close()

It needs pytest and pytest-asyncio. Each test gets an empty, open store; none waits for real time.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from .answers import AnswersContract
from .budgets import BudgetsContract
from .claims import ClaimsContract
from .hints import HintsContract
from .jobs import JobsContract
from .large import LargeContract
from .lines import LinesContract
from .mail import MailContract
from .past import PastContract
from .ports import PortsContract
from .promotion import PromotionContract
from .questions import QuestionsContract
from .removal import RemovalContract
from .runs import RunsContract
from .turns import TurnsContract
from .untaken import UntakenContract


@pytest.mark.asyncio
class StoreContract(
    RunsContract,
    ClaimsContract,
    TurnsContract,
    MailContract,
    UntakenContract,
    PortsContract,
    QuestionsContract,
    JobsContract,
    LinesContract,
    PromotionContract,
    AnswersContract,
    BudgetsContract,
    PastContract,
    LargeContract,
    RemovalContract,
    HintsContract,
):
    """Subclass it with a fixture `store`."""


__all__: Sequence[str] = ("StoreContract",)
