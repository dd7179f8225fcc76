from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segue.authoring.flow import TARGETS
from segue.providers.declared import DECLARED
from tests.cli.desk import Desk, Provider


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    modules, targets, declared = set(sys.modules), dict(TARGETS), dict(DECLARED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("SEGUE_STORE", raising=False)
    desk = Desk(tmp_path, capsys)
    yield desk
    desk.close()
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    TARGETS.clear()
    TARGETS.update(targets)
    DECLARED.clear()
    DECLARED.update(declared)


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()
