"""The Dockerfile, as far as it can be judged without building it; its health check is run for real."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import bdauto
from tests.support.manifests import DEPLOY, ROOT


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile as (INSTRUCTION, the rest) with continued lines joined."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def last(instruction: str) -> str:
    """Return what the last of these instructions says."""
    return [rest for word, rest in instructions() if word == instruction][-1]


def test_two_stages_on_one_slim_base() -> None:
    assert [rest for word, rest in instructions() if word == "FROM"] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+-slim", instructions()[0][1])


def test_the_builder_names_the_architecture() -> None:
    assert "TARGETARCH" in [rest for word, rest in instructions() if word == "ARG"], "a default is wrong for all others"


def test_packages_are_installed_by_hash_and_bdauto_without_the_index() -> None:
    installs = [
        part for word, rest in instructions() if word == "RUN" for part in rest.split("&&") if " install " in part
    ]
    assert len(installs) == 3
    assert all("--require-hashes" in install or "--no-index" in install for install in installs)


def test_runs_bdauto_as_nobody() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["bdauto"]
    user, _, group = last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert "HOME=/tmp" in last("ENV")


def test_bd_is_pinned_by_version_and_checksum() -> None:
    arguments = [rest for word, rest in instructions() if word == "ARG"]
    assert "BD_VERSION=1.0.2" in arguments
    assert "BD_SHA256" in arguments, "without a default: whoever builds it has checked it"
    check = next(rest for word, rest in instructions() if word == "RUN" and "sha256sum" in rest)
    assert check.index("sha256sum --check --strict") < check.index("tar ")


def test_labels_are_those_of_oci() -> None:
    labels = last("LABEL")
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f"BDAUTO_VERSION={bdauto.__version__}" in [rest for word, rest in instructions() if word == "ARG"]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    for name in (name for names in copied for name in names):
        assert (ROOT / name).exists()
        assert f"!{name}" in ignore


class Health(BaseHTTPRequestHandler):
    """Answers /healthz with the server's `status`, anything else with 404."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def health_port() -> Iterator[int]:
    """Serve /healthz on a free port."""
    server = HTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def health_check(**env: str) -> int:
    """Run the Dockerfile's health check and return its exit status."""
    program, *arguments = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert program == "python"
    clean = {name: value for name, value in os.environ.items() if name != "BDAUTO_LISTEN"}
    return subprocess.run([sys.executable, *arguments], env={**clean, **env}, capture_output=True).returncode


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1)])
def test_health_check_asks_where_run_listens(
    health_port: int, status: int, exit_status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Health, "status", status)
    assert health_check(BDAUTO_LISTEN=f"0.0.0.0:{health_port}") == exit_status


def test_health_check_of_a_one_shot_command_is_content() -> None:
    assert health_check() == 0
