"""How long tests wait for what must come, and how short a limit is that something healthy must keep.

Tests never measure time, they only give up. They wait longer on a machine that is busy when they begin, or as long as
`TEST_PATIENCE=4 make test` says.
"""

import os
from datetime import timedelta

from bdauto.domain.values import format_duration

BUSY = os.getloadavg()[0] / (os.cpu_count() or 1)
PATIENCE = float(os.environ.setdefault("TEST_PATIENCE", f"{max(1.0, BUSY):.1f}"))
"""How many times longer than usual to wait. pytest-xdist's workers inherit it, so that all wait alike."""
TEST_TIMEOUT = 120.0
"""Seconds for one test."""


def seconds(limit: float) -> float:
    """Return a limit in seconds for something that must come."""
    return limit * PATIENCE


def duration(limit: float) -> str:
    """Return a limit in seconds as an option of bdauto takes it, for calls of which healthy ones must keep it."""
    return format_duration(timedelta(seconds=round(limit * PATIENCE)))
