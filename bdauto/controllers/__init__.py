"""The two jobs: one dispatch cycle, and one sweep of the reaper.

They read, decide with `domain`, and write. They do not know diagnostics, telemetry, the loop or the command line.
"""
