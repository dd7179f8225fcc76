"""Stores by address."""

import subprocess
import sys

import pytest

from segue.model.errors import UnknownName
from segue.stores import open_store
from segue.stores.memory import MemoryStore
from segue.stores.sqlite import SqliteStore


def test_addresses(tmp_path):
    assert isinstance(open_store("memory:"), MemoryStore)
    store = open_store(f"sqlite:{tmp_path}/a:b.db")
    assert isinstance(store, SqliteStore)
    assert store.address == f"sqlite:{tmp_path}/a:b.db"


@pytest.mark.parametrize("address", ["redis://x", "runs.db", "", "SQLITE:x", "memory", "memory:x"])
def test_an_unknown_scheme_names_the_known(address):
    with pytest.raises(UnknownName) as caught:
        open_store(address)
    assert "memory:" in str(caught.value)
    assert "sqlite:PATH" in str(caught.value)


def test_a_store_is_imported_when_it_is_wanted():
    code = "import sys, segue.stores; print('sqlite3' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
