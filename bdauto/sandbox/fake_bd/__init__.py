"""A stand-in for the `bd` program, started as a process of its own."""
