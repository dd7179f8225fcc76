"""The soak beside Inspect AI and batchling: its checker, and segue's side of it at a small size."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "bench" / "soak"


@pytest.fixture(scope="module")
def soak() -> Iterator[dict[str, Any]]:
    """Its modules, by name; gone again afterwards."""
    before, known = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]
    try:
        yield {name: importlib.import_module(name) for name in ("talk", "scenarios", "checker", "run")}
    finally:
        sys.path[:] = before
        for name in ("talk", "scenarios", "checker", "run", "environments"):
            if name not in known:
                sys.modules.pop(name, None)


def paid(sha: str, status: int = 200, kind: str = "batch") -> dict[str, Any]:
    return {"sha256": sha, "status": status, "kind": kind}


def test_the_checker_tells_how_each_conversation_ended(soak: dict[str, Any]) -> None:
    last = soak["talk"].last
    told = [
        {"number": 0, "said": last(0)},
        {"number": 1, "said": last(2)},
        {"number": 2, "error": "ValueError: no"},
        {"number": 3, "error": "ValueError: no"},
        {"number": 3, "said": last(3)},  # tried again by itself, or by another life
    ]
    judge = soak["checker"].judge
    entries = [
        paid("a"),
        paid("a"),
        paid("a"),
        paid("b"),
        paid("b", 0),
        paid("c", 500),
        paid("d", 200, "live"),
    ]
    found = judge(6, told, entries, 4, ended=False)
    assert (found.right, found.wrong, found.failed, found.hung, found.lost) == (2, 1, 1, 2, 0)
    assert (found.paid, found.again, found.jobs) == (4, 2, 4)
    assert found.errors == (("ValueError: no", 1),)
    assert found.words(1) == "2 right, 1 wrong, 1 failed, 2 hung; 2 paid again; 4 jobs, 0 s"
    assert "; 2 paid again, as they must; " in found.words(2)
    found = judge(6, told, [], 0, ended=True)
    assert (found.hung, found.lost) == (0, 2)
    found.restarts = 2
    assert "2 lost (it crashed; started again 2×); " in found.words(0)
    assert judge(1, told[:1], [], 3, ended=True).words(0) == "all right; 3 jobs, 0 s"


def test_the_checker_reads_what_a_killed_process_left(soak: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "sim" / "batches").mkdir(parents=True)
    for name in ("a.json", "a.jsonl", "b.json"):
        (tmp_path / "sim" / "batches" / name).touch()
    (tmp_path / "sim" / "ledger.jsonl").write_text('{"sha256":"a","status":200,"kind":"batch"}\n{"sha')
    told = soak["talk"].Told(str(tmp_path))
    told.end(0, soak["talk"].last(0))
    told.end(1, None, ValueError("no"))
    found = soak["checker"].judge_folder(3, tmp_path, ended=True)
    assert (found.right, found.failed, found.lost, found.paid, found.jobs) == (1, 1, 1, 1, 2)


def test_every_scenario_is_in_the_table(soak: dict[str, Any]) -> None:
    text = (FOLDER / "README.md").read_text()
    for scenario in soak["scenarios"].scenarios(25):
        assert f"| {scenario.what} |" in text


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
@pytest.mark.parametrize("name", ["unknown", "killed", "killed-submitting"])
@pytest.mark.timeout(200)
async def test_segue_gets_through(
    soak: dict[str, Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = soak["run"]
    monkeypatch.setattr(run, "TEMP", tmp_path)
    [scenario] = [each for each in soak["scenarios"].scenarios(4) if each.name == name]
    found = await asyncio.wait_for(run.soak("segue", scenario, 8, 4), 180)
    assert (found.right, found.errors) == (8, ())
    if scenario.spoils is not None:
        assert found.again <= scenario.spoils
