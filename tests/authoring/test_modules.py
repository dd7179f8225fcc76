"""Names of classes in records: the same whether a program is run by its file, imported, or loaded otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from segue.authoring.modules import class_name, class_named

APP = """
import asyncio
import segue

class Odd(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)

@segue.step
async def odd() -> None:
    raise Odd("here")

@segue.step(pool="process")
def odd_elsewhere() -> None:
    raise Odd("elsewhere")

@segue.flow
async def both() -> str:
    told = ""
    for step in (odd, odd_elsewhere):
        try:
            await step()
        except Odd as error:
            told += f"{error} "
    return told + await segue.ask("Go on?")

async def main() -> None:
    async with segue.Engine("sqlite:runs.db") as engine:
        run = await engine.start(both(), id="it")
        async for ask in engine.asks():
            if __name__ != "__main__":
                await ask.answer("yes")
                print(await run)
            break

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_run_of_a_script_goes_on_in_a_program_that_imports_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    for how in (["app.py"], ["-c", "import app, asyncio; asyncio.run(app.main())"]):
        said = subprocess.run(
            [sys.executable, *how], cwd=tmp_path, capture_output=True, text=True, check=True
        )
    assert said.stdout == "here elsewhere yes\n"


def test_a_module_of_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def module(name: str, file: str) -> type[object]:
        made = ModuleType(name)
        made.__file__ = file
        monkeypatch.setitem(sys.modules, name, made)
        cls: type[object] = type("Odd", (Exception,), {"__module__": name})
        made.Odd = cls  # type: ignore[attr-defined]
        return cls

    main = module("__main__", "/x/odd_app.py")
    assert class_name(main) == "odd_app:Odd"
    assert class_named("odd_app:Odd") is main
    module("__main__", "/x/another.py")
    assert class_named("odd_app:Odd") is None
    loaded = module("_segue_odd_app", "/x/odd_app.py")
    assert class_name(loaded) == "odd_app:Odd"
    assert class_named("odd_app:Odd") is loaded
    imported = module("odd_app", "/x/odd_app.py")
    assert class_named("odd_app:Odd") is imported
    assert class_name(ValueError) == "builtins:ValueError"
    assert class_named("builtins:ValueError") is ValueError
