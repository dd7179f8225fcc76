"""`app.py:flow`: the file, and what is in it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..authoring.actor import ActorDef
from ..authoring.flow import FlowDef, Target, definition, prefer, target_of
from ..authoring.message import Note, Request
from ..model.errors import AuthorError, UnknownName
from .rows import BadFile

NAMED = "flows are named as in `app.py:triage`"
_OWN = f"{Path(__file__).parent.parent}/"
#: Where Python's own modules are, and those that were installed.
_PYTHON = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class BrokenModule(AuthorError):
    """A file of flows can't be imported."""

    def __init__(self, path: str, error: BaseException) -> None:
        self.path, self.error = path, error
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [
            one
            for one in frames
            if not one.filename.startswith((_OWN, "<")) and "importlib" not in one.filename
        ]
        own = [one for one in theirs if not one.filename.startswith(_PYTHON)] or theirs
        if isinstance(error, SyntaxError):
            own = []  # it names its place itself
        at = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
        cure = "--traceback shows more"
        if isinstance(error, ImportError) and "no known parent package" in str(error):
            place, name = _in_package(path)
            cure = f"it is part of a package, so name it as a module, `{name}`, in {place}"
        super().__init__(f"{path} can't be imported: {type(error).__name__}: {error}{at}; {cure}")


def _in_package(path: str) -> tuple[Path, str]:
    """The folder from which a file of a package is imported, and its name there."""
    file = Path(path).resolve()
    place = file.parent.parent
    while (place / "__init__.py").is_file():
        place = place.parent
    return place, ".".join(file.relative_to(place).with_suffix("").parts)


def load_flow(target: str) -> Any:
    """The flow function of `app.py:flow` or `package.module:flow`; of `app.py` if it has but one."""
    path, name = _split(target)
    module = load_module(path)
    flows = flows_of(module)
    if not name:
        if len(flows) == 1:
            return next(iter(flows.values()))
        raise UnknownName("flow", target if not flows else "", _choice(path, flows))
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(definition(found), FlowDef):
        return found
    if found is None:
        raise UnknownName("flow", name, _choice(path, flows, name))
    raise UnknownName("flow", name, f"{name} of {path} {_no_flow(found)}")


def _no_flow(found: Any) -> str:
    """What it is, of what is no flow."""
    if isinstance(definition(found), ActorDef):
        return "is an actor, which this command doesn't take"
    if target_of(found) is not None:
        return "is a step, which this command doesn't take: name the flow that calls it"
    if callable(found) and not isinstance(found, type):
        return "isn't a flow: decorate it with @segue.flow, above any other decorator"
    return f"is {'a class' if isinstance(found, type) else 'a value'}: decorate an async function with @segue.flow"


def load_target(target: str) -> Any:
    """As `load_flow`, but also a step or an actor's class."""
    path, name = _split(target)
    module = load_module(path)
    found = _named(module, name)
    if target_of(found) is not None:
        return found
    actors, flows = actors_of(module), flows_of(module)
    if not name and len(actors) == 1 and not flows:
        return next(iter(actors.values()))
    if not name and actors:
        raise UnknownName("flow or actor", "", _choice(path, targets_of(module)))
    return load_flow(target)


def load_actor(target: str) -> Any:
    """The actor's class of `app.py:Review`, or of a file that has but one."""
    path, name = _split(target)
    module = load_module(path)
    actors = actors_of(module)
    if not name and len(actors) == 1:
        return next(iter(actors.values()))
    found = _named(module, name)
    if not name and actors:
        raise UnknownName("actor", "", _choice(path, actors))
    if not isinstance(definition(found), ActorDef):
        none = "none: derive a class from segue.Actor"
        raise UnknownName("actor", target, f"{path} has {', '.join(actors) or none}")
    return found


def load_message(word: str) -> type[Any] | None:
    """The class of a message that is named with its file, as `app.py:Say`; None for a name alone."""
    path, name = _split(word)
    if not name:
        return None
    module = load_module(path)
    found = _named(module, name)
    if isinstance(found, type) and target_of(found) is None:
        return found
    messages = {
        each: value
        for each, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Note | Request)
        and value.__module__ == module.__name__
    }
    if not messages:
        raise UnknownName(
            "message", name, f"{path} has none: derive a class from segue.Note or segue.Request"
        )
    raise UnknownName("message", name, _choice(path, messages, name))


