"""What a function's docstring says, in Google's, NumPy's or Sphinx's style."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any

_GOOGLE = re.compile(
    r"^(?:Args|Arguments|Parameters|Params):[ \t]*\n((?:[ \t]+.*\n?|[ \t]*\n)*)", re.MULTILINE
)
_NUMPY = re.compile(r"^Parameters[ \t]*\n-{3,}[ \t]*\n(.*?)(?=^\S[^\n]*\n-{3,}|\Z)", re.MULTILINE | re.DOTALL)
_SPHINX = re.compile(r"^:param(?: [^:\n]*?)? \*{0,2}(\w+):[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
_GOOGLE_ITEM = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)")
_NUMPY_ITEM = re.compile(r"\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$")


def read(fn: Any) -> tuple[str, dict[str, str]]:
    """(the first paragraph, what is said of each parameter)"""
    while isinstance(fn, functools.partial):
        fn = fn.func
    # A callable object without words of its own is described by its __call__.
    own = inspect.getdoc(fn) if inspect.isroutine(fn) or isinstance(fn, type) else fn.__doc__
    text = inspect.cleandoc(own or inspect.getdoc(getattr(fn, "__call__", None)) or "")  # noqa: B004
    about: dict[str, str] = {}
    if found := _GOOGLE.search(text):
        about.update(_google(found[1]))
    if found := _NUMPY.search(text):
        about.update(_numpy(found[1]))
    about.update({name: _line(words) for name, words in _SPHINX.findall(text)})
    first = _SPHINX.split(_NUMPY.split(_GOOGLE.split(text, maxsplit=1)[0], maxsplit=1)[0], maxsplit=1)[0]
    return _line(re.split(r"\n\s*\n", first.strip(), maxsplit=1)[0]), {k: v for k, v in about.items() if v}


def _google(section: str) -> dict[str, str]:
    made: dict[str, str] = {}
    lines = [line for line in section.splitlines() if line.strip()]
    margin = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    name = ""
    for line in lines:
        item = _GOOGLE_ITEM.match(line[margin:]) if not line[margin:].startswith((" ", "\t")) else None
        if item:
            name = item[1]
            made[name] = item[2].strip()
        elif name:
            made[name] = f"{made[name]} {line.strip()}".strip()
    return made


def _numpy(section: str) -> dict[str, str]:
    made: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        item = _NUMPY_ITEM.match(line)
        if item and not line.startswith((" ", "\t")):
            names = [name.strip() for name in item[1].split(",")]
        elif line.strip():
            for name in names:
                made[name] = f"{made.get(name, '')} {line.strip()}".strip()
    return made


def _line(text: str) -> str:
    return " ".join(text.split())
