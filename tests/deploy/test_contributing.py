"""What contributors and the package index see: the workflow, the forms, the README, a release."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from scripts import release
from tests.support.manifests import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"


def test_the_workflow_checks_each_python_that_is_promised() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())
    job = workflow["jobs"]["check"]
    promised = [
        found[1]
        for classifier in PROJECT["project"]["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier))
    ]
    assert job["strategy"]["matrix"]["python"] == promised
    assert "make check" in [step.get("run") for step in job["steps"]]


@pytest.mark.parametrize("form", ["bug.yml", "feature.yml"])
def test_a_form_has_what_the_host_of_the_project_needs(form: str) -> None:
    found = yaml.safe_load((FORMS / form).read_text())
    assert {"name", "description", "body"} <= found.keys()
    ids = [field["id"] for field in found["body"]]
    assert len(ids) == len(set(ids))


def test_the_bug_form_asks_for_the_doctor() -> None:
    assert "`bdauto doctor --json`" in (FORMS / "bug.yml").read_text()


def test_the_readme_on_the_package_index_links_to_what_exists() -> None:
    text = (ROOT / "README.md").read_text()
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    own = [link for link in links if "/bdauto/" in link]
    assert len(own) > 10
    for link in own:
        path = re.sub(r"^https://\S+?/(?:blob/)?main/", "", link).partition("#")[0]
        assert (ROOT / path).is_file(), link


@pytest.mark.parametrize("version", ["", "1.2", "v1.2.3", "1.2.3; rm", "1.2.3-dirty"])
def test_what_is_no_version_is_not_released(version: str) -> None:
    with pytest.raises(SystemExit, match="is not a version"):
        release.check(version)


def test_a_release_needs_its_section_in_the_changelog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "git", lambda *_: "")
    with pytest.raises(SystemExit, match=r"no section '## 99\.0\.0 \(unreleased\)'"):
        release.check("99.0.0")


def test_uncommitted_changes_are_not_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "git", lambda *words: " M README.md\n" if words[0] == "status" else "")
    with pytest.raises(SystemExit, match="uncommitted changes"):
        release.check("99.0.0")
