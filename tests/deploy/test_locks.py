"""The image's locked Python packages: each pinned with hashes, and what pyproject.toml asks for."""

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.manifests import DEPLOY, ROOT

RENEW = "`make lock` renews it"


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, str]:
    """Return package → version of a lock file; each must be pinned exactly and have a hash."""
    text = re.sub(r"\s*\\\n\s*", " ", (DEPLOY / name).read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [re.fullmatch(r"([\w.-]+)==(\S+)(?: ;[^#]*?)?((?: --hash=sha256:[0-9a-f]{64})+)", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        (
            "requirements.txt",
            [
                *project()["project"]["dependencies"],
                *(
                    requirement
                    for extra, requirements in project()["project"]["optional-dependencies"].items()
                    for requirement in requirements
                    if extra != "all"
                ),
            ],
        ),
        ("requirements-build.txt", project()["build-system"]["requires"]),
    ],
)
def test_lock_has_what_the_project_asks_for(lock: str, wanted: list[str]) -> None:
    versions = locked(lock)
    for requirement in map(Requirement, wanted):
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{lock} has no {requirement.name}: {RENEW}"
        assert requirement.specifier.contains(version), f"{lock} has {requirement.name} {version}: {RENEW}"
