"""Which model, in which mode: call over `using()` over run over engine."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypedDict, Unpack

from ..model import checks
from ..model.budget import Budget
from ..model.mode import Config, ModeLike, as_mode
from ..model.upkeep import Upkeep
from .context import Branch, current

ModelLike = str | Sequence[str]


class How(TypedDict, total=False):
    """How a run is carried out. `models` gives names to roles; `tags` are for finding runs again; `upkeep`:
    what becomes of conversations that near their model's window. `deadline`: by when it should be done, from its start:
    each model call goes the cheapest way that is in time; see `segue.Batch`. `reuse`: a request that was answered
    before gets that answer, if it is no older than a `timedelta` that is given. `budget`: how much its model calls may
    cost, with those of all that it starts; budgets around it hold too.
    """

    mode: ModeLike
    model: ModelLike
    models: Mapping[str, ModelLike]
    tags: Mapping[str, str]
    priority: int
    upkeep: Upkeep
    deadline: timedelta
    reuse: bool | timedelta
    budget: Budget


_USING: ContextVar[Config | None] = ContextVar("segue_using", default=None)


def names(model: ModelLike) -> tuple[str, ...]:
    """One name or several, the later ones being fall-backs."""
    return (model,) if isinstance(model, str) else tuple(model)


def as_config(
    mode: ModeLike | None = None,
    model: ModelLike = (),
    models: Mapping[str, ModelLike] | None = None,
    tags: Mapping[str, str] | None = None,
    priority: int = 0,
    upkeep: Upkeep | None = None,
    deadline: timedelta | None = None,
    reuse: bool | timedelta | None = None,
    budget: Budget | None = None,
) -> Config:
    """Options as the record that goes with a run. Raises `ValueError` for a deadline or an age that is none."""
    if deadline is not None and checks.seconds("deadline", deadline) <= 0:
        raise ValueError(f"deadline must be longer than nothing, not {deadline!r}")
    if isinstance(reuse, timedelta) and reuse <= timedelta(0):
        raise ValueError(f"reuse must be longer than nothing, or False, not {reuse!r}")
    return Config(
        mode=None if mode is None else as_mode(mode),
        model=names(model),
        models={role: names(model) for role, model in (models or {}).items()},
        tags=dict(tags or {}),
        priority=priority,
        upkeep=upkeep,
        deadline=deadline,
        reuse=reuse,
        budget=budget,
    )


def configured(verb: str, how: Mapping[str, Any]) -> Config:
    """The same, of what a verb was given. Raises `TypeError` for an option that isn't known."""
    checks.options(verb, how, How.__annotations__)
    return as_config(**how)


@contextmanager
def using(**how: Unpack[How]) -> Generator[None]:
    """`with segue.using(mode="batch", model=…):` for the calls inside, and the runs that they start.

    A `budget` is for all of them together, and can be given inside a run only.
    """
    own = configured("using()", how)
    outer = _USING.get()
    if own.budget is not None:
        branch = current("using")
        depth = 0 if outer is None else len(outer.accounts)
        own = own.opened(f"block:{branch.run.id} {branch.path}#{branch.n}.{depth}")
    token = _USING.set(own if outer is None else own.over(outer))
    try:
        yield
    finally:
        _USING.reset(token)


def config_of(branch: Branch, own: Config | None = None) -> Config:
    """What holds for a call that is made now on that branch."""
    config = branch.run.config
    within = _USING.get()
    if within is not None:
        config = within.over(config)
    return config if own is None else own.over(config)
