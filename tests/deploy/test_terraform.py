"""The Terraform module, by Terraform itself where it and the kubernetes provider can be had."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import sh

from bdauto.agents.kubernetes.checks import RIGHTS
from tests.support.manifests import TERRAFORM, terraform_defaults, tool

NO_PROVIDER = ("could not connect to", "Failed to query available provider packages", "Failed to install provider")
"""What `terraform init` says where the provider cannot be fetched: no fault of the module's."""
MOCKS_SINCE = (1, 7)
"""The first Terraform whose tests can mock a provider."""


def terraform() -> Any:
    """Return Terraform, quiet and without questions, or skip the test."""
    env = {**os.environ, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}
    return tool("terraform", "HashiCorp's package").bake(_env=env)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the module, so that nothing Terraform downloads or writes ends in the tree."""
    copy = tmp_path_factory.mktemp("terraform") / "module"
    shutil.copytree(TERRAFORM, copy, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    return copy


def initialised(folder: Path) -> Any:
    """Run `terraform init` there and return Terraform for that folder; skips where the provider cannot be had."""
    there = terraform().bake(f"-chdir={folder}")
    try:
        there("init", "-backend=false", "-no-color")
    except sh.ErrorReturnCode as error:
        if any(reason in error.stderr.decode() for reason in NO_PROVIDER):
            pytest.skip("Terraform cannot fetch the kubernetes provider here")
        raise
    return there


def test_is_formatted() -> None:
    terraform()("fmt", "-check", "-diff", "-recursive", str(TERRAFORM))


@pytest.mark.parametrize(
    "folder", [".", "examples/basic", "examples/kubernetes", "examples/cutover/before", "examples/cutover/after"]
)
def test_is_valid(module: Path, folder: str) -> None:
    initialised(module / folder)("validate", "-no-color")


def test_its_own_tests_pass(module: Path) -> None:
    there = initialised(module)
    version = re.search(r"v(\d+)\.(\d+)", there("version"))
    assert version
    if (int(version[1]), int(version[2])) < MOCKS_SINCE:
        pytest.skip(f"Terraform {version[0]} cannot mock a provider; 1.7 can")
    assert re.search(r"Success! [1-9]\d* passed, 0 failed", there("test", "-no-color"))


def test_cut_over_names_every_resource_of_the_stack_that_it_replaces() -> None:
    before, after = (
        "".join(path.read_text() for path in (TERRAFORM / "examples/cutover" / name).glob("*.tf"))
        for name in ("before", "after")
    )
    resources = {f"{kind}.{name}" for kind, name in re.findall(r'^resource "(\w+)" "(\w+)"', before, re.MULTILINE)}
    assert len(resources) == 3
    assert resources == set(re.findall(r"^  from = (\S+)$", after, re.MULTILINE))


def test_defaults_are_the_ones_promised() -> None:
    defaults = terraform_defaults()
    assert defaults["beads_dispatcher_enabled"] == "true"
    assert defaults["mode"] == "cronjob"
    assert defaults["namespace"] == "beads-server"
    assert (defaults["dispatcher_schedule"], defaults["reaper_schedule"]) == ("*/2 * * * *", "*/10 * * * *")
    assert defaults["threshold"] == "30m"


def test_the_role_has_exactly_the_rights_that_doctor_checks() -> None:
    text = (TERRAFORM / "kubernetes.tf").read_text()
    rules = re.findall(r'^ +\["(\w*)", "([\w/]+)", \[(.*)\]\],$', text, re.MULTILINE)
    assert {f"{group}/{kind}": tuple(re.findall(r"\w+", verbs)) for group, kind, verbs in rules} == RIGHTS


def test_every_variable_and_output_is_described() -> None:
    text = "".join(path.read_text() for path in TERRAFORM.rglob("*.tf"))
    blocks = re.findall(r'^(?:variable|output) "(\w+)" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 20
    assert [name for name, body in blocks if "  description" not in body] == []
