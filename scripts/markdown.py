"""Tables in Markdown."""

from collections.abc import Iterable


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    """Return a table with this first line and these cells."""
    columns = head.count("|") - 1
    return "\n".join([head, "|---" * columns + "|", *(f"| {' | '.join(cells)} |" for cells in rows), ""])
