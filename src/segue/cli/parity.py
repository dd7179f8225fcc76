"""`segue replay --against`: whether a run's model requests are the same in both modes."""

from __future__ import annotations

import argparse

from ..model.errors import AuthorError, InvalidValue
from ..model.mode import Batch, as_mode
from ..model.run import Head
from ..runtime.engine import Engine
from ..runtime.proof import verify
from ..runtime.proof.parity import Difference, Requests, first_difference
from . import exit
from .screen import count, note, put_json


async def against(engine: Engine, head: Head, args: argparse.Namespace) -> int:
    """Replay the run under its own mode and under the other one, and compare what would be sent."""
    recorded = head.spec.config.over(engine.config).mode or as_mode("live")
    own = "batch" if isinstance(recorded, Batch) else "live"
    if own == args.against:
        other = "live" if own == "batch" else "batch"
        raise InvalidValue("--against", repr(other), f"run {head.id!r} was {own} itself", args.against)
    sides = [Requests(engine.models, mode) for mode in (recorded, as_mode(args.against))]
    try:
        for side in sides:
            await verify.replay_stored(engine.worker, engine.store, head, requests=side)
    except AuthorError as error:
        return _says(args, f"the code makes other calls: {error}", None)
    for side in sides:
        await side.collect()
    difference = first_difference(*sides)
    if difference is None:
        calls, size = len(sides[0].bodies), sum(map(len, sides[1].bodies.values()))
        if args.json:
            put_json({"run": args.run, "same": True, "requests": calls, "bytes": size})
        else:
            note(
                f"{count(calls)} model requests, {count(size)} bytes: {own} and {args.against} send the same"
            )
        return exit.OK
    return _says(
        args,
        f"call {difference.call} of {difference.model} differs at byte {count(difference.offset)}, after "
        f"{difference.before!r}\n  {own + ':':7}{difference.a!r}\n  {args.against + ':':7}{difference.b!r}",
        difference,
    )


def _says(args: argparse.Namespace, text: str, difference: Difference | None) -> int:
    if args.json:
        put_json({"run": args.run, "same": False, "difference": difference or text})
    else:
        note(text)
    return exit.FAILED
