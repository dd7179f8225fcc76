"""Every error that is raised on purpose can be caught by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

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


def test_errors_are_found_without_an_import_of_theirs() -> None:
    """An `except` that names one is first looked at when something has gone wrong."""
    code = "import segue; print(segue.errors.ModelFailed.__name__, segue.testing.FakeModel.__name__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (said.stdout, said.stderr) == ("ModelFailed FakeModel\n", "")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ModelFailed", "; it is segue.errors.ModelFailed"),
        ("FakeModel", "; it is segue.testing.FakeModel"),
        ("genrate", "; did you mean 'generate'?"),
        ("xyzzy", ""),
        ("__wrapped__", ""),
    ],
)
def test_a_name_that_isnt_in_segue(name: str, meant: str) -> None:
    with pytest.raises(AttributeError) as said:
        getattr(segue, name)
    assert str(said.value) == f"module 'segue' has no attribute {name!r}{meant}"
