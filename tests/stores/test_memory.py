"""The store in memory keeps the contract."""

import pytest

from segue.stores.memory import MemoryStore
from segue.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    async def store(self):
        store = MemoryStore()
        await store.open()
        yield store
        await store.close()
