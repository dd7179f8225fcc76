"""Actors: classes that are state machines while they work and actors while they listen.

An actor is a run like a flow is. Its fields are written whole at each transition and handled message, and
the journal before is sealed; within a handler, calls are recorded as in a flow. So a flow is one state of
an actor, and what was said of replay holds for both.
"""

from .actor import Actor as Actor
from .definition import ActorDef as ActorDef
