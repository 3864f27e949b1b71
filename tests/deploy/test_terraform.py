"""The Terraform module, by Terraform itself where it and the kubernetes provider can be had."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from deployfiles import TERRAFORM, run, terraform_defaults, tool

NO_PROVIDER = ("could not connect to", "Failed to query available provider packages", "Failed to install provider")
"""What `terraform init` says where the provider cannot be fetched: no fault of the module's."""
MOCKS_SINCE = (1, 7)
"""The first Terraform whose tests can mock a provider."""


def terraform_env() -> dict[str, str]:
    """Return the environment for Terraform: the caller's, quiet and without questions."""
    return {**os.environ, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the module, so that nothing Terraform downloads or writes ends in the tree."""
    copy = tmp_path_factory.mktemp("terraform") / "module"
    shutil.copytree(TERRAFORM, copy, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    return copy


def initialised(folder: Path) -> Path:
    """Run `terraform init` there; skips where the provider cannot be had."""
    argv = [tool("terraform", "HashiCorp's package"), "init", "-backend=false", "-no-color"]
    done = subprocess.run(argv, cwd=folder, env=terraform_env(), capture_output=True, text=True, timeout=110)
    if any(reason in done.stderr for reason in NO_PROVIDER):
        pytest.skip("Terraform cannot fetch the kubernetes provider here")
    assert done.returncode == 0, done.stderr
    return folder


def test_is_formatted() -> None:
    run(tool("terraform", "HashiCorp's package"), "fmt", "-check", "-diff", "-recursive", str(TERRAFORM))


@pytest.mark.parametrize("folder", [".", "examples/basic"])
def test_is_valid(module: Path, folder: str) -> None:
    root = initialised(module / folder)
    run("terraform", "validate", "-no-color", cwd=root, env=terraform_env())


def test_its_own_tests_pass(module: Path) -> None:
    root = initialised(module)
    version = re.search(r"v(\d+)\.(\d+)", run("terraform", "version", cwd=root, env=terraform_env()))
    assert version
    if (int(version[1]), int(version[2])) < MOCKS_SINCE:
        pytest.skip(f"Terraform {version[0]} cannot mock a provider; 1.7 can")
    assert re.search(
        r"Success! [1-9]\d* passed, 0 failed", run("terraform", "test", "-no-color", cwd=root, env=terraform_env())
    )


def test_defaults_are_the_ones_promised() -> None:
    defaults = terraform_defaults()
    assert defaults["beads_dispatcher_enabled"] == "true"
    assert defaults["mode"] == "cronjob"
    assert defaults["namespace"] == "beads-server"
    assert (defaults["dispatcher_schedule"], defaults["reaper_schedule"]) == ("*/2 * * * *", "*/10 * * * *")
    assert defaults["threshold"] == "30m"


def test_every_variable_and_output_is_described() -> None:
    text = "".join(path.read_text() for path in TERRAFORM.rglob("*.tf"))
    blocks = re.findall(r'^(?:variable|output) "(\w+)" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 20
    assert [name for name, body in blocks if "  description" not in body] == []
