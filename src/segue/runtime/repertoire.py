"""What this process knows how to run: flows, steps and actors, by the names that runs have for them."""

from __future__ import annotations

from typing import Any

from ..authoring.flow import TARGETS, Ambiguous, is_meant, target_named
from ..model.run import Spec


class Repertoire:
    """What was registered with one worker, and all else that is imported here."""

    def __init__(self) -> None:
        self._registered: dict[str, Any] = {}
        self._strangers: dict[str, Spec] = {}  # by target or code: not named while runs were kept for it
        self._told: set[str] = set()

    def register(self, target: Any) -> None:
        """It goes before others of its name."""
        self._registered[target.name] = target

    def target(self, name: str, module: str = "") -> Any:
        """What is run by that name here, if anything is: what was registered, or another of `module`."""
        registered = self._registered.get(name)
        if registered is None or module not in ("", registered.module):
            known = target_named(name, module)
            if registered is None or (known is not None and known.module == module):
                return known
        return registered

    def meant(self, spec: Spec) -> Any:
        """What a run of that record is of, if it is here: not another flow or actor that is called alike."""
        target = self.target(spec.target, spec.module)
        return target if target is not None and is_meant(target, spec.module, spec.version) else None

    def stranger(self, spec: Spec) -> str:
        """Why such a run isn't run here although something of its name is; empty if that isn't so."""
        several, kind = TARGETS.get(spec.target), spec.kind
        other = self.target(spec.target, spec.module)
        if other is None and isinstance(several, Ambiguous):
            files = ", ".join(sorted(several.by_file))
            return f"several here are called {spec.target!r}, in {files}: give each a name= of its own"
        if other is None or is_meant(other, spec.module, spec.version):
            return ""
        say = (
            f"@segue.flow(name={spec.target!r})"
            if kind == "flow"
            else f"class …(Actor, name={spec.target!r})"
        )
        return (
            f"it was begun by the {kind} {spec.target!r} of module {spec.module!r}, which isn't here; the one of "
            f"{other.module!r} ({other.file}) isn't the same. If it is, moved and changed, say so with {say}"
        )

    # ------------------------------------------------------------ left to others
    def leave(self, spec: Spec) -> None:
        """Runs of something that is unknown here are left to others from now on.

        Where something else here is called alike, that is so for its code: others of that name may be ours.
        """
        self._strangers[spec.code if self.stranger(spec) else spec.target] = spec

    def tells(self, why: str) -> bool:
        """Whether that wasn't said yet of the runs of one kind, which may be a million."""
        new = why not in self._told
        self._told.add(why)
        return new

    def left(self) -> list[str]:
        """Targets, and code of targets, that this process still doesn't have."""
        if self._strangers:
            known = [key for key, spec in self._strangers.items() if self._has(key, spec)]
            for key in known:
                del self._strangers[key]
        return list(self._strangers)

    def _has(self, key: str, spec: Spec) -> bool:
        if key == spec.target:
            return key in TARGETS or self.target(key) is not None
        return self.meant(spec) is not None
