"""One module for each command of `bdauto`."""
