"""Which tests `make test` leaves to `make test-all`, and what is said of those that were skipped.

Of an end-to-end test with several rows of a table, or several topologies, a third stays. Their names decide which,
so over all tests each topology has its share. Unit tests have the tables in full.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from zlib import crc32

import pytest

from tests.support import patience


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves out, and give a test's own time limit the patience of all others."""
    for item in items:
        if limit := item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(patience.seconds(limit.args[0])), append=False)
    for item in left_out(items):
        item.add_marker("maintainer")


def left_out(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """Yield the tests of the stand-in, those on a real bd, and two thirds of each table of end-to-end tests."""
    tables: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        folder = item.path.parent.name
        if folder == "contract" or item.get_closest_marker("real_bd"):
            yield item
        elif folder in ("e2e", "simulation"):
            tables[item.nodeid.partition("[")[0]].append(item)
    for rows in tables.values():
        rows.sort(key=lambda row: crc32(row.nodeid.encode()))
        yield from rows[max(1, len(rows) // 3) :]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line for each reason why tests were skipped. What failed comes after it, at the end."""
    reasons = Counter(str(report.longrepr[-1]) for report in terminalreporter.getreports("skipped"))
    for reason, number in reasons.most_common():
        terminalreporter.write_line(f"SKIPPED [{number}] {reason.removeprefix('Skipped: ')}")
