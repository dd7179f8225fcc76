"""What a run consists of: the code of its flow or actor."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

from ...authoring.failures import as_step_failed
from ...authoring.flow import FlowDef
from ...authoring.trace import traceback_of
from ...core.codec import encode
from ...model.errors import InputMismatch, InvalidValue
from ...ports.store import Claimed
from .executor import Executor
from .handling import Handling

#: Told of each flow that raises, with its traceback, of which the run's record keeps little.
RAISED = logging.getLogger("segue.raised")


def code_of(target: Any, claimed: Claimed, executor: Executor, call: Any = None) -> Coroutine[Any, Any, Any]:
    """The coroutine that a run consists of."""
    if isinstance(target, FlowDef):
        return _flow_code(target, claimed.head.spec.args, call, executor)
    executor.handling = Handling(executor, claimed)
    code: Coroutine[Any, Any, Any] = target.code(claimed, executor.handling)
    return code


async def _flow_code(flow: FlowDef, data: bytes, call: Any, executor: Executor) -> bytes:
    executor.pump_soon()
    try:
        try:
            args, kwargs = flow.shape.decode_call(data) if call is None else call
            code = flow.fn(*args, **kwargs)
        except (InvalidValue, TypeError) as error:  # it fitted when it was begun
            problem = f"{error.where}: {error.problem}" if isinstance(error, InvalidValue) else str(error)
            executor.differs(InputMismatch(executor.id, flow.name, problem))
            never: bytes = await executor.loop.create_future()  # it is unwound there
            return never
        value = encode(await code, where=flow.where)
        executor.returned(value)
        return value
    except Exception as error:
        if RAISED.isEnabledFor(logging.DEBUG):
            RAISED.debug("flow %s raised\n%s", flow.name, traceback_of(error).rstrip())
        raise
    except SystemExit as error:  # it would end more than this run
        raise as_step_failed(error) from error
    finally:
        executor.kick()
