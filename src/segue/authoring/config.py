"""Which model, in which mode: call over `using()` over flow over run over engine."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from datetime import timedelta
from typing import Any, TypedDict, Unpack

from ..core.codec import decode, encode
from ..model import checks
from ..model.budget import Budget
from ..model.errors import InvalidValue
from ..model.mode import Config, ModeLike, as_mode
from ..model.upkeep import Upkeep
from .context import Branch, current

ModelLike = str | Sequence[str]
#: An actor's path: which handler is at work, and in which turn.
_TURN = re.compile(r"^(/[^/]+)\.\d+")
#: What names of things are like that are not to be recorded.
SECRET = re.compile(r"key|token|secret|sig|pass|auth|cred", re.IGNORECASE)


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
#: Of flows with options that are awaited in another one, and of what is around them.
_INSIDE: ContextVar[Config | None] = ContextVar("segue_inside", default=None)


def names(model: ModelLike) -> tuple[str, ...]:
    """One name or several, the later ones being fall-backs. Raises `InvalidValue`."""
    given = (model,) if isinstance(model, str) else model
    if not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise InvalidValue(
            "model", "a name such as 'openai:gpt-5-mini', or a list of them", f"it is {model!r}"
        )
    for name in given:
        if "@" in name:
            _refuse_secrets(name)
    return tuple(given)


def _refuse_secrets(name: str) -> None:
    """Raise `InvalidValue` for a URL that holds a password or a key: names of models are recorded with runs."""
    import urllib.parse

    model, at, place = name.partition("@http")
    parts = urllib.parse.urlsplit(f"http{place.partition('#')[0]}") if at else None
    if parts is None:
        return
    keys = [each for each, _ in urllib.parse.parse_qsl(parts.query) if SECRET.search(each)]
    if "@" in parts.netloc or keys:
        what = f"its query has {keys[0]!r}" if keys else "it has a password"
        cure = "a URL without its key: behind a #, name the variable that holds it, as in 'openai:m@http://host/v1#KEY'"
        raise InvalidValue("model", cure, what, repr(f"{model}@…"))


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
    """Options as the record that goes with a run. Raises `ValueError` for a deadline or an age that is none, and
    `InvalidValue`.
    """
    if deadline is not None and checks.seconds("deadline", deadline) <= 0:
        raise ValueError(f"deadline must be longer than nothing, not {deadline!r}")
    if isinstance(reuse, timedelta) and reuse <= timedelta(0):
        raise ValueError(f"reuse must be longer than nothing, or False, not {reuse!r}")
    if not all(isinstance(text, str) for pair in (tags or {}).items() for text in pair):
        raise InvalidValue("tags", "texts by name, such as tags={'customer': '42'}", f"they are {tags!r}")
    if reuse is not None and not isinstance(reuse, (bool, timedelta)):
        raise InvalidValue(
            "reuse", "True, False, or a timedelta such as timedelta(days=7)", f"it is {reuse!r}"
        )
    if isinstance(priority, int) and abs(priority) >= 1 << 31:
        raise InvalidValue("priority", "a whole number of 31 bits", f"it is {priority}")
    if budget is not None and not isinstance(budget, Budget):
        raise InvalidValue("budget", "a Budget such as segue.Budget(usd=5)", f"it is {budget!r}")
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
    """The same, of what a verb was given. Raises `TypeError` for an option that isn't known.

    A record that can't be read again would be in the way of all runs of its store: it raises `InvalidValue`.
    """
    checks.options(verb, how, How.__annotations__)
    config = as_config(**how)
    decode(encode(config, where=f"an option of {verb}"), Config, where=f"an option of {verb}")
    return config


@contextmanager
def using(**how: Unpack[How]) -> Generator[None]:
    """`with segue.using(mode="batch", model=…):` for the calls inside, and the runs that they start.

    A `budget` is for all of them together, and can be given inside a run only.
    """
    own = _opened(configured("using()", how), anew=False)
    outer = _USING.get()
    token = _USING.set(own if outer is None else own.over(outer))
    try:
        yield
    finally:
        _USING.reset(token)


@contextmanager
def inside(own: Config) -> Generator[None]:
    """The code of a flow that is awaited in another one: its options are over all that is said around it, and for the
    runs that it starts they are beneath those of their flows.
    """
    own = _opened(own, anew=True)
    for around in (_USING.get(), _INSIDE.get()):
        own = own if around is None else own.over(around)
    flow, block = _INSIDE.set(own), _USING.set(None)
    try:
        yield
    finally:
        _USING.reset(block)
        _INSIDE.reset(flow)


def _opened(own: Config, *, anew: bool) -> Config:
    """With its budget as an account, whose id is the same in every life. Its branch counts the budgets, so that calls
    may come in front of it. `anew`: in an actor each message has another one.
    """
    if own.budget is None:
        return own
    branch = current("using")
    path = branch.path if anew or branch.run.supervisor is None else _TURN.sub(r"\1", branch.path)
    return own.opened(f"block:{branch.run.id} {path}#{branch.number('using()')}")


def afresh() -> Context | None:
    """A context for a run's code, where something is said around who starts it: its record has that, in every life."""
    if _USING.get() is None and _INSIDE.get() is None:
        return None
    context = copy_context()
    context.run(_USING.set, None)
    context.run(_INSIDE.set, None)
    return context


def config_of(branch: Branch, own: Config | None = None, flow: Config | None = None) -> Config:
    """What holds for a call that is made now on that branch, or for a run that it starts, of a flow with options."""
    config, around = branch.run.config, _INSIDE.get()
    return said(own, flow, config if around is None else around.over(config))


def said(own: Config | None, flow: Config | None, beneath: Config) -> Config:
    """What the caller says, over `using()` around it, over what the flow says, over what is beneath."""
    for config in (flow, _USING.get(), own):
        if config is not None:
            beneath = config.over(beneath)
    return beneath
