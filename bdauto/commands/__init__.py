"""One module a command: its options in, its use case run, its report out."""
