"""Dispatch ready beads to a headless coding agent, and reap those whose agent died."""

__version__ = "0.1.0"
