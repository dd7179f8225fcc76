"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No test is timed: on a machine that is busy an example may take as long as it likes.
settings.register_profile(
    "unhurried", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")
