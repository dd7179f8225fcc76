"""A SQLite file that can only be read."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from segue.model.errors import StoreError
from segue.model.run import Spec
from segue.ports.store import NewRun
from segue.stores.sqlite import SqliteStore
from segue.stores.sqlite.reader import Reader
from segue.stores.sqlite.schema import trouble
from segue.stores.sqlite.unwritable import Unwritable
from tests.bound import bound

SPEC = Spec("flow", "greet", b"[]")

#: In a process of its own: what a store says that is only looked at, or that isn't.
LOOK = """
import asyncio, json, sys
from segue.model.errors import StoreError
from segue.model.run import Spec
from segue.ports.store import NewRun
from segue.stores import open_store

async def main(path, look):
    store = open_store("sqlite:" + path, look=look)
    try:
        await store.open()
        said = {"runs": [head.id for head in await store.runs()]}
        try:
            await store.create([NewRun("mine", Spec("flow", "greet", b"[]"))], now=1.0)
        except StoreError as error:
            said["write"] = str(error)
    except StoreError as error:
        said = {"open": str(error)}
    finally:
        await store.close()
    print(json.dumps(said))

asyncio.run(main(sys.argv[1], sys.argv[2] == "look"))
"""


def said_of(path: Path, how: str = "look") -> Any:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOOK, str(path), how],
        capture_output=True,
        text=True,
        preexec_fn=bound,
        timeout=30,
    )
    assert ended.stderr == ""
    return json.loads(ended.stdout)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "theirs"
    folder.mkdir()
    yield folder / "runs.db"
    folder.chmod(0o755)


@pytest.fixture
async def theirs(file: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(file))
    await store.open()
    await store.create([NewRun("a", SPEC)], now=1.0)
    yield store
    await store.close()


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rights are taken away as Linux does it")


@pytest.mark.parametrize("folder", [0o755, 0o555])
async def test_it_can_be_looked_at(file: Path, theirs: SqliteStore, folder: int):
    await theirs.close()
    file.chmod(0o444)
    file.parent.chmod(folder)
    refusal = (
        f"store 'sqlite:{file}': it can't be written; check the owner and mode of the file and its folder"
    )
    assert said_of(file) == {"runs": ["a"], "write": refusal}
    assert said_of(file, "write") == {"open": refusal}
    assert os.listdir(file.parent) == ["runs.db"]  # nothing that its owner couldn't write was made beside it


async def test_a_folder_that_cannot_be_written_will_do(file: Path, theirs: SqliteStore):
    await theirs.close()
    file.parent.chmod(0o555)
    assert said_of(file)["runs"] == ["a"]
    assert "it can't be written" in said_of(file, "write")["open"]


async def test_what_its_owner_writes_meanwhile_is_seen(file: Path, theirs: SqliteStore):
    file.chmod(0o444)
    file.parent.chmod(0o555)
    await theirs.create([NewRun("b", SPEC)], now=2.0)  # in the log, not in the file
    assert said_of(file)["runs"] == ["a", "b"]


async def test_a_log_that_cannot_be_read_is_not_left_out(file: Path, theirs: SqliteStore, tmp_path: Path):
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(file, copy)
    shutil.copy(f"{file}-wal", copy)
    (copy / file.name).chmod(0o444)
    copy.chmod(0o555)
    try:
        assert "what was written last isn't in it but beside it; copy it" in said_of(copy / file.name)["open"]
    finally:
        copy.chmod(0o755)


async def test_one_of_an_older_version_is_refused(file: Path, theirs: SqliteStore):
    await theirs.close()
    cx = sqlite3.connect(file)
    cx.execute("pragma user_version = 3")
    cx.close()
    file.chmod(0o444)
    assert "its tables are of version 3, and to bring them up to" in said_of(file)["open"]


async def test_what_was_read_while_it_was_written_is_read_again(file: Path, theirs: SqliteStore):
    await theirs.close()
    looks: list[int] = []

    def look(cx: sqlite3.Connection) -> int:
        (there,) = cx.execute("select count(*) from blobs").fetchone()
        if not looks:
            owner = sqlite3.connect(file, isolation_level=None)
            owner.execute("insert into blobs values (x'00', x'00')")
            owner.close()
        looks.append(there)
        return int(there)

    reader = Reader(
        str(file), "sqlite:x", patience=1.0, unwritable=Unwritable(str(file), "sqlite:x", busy=1.0)
    )
    try:
        assert await reader.look(look) == 1
    finally:
        await reader.close()
    assert looks == [0, 1]


async def test_a_file_that_is_not_ours_is_refused(file: Path):
    cx = sqlite3.connect(file)
    cx.execute("create table t(x)")
    cx.close()
    file.chmod(0o444)
    assert "it is another program's database" in said_of(file)["open"]
    with pytest.raises(StoreError, match="isn't open"):
        await SqliteStore(str(file), look=True).runs()


async def test_on_a_full_disk_it_can_be_looked_at(
    file: Path, theirs: SqliteStore, monkeypatch: pytest.MonkeyPatch
):
    """SQLite's index has no room there then, so none is made."""
    await theirs.close()
    Path(f"{file}-wal").touch()  # of a process that found no room either
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 30, 1 << 30, 0))
    store = SqliteStore(str(file), look=True)
    await store.open()
    try:
        assert [head.id for head in await store.runs()] == ["a"]
    finally:
        await store.close()
    assert sorted(os.listdir(file.parent)) == ["runs.db", "runs.db-wal"]


def test_an_error_of_a_full_disk_is_called_that(file: Path, monkeypatch: pytest.MonkeyPatch):
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    assert "the disk reports an error" in str(trouble("sqlite:x", str(file), error))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 30, 1 << 30, 0))
    assert "the disk or its quota is full; make room" in str(trouble("sqlite:x", str(file), error))
