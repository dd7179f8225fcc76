"""`segue simulate`: a provider on this machine."""

from __future__ import annotations

import argparse
import errno
import os
import socket

from ..model.errors import InvalidValue
from . import exit


def declare_simulate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Providers on this machine, batches included. It prints its base URL; name its models as in\n"
        "`--model openai:ANY@URL`, `anthropic:ANY@URL` or `gemini:ANY@URL`. Ctrl-C ends it."
    )
    from ..testing.simulator import add_arguments

    add_arguments(parser)


async def do_simulate(args: argparse.Namespace) -> int:
    from ..testing.simulator import main

    try:
        await main(args)
    except socket.gaierror as error:
        raise InvalidValue("--host", "an address of this machine", str(error.strerror), args.host) from None
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES) or error.filename:
            raise
        problem = f"{args.host}:{args.port}: {os.strerror(error.errno)}; --port 0 takes a free one"
        raise InvalidValue("--host and --port", "a free address", problem) from None
    return exit.OK
