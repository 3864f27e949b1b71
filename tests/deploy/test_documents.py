"""Links in the documentation lead somewhere, and the files that it names exist."""

import re
from pathlib import Path

import pytest

from tests.support.manifests import ROOT, documents


def without_code(text: str) -> str:
    """Return a Markdown text without its code blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(path: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings, made as GitHub and GitLab make them."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = 0
        while (name := f"{slug}-{count}" if count else slug) in found:
            count += 1
        found.add(name)
    return found


def links(path: Path) -> list[str]:
    """Return the targets of a Markdown file's links and pictures that lie inside the project."""
    text = without_code(path.read_text())
    found: list[str] = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(path: Path) -> None:
    for target in links(path):
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.is_relative_to(ROOT), f"{target} leaves the project"
        assert file.exists(), f"{target} does not exist"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{target}: no such heading"


HISTORY = "CHANGELOG.md"
"""It may name what is gone."""


def named(path: Path) -> set[str]:
    """Return the files and folders of the source that a Markdown file names in inline code."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    words = re.findall(r"`([\w./-]+)`", text)
    return {word for word in words if re.search(r"\w/$|\.py$|^(bdauto|tests|scripts|benchmarks|docs|deploy)/", word)}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_files_that_are_named_exist(path: Path) -> None:
    if path.name == HISTORY:
        return
    for name in sorted(name for name in named(path) if not name.startswith("build/")):  # what `make` writes
        places = (ROOT, ROOT / "bdauto", ROOT / "tests", path.parent)
        inside = [] if "/" in name else [*(ROOT / "bdauto").rglob(name), *(ROOT / "tests").rglob(name)]
        assert inside or any((place / name).exists() for place in places), f"{name} does not exist"


def test_the_map_of_the_source_has_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.parent.name for path in (ROOT / "bdauto").glob("*/__init__.py")}
    assert {room for room in rooms if f"| `{room}` |" not in text} == set()


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_the_index_links_every_page(path: Path) -> None:
    assert path.name == "README.md" or path.name in links(ROOT / "docs" / "README.md")
