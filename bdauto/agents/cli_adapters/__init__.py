"""The command lines of coding agents: how each is started, and what its output says.

`stream` splits output into values, each adapter turns values into events, and `transcript` adds them up to one end.
"""
