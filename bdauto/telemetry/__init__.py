"""Metrics and notifications about what was done.

A failure here is a warning and never changes what happens to a bead. It does not know the controllers or diagnostics.
"""
