"""How long tests wait for what must come, and how short a limit is that something healthy must keep.

Tests never measure time, they only give up. On a busy machine they can be given more: `TEST_PATIENCE=4 make test`.
"""

import os

PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))
"""How many times longer than usual to wait."""
TEST_TIMEOUT = 120.0
"""Seconds for one test."""


def seconds(limit: float) -> float:
    """Return a limit in seconds for something that must come."""
    return limit * PATIENCE


def duration(limit: float) -> str:
    """Return a limit in seconds as an option of bdauto takes it, for calls of which healthy ones must keep it."""
    return f"{round(limit * PATIENCE)}s"
