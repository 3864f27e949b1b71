"""docs/logs.md and the table of outcomes name every event that the source logs, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from bdauto.domain.outcome import BeadOutcome
from scripts.decision_tables import outcomes

ROOT = Path(__file__).parents[2]


def logged() -> Iterator[tuple[str, set[str]]]:
    """Yield each event's name and the fields named where it is logged."""
    for path in (ROOT / "bdauto").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                if isinstance(owner, ast.Name) and owner.id == "log" and node.func.attr != "configure":
                    name = node.args[0]
                    if isinstance(name, ast.Constant):
                        named = (keyword.arg for keyword in node.keywords if keyword.arg)
                        yield str(name.value), {field for field in named if not field.endswith("_")}


def documented() -> dict[str, str]:
    """Return the row of each event: in docs/logs.md, and in the table of outcomes of docs/decisions.md."""
    _, _, text = (ROOT / "docs" / "logs.md").read_text().partition("## What became of a bead")
    return {match[1]: match[0] for match in re.finditer(r"^\| `([a-z_-]+)` \|.*$", outcomes() + text, re.MULTILINE)}


def test_every_event_is_documented_and_no_other() -> None:
    assert set(documented()) == {name for name, _ in logged()} | set(BeadOutcome)


def test_every_field_is_documented() -> None:
    for name, fields in logged():
        for field in fields:
            assert f"`{field}`" in documented()[name], (name, field)