def _named(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split(".") if name else ():
        found = getattr(found, part, None)
    return found


def actors_of(module: ModuleType) -> dict[str, Any]:
    """The actors that a module itself defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(definition(value), ActorDef) and value.__module__ == module.__name__
    }


def definition_of(fn: Any) -> Target:
    """What a run of it is of."""
    target = target_of(fn)
    assert target is not None  # it was loaded as such
    return target


def load_module(path: str) -> ModuleType:
    """Import a file, or a module by its dotted name. What a file imports from beside it is found."""
    file = Path(path)
    is_file = path.endswith((".py", ".")) or "/" in path
    if is_file and file.is_dir():
        raise BadFile(path, "it is a folder", NAMED)
    if file.suffix not in ("", ".py") and file.is_file():  # such as rows in place of the code
        raise BadFile(path, "it isn't a Python file", NAMED)
    if is_file and not file.is_file():
        raise UnknownName("file", path, NAMED)
    try:
        module = _load_file(file.resolve()) if is_file else _load_name(path)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and not is_file and error.name == path.partition(".")[0]:
            raise UnknownName(
                "module", path, "give a file, as in `app.py:triage`, or a module's name"
            ) from None
        raise BrokenModule(path, error) from error
    _prefer(module)
    return module


def load_modules(words: Sequence[str]) -> list[ModuleType]:
    """Several files, or modules. Where two define one name, the module of a run tells which it is of.

    Of `app.py:triage` the whole file, in which that must be: what it starts may stand there too. Raises `BadSignature`
    for an actor that can't work.
    """
    modules = [load_module(_split(word)[0]) for word in words]
    for module, (path, name) in zip(modules, map(_split, words), strict=True):
        if name and target_of(_named(module, name)) is None:
            raise UnknownName("flow or actor", name, _choice(path, targets_of(module), name))
    _prefer(*modules)
    for module in modules:
        for actor in actors_of(module).values():
            definition(actor).check()
    return modules


def load_named(words: Sequence[str]) -> set[str]:
    """As `load_modules`; of what the runs are that are meant, where each word names it; else nothing."""
    modules = load_modules(words)
    names = [_split(word)[1] for word in words]
    if not all(names):
        return set()
    return {definition_of(_named(module, name)).name for module, name in zip(modules, names, strict=True)}


def targets_of(module: ModuleType) -> dict[str, Any]:
    """Flows and actors."""
    return {**flows_of(module), **actors_of(module)}


def _prefer(*modules: ModuleType) -> None:
    """Have the names of flows and actors mean what these modules have."""
    named: dict[str, dict[int, Any]] = {}
    for module in modules:
        for value in vars(module).values():
            target = definition(value)
            if isinstance(target, FlowDef | ActorDef):
                named.setdefault(target.name, {})[id(target)] = target
    for name, meant in named.items():
        prefer(name, list(meant.values()))


def _load_file(path: Path) -> ModuleType:
    _search(path.parent)
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None or name in sys.stdlib_module_names:
        name = f"_segue_{name}"  # a file may be called as it likes
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} isn't a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_name(name: str) -> ModuleType:
    _search(Path.cwd())
    return importlib.import_module(name)


def _search(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def flows_of(module: ModuleType) -> dict[str, Any]:
    """The flows that a module's names stand for."""
    return {name: value for name, value in vars(module).items() if isinstance(definition(value), FlowDef)}


def file_here(module: str) -> str:
    """The file of a module, from this folder; empty where it isn't there."""
    path = f"{module.replace('.', '/')}.py"
    return path if Path(path).is_file() else ""


def file_of(target: str) -> str:
    """`app.py` of `app.py:triage`: what commands that take files are given."""
    return _split(target)[0]


def _split(target: str) -> tuple[str, str]:
    path, colon, name = target.partition(":") if ".py:" in target else target.rpartition(":")
    return (path, name) if colon and path else (target, "")


def _choice(path: str, flows: dict[str, Any], name: str = "") -> str:
    if not flows:
        return f"{path} has none: decorate an async function with @segue.flow"
    if not name:
        return f"name one of {path}: {', '.join(f'`{path}:{each}`' for each in flows)}"
    near = difflib.get_close_matches(name, flows, 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}{path} has {', '.join(flows)}"
