"""Messages: what actors and flows are told and asked."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Generic, TypeVar, dataclass_transform, get_args, get_origin

R_co = TypeVar("R_co", covariant=True)


@dataclass_transform()
class Note:
    """A message that wants no answer. Its annotated fields are what it carries."""

    if not TYPE_CHECKING:

        def __init_subclass__(cls, **how: Any) -> None:
            super().__init_subclass__(**how)
            dataclasses.dataclass(cls)


@dataclass_transform()
class Request(Generic[R_co]):
    """A message that wants an answer: `class Say(Request[str])` is answered with a text."""

    if not TYPE_CHECKING:

        def __init_subclass__(cls, **how: Any) -> None:
            super().__init_subclass__(**how)
            dataclasses.dataclass(cls)


def response_type(request: type[Any]) -> Any:
    """The type of the answer that a request wants."""
    for cls in request.__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is Request:
                return get_args(base)[0]
    return Any
