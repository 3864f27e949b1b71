"""The defects that the simulation must find still fit the code: a refactoring that moves one is seen here at once."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.mutations import MUTATIONS, RARE, mutated


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_replaces_what_is_there_by_something_else(name: str) -> None:
    places = [(one.owner, one.name) for one in MUTATIONS[name]()]
    before = [getattr(*place) for place in places]
    assert places
    with mutated(name):
        assert all(getattr(*place) != original for place, original in zip(places, before, strict=True))
    assert [getattr(*place) for place in places] == before


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_can_be_called_like_what_it_replaces(name: str) -> None:
    for owner, attribute, new in MUTATIONS[name]():
        original = getattr(owner, attribute)
        if callable(original):
            _call_alike(original, new)


def _call_alike(original: Callable[..., Any], new: Callable[..., Any]) -> None:
    """Bind the arguments that the original needs, and all that it takes, to what replaces it."""
    parameters = inspect.signature(original).parameters.values()
    for needed in (True, False):
        wanted = [one for one in parameters if one.default is one.empty or not needed]
        places = [None for one in wanted if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        names = {one.name: None for one in wanted if one.kind is one.KEYWORD_ONLY}
        inspect.signature(new).bind(*places, **names)


def test_a_kept_history_is_of_a_mutation() -> None:
    assert RARE.keys() <= MUTATIONS.keys()
