"""Examples in folders of their own, loaded as they stand, beside whatever else bears the names of their modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "examples"


class Folder:
    """The modules of a folder: `Folder("crb").task.Task`. Python knows them only inside `with folder.known():`."""

    def __init__(self, name: str) -> None:
        self.path = EXAMPLES / name
        self._modules: dict[str, ModuleType] = {}
        names = sorted(file.stem for file in self.path.glob("*.py"))
        with self.known(names):
            for module in names:
                importlib.import_module(module)

    def __getattr__(self, name: str) -> ModuleType:
        try:
            return self._modules[name]
        except KeyError:
            raise AttributeError(name) from None

    @contextmanager
    def known(self, names: list[str] | None = None) -> Iterator[None]:
        """Its modules, under their plain names."""
        names = names or list(self._modules)
        hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
        sys.modules.update(self._modules)
        sys.path.insert(0, str(self.path))
        try:
            yield
        finally:
            sys.path.remove(str(self.path))
            self._modules |= {name: sys.modules.pop(name) for name in names if name in sys.modules}
            sys.modules.update(hidden)
