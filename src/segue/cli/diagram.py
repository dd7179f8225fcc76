"""`segue diagram`: the graph of an actor."""

from __future__ import annotations

import argparse
from typing import Any

from ..authoring.actor.checkpoint import read_stored
from ..authoring.actor.graph import LISTENING, diagram, edges
from ..authoring.flow import definition, target_named
from ..model.errors import Conflict
from ..model.run import ENDED
from ..runtime.ground.names import unknown_run
from . import exit
from .place import declare_store, looking
from .screen import put_json
from .target import load_actor


def declare_diagram(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A Mermaid state diagram of an actor, from its handlers' return types. With --run, the state in which\n"
        "that run is stands out; if it goes on as another actor, that one is drawn."
    )
    parser.add_argument("actor", metavar="app.py:Actor", help="the actor's class")
    parser.add_argument("--run", default="", metavar="ID", help="a run of it")
    parser.add_argument(
        "--json", action="store_true", help="its edges, where the run is, and the diagram, as a line of JSON"
    )
    declare_store(parser)


async def do_diagram(args: argparse.Namespace) -> int:
    actor = load_actor(args.actor)
    definition(actor).check()
    if not args.run:
        return _put(args, actor, "")
    async with looking(args) as store:
        loaded = await store.load(args.run)
        if loaded is None:
            raise await unknown_run(store, args.run)
        spec = loaded.head.spec
        if spec.kind != "actor":
            raise Conflict(
                f"run {args.run!r} is one of {spec.kind} {spec.target!r}: actors alone have a diagram"
            )
        if spec.target != definition(actor).name:
            raise Conflict(
                f"run {args.run!r} is one of {spec.target!r}, not of {args.actor!r}: name that actor"
            )
        name, at = "", ""
        if loaded.checkpoint is not None:
            stored = read_stored(loaded.checkpoint, loaded.deltas)
            name, at = stored.actor, stored.state or LISTENING
    drawn = target_named(name) if name else None
    return _put(args, drawn or actor, "" if loaded.head.status in ENDED else at)


def _put(args: argparse.Namespace, actor: Any, at: str) -> int:
    drawn = diagram(actor, at=at)
    if args.json:
        known = definition(actor) or actor
        ways = [{"from": edge.source, "to": edge.target, "by": edge.label} for edge in edges(known)]
        put_json({"actor": known.name, "run": args.run, "at": at, "edges": ways, "diagram": drawn})
    else:
        print(drawn)
    return exit.OK
