"""`bdauto run`: both jobs in one long-running process.

Decides when to work, wait, stop and warn. It does not know how a bead is dispatched or reaped, or what a command
line is.
"""
