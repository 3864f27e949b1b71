"""Defaults that are needed before anything is imported (`bdauto.__main__`), so this imports nothing."""

BD = "bd"
ASSIGNEE = "agent"
DISPATCHER = "beads-dispatcher"
REAPER = "beads-reaper"
DEFAULT_LANE = "default"
"""The name of the lane where no other is configured."""
