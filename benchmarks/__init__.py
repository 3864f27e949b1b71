"""Measures bdauto against the shell script that it replaces; see CONTRIBUTING.md."""
