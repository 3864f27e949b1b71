"""The manual pages come from the command line itself."""

from typing import Any

import typer.main

from bdauto.cli import app
from scripts.man_pages import pages

PAGES = dict(pages())


def test_each_command_has_a_page_with_all_its_options() -> None:
    group: Any = typer.main.get_command(app.application())
    for name, command in group.commands.items():
        page = PAGES[f"bdauto-{name}.1"]
        for option in command.params:
            if option.param_type_name == "option":
                assert option.opts[0].replace("-", "\\-") in page, (name, option.opts)
        listed = f"bdauto-{name}".replace("-", "\\-")
        assert f"{listed} (1)" in PAGES["bdauto.1"]


def test_variables_and_examples_are_in_it() -> None:
    page = PAGES["bdauto-run.1"]
    assert "Variable: BDAUTO_DISPATCH_EVERY. Default: 15s." in page
    assert ".SH EXAMPLES" in page
    assert "bdauto run \\-\\-dispatch\\-every 15s" in page


def test_no_line_is_taken_for_a_request_of_roff() -> None:
    known = (".TH", ".SH", ".TP", ".B", ".BR", ".I")
    for page in PAGES.values():
        assert all(line.split(" ")[0] in known for line in page.splitlines() if line.startswith((".", "'")))
