"""Decisions and values without input or output: beads, eligibility, reaping, notes, pause, settings.

Everything here is a plain function or a frozen type. It knows neither processes nor HTTP nor the clock.
"""
