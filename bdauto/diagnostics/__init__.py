"""Answers to an operator's questions: `status`, `explain` and `doctor`.

They only read. They do not know the controllers, telemetry, or how their answers are shown.
"""
