"""SIGKILL at random moments while a tree of 50 actors exchanges messages: each is handled once, in order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from segue.stores import open_store
from segue.testing.history import faults

from .tree import NODES, address, recipient

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and kills")
#: Messages, kills, seconds at most between two kills, seconds in all.
QUICK = (10_000, 4, 0.6, 50)
FULL = (100_000, 40, 1.0, 1_500)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("messages", "kills", "pause", "patience"),
    [pytest.param(*QUICK, id="quick"), pytest.param(*FULL, id="full", marks=pytest.mark.timeout(1_800))],
)
async def test_each_message_is_handled_once_in_order(
    tmp_path: Path, messages: int, kills: int, pause: float, patience: int
) -> None:
    path, each = tmp_path / "runs.db", messages // NODES
    words = [f"sqlite:{path}", "3", str(kills), str(pause), "7", str(messages)]
    ended = subprocess.run(
        [sys.executable, HERE / "tree.py", *words],
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    killed, *codes = map(int, ended.stdout.split())
    assert killed > 1, "the tree was done before it could be harmed"
    assert codes == [0, 0, 0], ended.stderr
    store = open_store(f"sqlite:{path}")
    await store.open()
    try:
        heads = await store.runs()
        assert sorted(head.id for head in heads) == sorted(map(address, range(NODES)))
        assert {head.id: head.reason or head.error for head in heads if head.status != "done"} == {}
        assert await store.dead_letters() == []
    finally:
        await store.close()
    sent = {
        address(node): [(address(recipient(node, number)), number) for number in range(each)]
        for node in range(NODES)
    }
    handled = {
        head.id: [
            (address(sender), number)
            for sender, number in msgspec.json.decode(head.value or b"", type=list[tuple[int, int]])
        ]
        for head in heads
    }
    assert faults(sent, handled) == []
