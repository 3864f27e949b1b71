"""What the manifests, the chart and the module set are variables that bdauto knows, and Kubernetes adds none."""

import re
from pathlib import Path

import pytest

from bdauto.cli.variables import known

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = [path for path in DEPLOY.rglob("*") if path.suffix in (".yaml", ".tf", ".tpl", ".env", ".hcl", ".json")]
OF_THE_BUILD = {"BDAUTO_VERSION"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_only_known_variables_are_set(file: Path) -> None:
    named = set(re.findall(r"\bBDAUTO_[A-Z_]+\b", file.read_text(encoding="utf-8")))
    assert named - OF_THE_BUILD - known() == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_no_pod_gets_the_variables_of_services(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    pods = len(re.findall(r"^\s*(?:automountServiceAccountToken:|automount_service_account_token\s+=)", text, re.M))
    off = len(re.findall(r"^\s*(?:enableServiceLinks: false|enable_service_links\s+= false)$", text, re.M))
    assert off == pods
