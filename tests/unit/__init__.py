"""No process, no socket, no sleep: each test runs on the doubles in `doubles`."""
