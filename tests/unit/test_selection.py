"""What `make test` leaves to `make test-all`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.selection import left_out


def items_of(name: str, *rows: str, marker: str = "") -> list[Any]:
    """Return the rows of a test, as pytest collects them."""
    path, _, _ = name.partition("::")
    return [
        SimpleNamespace(nodeid=f"{name}[{row}]", path=Path(path), get_closest_marker=lambda m: m == marker)
        for row in rows
    ]


def kept(items: list[Any]) -> list[Any]:
    out = list(left_out(items))
    return [item for item in items if item not in out]


@pytest.mark.parametrize(("rows", "left"), [(1, 1), (2, 1), (3, 1), (4, 1), (9, 3), (17, 5)])
def test_a_third_of_a_table_stays_and_never_none(rows: int, left: int) -> None:
    for name in ("e2e/test_a.py::test_one", "e2e/test_a.py::test_two", "simulation/test_a.py::test_three"):
        assert len(kept(items_of(name, *map(str, range(rows))))) == left


def test_over_many_tests_each_topology_has_its_share() -> None:
    topologies = ("server", "embedded", "proxied")
    rows = [kept(items_of(f"e2e/test_a.py::test_{n}", *topologies)) for n in range(30)]
    assert {item.nodeid.partition("[")[2] for [item] in rows} == {f"{topology}]" for topology in topologies}


def test_unit_tests_stay_and_what_only_a_maintainer_needs_goes() -> None:
    unit = items_of("unit/test_a.py::test_one", "1", "2", "3")
    assert kept([*unit, *items_of("contract/test_a.py::test_one", "1")]) == unit
    assert kept(items_of("e2e/test_a.py::test_one", "1", marker="real_bd")) == []
