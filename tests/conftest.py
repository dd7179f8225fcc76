"""What holds for all tests."""

from __future__ import annotations

from importlib.util import find_spec

# What segue defines for itself is known before any test: some forget what was defined while they ran.
import segue.authoring.actor.supervised  # noqa: F401

if find_spec(
    "hypothesis"
):  # which the environment that instructor has for itself lacks, as it runs no test with it
    from hypothesis import HealthCheck, settings

    # No test is timed: on a machine that is busy an example may take as long as it likes.
    settings.register_profile(
        "unhurried", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("unhurried")
