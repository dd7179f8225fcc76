"""What imports may do, beyond the order of the layers, which a linter keeps (see pyproject.toml)."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parent.parent / "src"
PACKAGE = SOURCE / "segue"
MODULES = sorted(PACKAGE.rglob("*.py"))

IO = {"os", "random", "socket", "sqlite3", "threading", "time"}
FORBIDDEN = {
    "core": IO | {"asyncio"},
    "model": IO | {"asyncio"},
    "ports": IO,  # a contract may name asyncio's types
}
OPTIONAL = {"aiohttp", "genai_prices", "httpx2", "openai", "pydantic", "rich", "typing_extensions"}


class Import(NamedTuple):
    """One imported name; `module` is absolute, and `name` is None for a plain `import module`."""

    line: int
    module: str
    name: str | None
    typing_only: bool


def imports(path: Path, source: str | None = None) -> list[Import]:
    """Every import in a file of the package, those inside functions too."""
    package = path.relative_to(SOURCE).parent.parts
    gc.disable()  # Python 3.11's parser loses count where the collector meets code to run
    try:
        tree = ast.parse(path.read_text() if source is None else source)
    finally:
        gc.enable()
    return list(_walk(tree, package, False))


def _walk(node: ast.AST, package: tuple[str, ...], typing_only: bool) -> Iterator[Import]:
    match node:
        case ast.Import(names=names):
            for alias in names:
                yield Import(node.lineno, alias.name, None, typing_only)
        case ast.ImportFrom(module=module, names=names, level=level):
            base = package[: len(package) - level + 1] if level else ()
            absolute = ".".join((*base, *([module] if module else [])))
            for alias in names:
                yield Import(node.lineno, absolute, alias.name, typing_only)
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            for child in node.body:
                yield from _walk(child, package, True)
            for child in node.orelse:
                yield from _walk(child, package, typing_only)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _walk(child, package, typing_only)


def root_imports(found: list[Import]) -> list[Import]:
    """Those that take a name from the package root; `from segue import core` names a package, and may."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return [each for each in found if each.module == "segue" and each.name not in packages]


def stdlib_imports(found: list[Import], forbidden: set[str]) -> list[Import]:
    return [each for each in found if each.module.partition(".")[0] in forbidden]


def named(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", [each for each in MODULES if each.parent != PACKAGE], ids=named)
def test_nothing_inside_imports_the_package_root(path: Path):
    assert root_imports(imports(path)) == []


@pytest.mark.parametrize(
    "path", [each for each in MODULES if each.relative_to(PACKAGE).parts[0] in FORBIDDEN], ids=named
)
def test_the_lower_layers_do_no_io(path: Path):
    found = imports(path)
    assert stdlib_imports(found, FORBIDDEN[path.relative_to(PACKAGE).parts[0]]) == []
    allowed = sys.stdlib_module_names | {"segue", "msgspec"}
    assert [each for each in found if each.module.partition(".")[0] not in allowed] == []


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_typing_extensions_is_for_type_checkers_only(path: Path):
    found = stdlib_imports(imports(path), {"typing_extensions"})
    assert [each for each in found if not each.typing_only] == []


def test_importing_segue_loads_no_optional_package():
    script = f"import segue, sys; print(*sorted({OPTIONAL!r} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


#: What tells a model call from another request, whoever is called.
LIGHT = {"compatible", "declared", "faults", "listening", "masking", "native", "rates", "registry", "wire"}
PROGRAM = """
import asyncio, segue
segue.Engine, segue.generate, segue.ask, segue.Actor, segue.http_client

@segue.step
async def one(x: int) -> int:
    return x + 1

@segue.flow
async def main(x: int) -> int:
    return await one(x)

async def do() -> None:
    async with segue.Engine("memory:") as engine:
        assert await engine.run(main(1)) == 2

asyncio.run(do())
"""


def providers_loaded(script: str) -> set[str]:
    """The modules of providers that a script loads; those of dialects with their package."""
    script += "\nimport sys\nprint(*(n[16:] for n in sys.modules if n.startswith('segue.providers.')))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ended.stdout.split())


def test_a_program_without_a_model_loads_no_provider():
    assert {name for name in providers_loaded(PROGRAM) if "." not in name} == LIGHT


@pytest.mark.parametrize(
    ("provider", "own"),
    [
        ("anthropic", {"anthropic"}),
        ("gemini", {"gemini"}),
        ("openai", {"openai", "batches"}),
        ("openai-responses", {"openai", "batches", "responses"}),
        ("vllm", {"openai"}),
        ("xai", {"openai", "batches", "xai"}),
    ],
)
def test_a_model_loads_its_own_provider_alone(provider: str, own: set[str]):
    script = (
        "from segue.providers import make, resolve\n"
        f"place = resolve('{provider}:m@http://127.0.0.1:1/v1', {{}})\n"
        "make(place, {}, None)"
    )
    loaded = providers_loaded(script)
    assert own <= loaded
    others = {"anthropic", "gemini", "openai", "responses", "xai"} - own
    assert loaded & others == set()


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/v1/chat/completions", {"chat"}),
        ("/v1/responses", {"chat", "responses"}),
        ("/v1/embeddings", {"chat", "embeddings"}),
        ("/v1/messages", {"messages"}),
        ("/v1beta/models/m:generateContent", {"gemini"}),
    ],
)
def test_a_request_loads_its_own_dialect_alone(path: str, own: set[str]):
    script = (
        "from segue.providers.wire import recognise\n"
        f"assert recognise('POST', 'http://127.0.0.1{path}', b'{{}}') is not None"
    )
    dialects = {name.removeprefix("wire.") for name in providers_loaded(script) if name.startswith("wire.")}
    assert dialects & {"chat", "responses", "embeddings", "messages", "gemini"} == own


@pytest.mark.parametrize(
    "source",
    [
        "import segue",
        "from segue import flow",
        "from .. import flow",
        "def f():\n    from .. import flow",
        "try:\n    from .. import flow\nexcept ImportError: pass",
    ],
)
def test_an_import_of_the_root_is_seen(source: str):
    assert len(root_imports(imports(PACKAGE / "core" / "sample.py", source))) == 1


@pytest.mark.parametrize("source", ["from . import entry", "from ..model import run", "from .. import model"])
def test_an_import_of_a_layer_is_no_import_of_the_root(source: str):
    assert root_imports(imports(PACKAGE / "core" / "sample.py", source)) == []


@pytest.mark.parametrize("source", ["import os.path", "from time import monotonic", "import asyncio as a"])
def test_io_is_seen(source: str):
    assert len(stdlib_imports(imports(PACKAGE / "core" / "sample.py", source), FORBIDDEN["core"])) == 1
