"""How to install an optional library where this copy of bdauto runs."""

import sys
from pathlib import Path

import pytest

from bdauto.cli.commands.run import _no_page
from bdauto.common.extras import EXTRAS, advice, how_to_install


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_this_environment_and_never_bdauto_as_a_package(extra: str) -> None:
    words = how_to_install(extra).split()
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert "bdauto" not in words


def test_an_environment_of_pipx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bdauto").mkdir()
    (tmp_path / "bdauto" / "pipx_metadata.json").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "bdauto"))
    assert how_to_install("metrics") == "pipx inject bdauto prometheus-client waitress"


def test_an_environment_of_uv_has_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert how_to_install("notify") == f"uv pip install --python {sys.executable} apprise"


def test_an_image_that_cannot_be_written_is_not_told_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advice("web").startswith("run `")
    monkeypatch.setattr("os.access", lambda *_: False)
    assert advice("web") == f"build an image or an environment with the extra 'web': {sys.prefix} cannot be written"


def test_a_page_whose_libraries_are_missing_says_which() -> None:
    page = _no_page("/", "")
    assert page
    assert page.status == 404
    assert _no_page("/nothing", "") is None
    assert b"jinja2 and pygal are not installed" in page.body
    assert b"pip install jinja2 pygal" in page.body
