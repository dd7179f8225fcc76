"""Every error that is raised on purpose can be caught by name."""

from __future__ import annotations

import segue.errors
from segue.model import errors


def test_all_errors_are_public() -> None:
    made = {
        name
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, errors.SegueError)
    }
    assert made == set(segue.errors.__all__)
    assert all(getattr(segue.errors, name) is getattr(errors, name) for name in made)
