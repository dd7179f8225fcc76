"""What carries out a flow under a supervisor: an actor of one state, so that it can be ended and begin anew."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import msgspec

from ...model.errors import UnknownName
from ..config import config_of
from ..context import current
from ..flow import target_named
from ..mail import child
from .actor import Actor
from .definition import ActorDef
from .marks import state
from .nexts import Done


@dataclasses.dataclass
class Running:
    """The flow is a child of this run, begun anew each time."""


class Supervised(Actor[Any]):
    """Runs the flow of that name, and module, with those arguments; its result is the flow's."""

    target: str
    args: Any
    module: str = ""

    def begin(self) -> Running:
        """Run it at once."""
        return Running()

    @state
    async def run(self, _: Running) -> Done[Any]:
        """Wait for its end."""
        branch = current("a supervised flow")
        named = self.target, self.module
        target = branch.run.services.target(*named) or target_named(*named)
        if target is None:
            raise UnknownName("flow", self.target, "start a worker with the file that defines it")
        return Done(await child(branch, target, msgspec.json.encode(self.args), config_of(branch)))


SUPERVISED: Final[ActorDef] = Supervised.__segue__  # type: ignore[attr-defined]  # every actor's class has one
