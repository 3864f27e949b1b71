"""docs/decisions.md has the tables that the code makes, and they have every outcome and every error."""

import re

from bdauto.common import errors
from bdauto.common.errors import BdautoError
from bdauto.domain.outcome import BeadOutcome
from scripts import decision_tables


def test_the_page_has_the_tables_that_the_code_makes() -> None:
    text = decision_tables.PAGE.read_text(encoding="utf-8")
    assert decision_tables.page(text) == text, "run `make docs`"
    assert {block[2] for block in decision_tables.BLOCK.finditer(text)} == set(decision_tables.TABLES)


def test_every_outcome_of_a_bead_has_a_row() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", decision_tables.outcomes(), re.MULTILINE)) == set(BeadOutcome)


def test_every_exit_status_has_a_row() -> None:
    rows = set(re.findall(r"^\| (\d+) \|", decision_tables.exit_statuses(), re.MULTILINE))
    kinds = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, BdautoError)]
    assert rows == {str(kind.exit_code) for kind in kinds} | {"0", "130"}


def test_a_table_that_somebody_edited_is_written_anew() -> None:
    edited = "<!-- table: exit-statuses -->\n| 0 | nothing |\n<!-- end -->"
    assert decision_tables.exit_statuses() in decision_tables.page(edited)
