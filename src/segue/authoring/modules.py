"""Modules as records name them: alike, whether a program is run by its file, imported, or loaded by the CLI."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType


def module_of(module: str | None, file: str) -> str:
    """A module's name, the same however its program is run: a script's is that of its file."""
    name = module or ""
    if name == "__main__" or name.startswith(_LOADED):
        return os.path.splitext(os.path.basename(file))[0] if file else name
    return name


def class_name(cls: type[object]) -> str:
    """`module:qualname`, by which `class_named` finds it in another process too."""
    return f"{_own_name(sys.modules.get(cls.__module__), cls.__module__)}:{cls.__qualname__}"


def class_named(name: str) -> object:
    """What is loaded here by that name, if it is; also where its module has another name here."""
    module, _, qualname = name.partition(":")
    for place in _places(module):
        found: object = place
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
    return None


def _places(name: str) -> Iterator[ModuleType]:
    for alias in ("__main__", name, f"{_LOADED[0]}{name}"):
        module = sys.modules.get(alias)
        if module is not None and (alias == name or _own_name(module, alias) == name):
            yield module


def _own_name(module: ModuleType | None, name: str) -> str:
    return module_of(name, getattr(module, "__file__", None) or "")


#: What the names begin with of modules that the command line, or a process for steps, loaded from a file.
_LOADED = ("_segue_", "__segue_main__")
