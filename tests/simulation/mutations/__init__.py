"""Defects to put into bdauto, each of which the simulation must find: the checker is checked by them.

Each module has the defects of one part. `tests/unit/test_mutations.py` checks that what they replace is there.
"""

from tests.simulation.mutations import breaker, checks, dispatch, loop, sweep
from tests.simulation.mutations.registry import MUTATIONS, RARE, Found, look_for, mutated

__all__ = ["MUTATIONS", "RARE", "Found", "breaker", "checks", "dispatch", "look_for", "loop", "mutated", "sweep"]
