"""The command lines of coding agents: how each is started, and what its output says.

`stream` makes values of output, each adapter makes events of values, and `transcript` adds them up to one end.
"""
