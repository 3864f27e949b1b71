"""The `bd` program: command lines, processes, parsing, and changes of beads.

The only room that runs `bd`. It does not know the services, or why a bead is changed.
"""
