"""Reads what `deploy/` and the documentation say: rendered manifests, Terraform text, and the command lines in all."""

import re
import shlex
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sh
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TERRAFORM = DEPLOY / "terraform"
CHART = DEPLOY / "helm" / "bdauto"
HELM = "`.ci/tools`"
"""What brings helm."""
OVERLAYS = ("base", "overlays/suspended", "overlays/run")

Object = dict[str, Any]
"""One Kubernetes object, as YAML gives it."""


def tool(name: str, package: str) -> Any:
    """Return a program as a command of `sh`, or skip the test with the reason; `package` says what would bring it."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not on PATH ({package} brings it)")
    return sh.Command(name).bake(_tty_out=False, _timeout=110)


@cache
def _kustomize(overlay: str) -> str:
    return str(tool("kubectl", "the Kubernetes client")("kustomize", str(DEPLOY / "kustomize" / overlay)))


def render(overlay: str) -> list[Object]:
    """Return the objects of one folder of `deploy/kustomize`, freshly parsed; skips without kubectl."""
    return list(yaml.safe_load_all(_kustomize(overlay)))


def render_chart(*values: str) -> list[Object]:
    """Return the objects of the Helm chart with these `name=value` settings; skips without helm."""
    helm = tool("helm", HELM)
    text = helm("template", "bdauto", str(CHART), "--namespace=beads-server", *(f"--set={value}" for value in values))
    return [item for item in yaml.safe_load_all(str(text)) if item]


def pod_spec(workload: Object) -> Object:
    """Return the pod's spec of a CronJob or a Deployment."""
    spec = workload["spec"]
    if workload["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    found: Object = spec["template"]["spec"]
    return found


def workloads(objects: list[Object]) -> list[Object]:
    """Return the objects that run containers."""
    return [item for item in objects if item["kind"] in ("CronJob", "Deployment")]


def documents() -> list[Path]:
    """Return every Markdown file of the project that people read."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *DEPLOY.rglob("*.md")])


def markdown_commands(text: str) -> Iterator[list[str]]:
    """Yield the argument lists of all `bdauto …` command lines in code blocks and inline code of a Markdown text."""
    blocks = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()] + inline
    for line in lines:
        yield from _commands_in(line)


def _commands_in(line: str) -> Iterator[list[str]]:
    """Find `bdauto ARG…` where a command can stand: at the start, after VAR=value or `--`, or in a pipeline."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe in a line that is no command
        return
    before = [";"]
    for index, word in enumerate(words):
        if word == "bdauto" and (
            before[-1] in {"$", "--", "nice"} or set(before[-1]) <= set("();|&") or "=" in before[-1]
        ):
            rest = words[index + 1 :]
            end = next((i for i, w in enumerate(rest) if set(w) <= set("();<>|&")), len(rest))
            arguments = [w for w in (w.strip("[]") for w in rest[:end]) if w and w != "…"]
            if arguments:
                yield arguments
        before.append(word)


def terraform_commands() -> Iterator[list[str]]:
    """Yield the argument lists of the `["bdauto", …]` lists in the module, each variable replaced by its default."""
    defaults = terraform_defaults()
    for path in sorted(TERRAFORM.glob("*.tf")):
        for body in re.findall(r'\[\s*"bdauto",\s*(.*?)\]', path.read_text(), re.DOTALL):
            words = [word.strip() for word in body.split(",") if word.strip()]
            yield [defaults[w.removeprefix("var.")] if w.startswith("var.") else w.strip('"') for w in words]


def terraform_defaults() -> dict[str, str]:
    """Return the default of each of the module's variables that has one on a line, as text."""
    text = (TERRAFORM / "variables.tf").read_text()
    found = re.findall(r'variable "(\w+)" \{(?:(?!\n\}).)*?\n  default\s+= ([^\n]+)', text, re.DOTALL)
    return {name: value.strip('"') for name, value in found}
