"""What is made of a type or a function once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def memoized(make: Callable[P, T], /) -> Callable[P, T]:
    """Keep what it gives for the last 4,096 arguments; not what it raises. Of what has no hash, such as
    `Annotated[int, []]`, it is made each time.
    """
    kept: Any = functools.lru_cache(maxsize=4096)(make)

    @functools.wraps(make)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            found: T = kept(*args, **kwargs)
        except TypeError as error:
            if "unhashable" not in str(error):
                raise
            return make(*args, **kwargs)
        return found

    return call
