"""Takes the kubelet's place: runs the first container of each pod as a process of this machine, and reports it."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

Object = dict[str, Any]


class Pods(Protocol):
    """Where the pods are: in the stand-in, or in a real API server."""

    def all_pods(self) -> list[Object]:
        """Return every pod."""

    def write_pod(self, pod: str, status: Object) -> None:
        """Merge this into a pod's status."""


class Kubelet:
    """Runs pods until the end of the `with` block. `environment` is that of every container."""

    def __init__(self, pods: Pods, folder: Path, environment: Mapping[str, str]) -> None:
        self.pods = pods
        self.folder = folder
        self.environment = environment
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.started: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Kubelet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for process in self.running.values():
            process.kill()
            process.wait()

    def _work(self) -> None:
        while not self._over.wait(0.1):
            with contextlib.suppress(OSError, KeyError):
                self.look()

    def look(self) -> None:
        """Start the pods that wait, report those that ended, and kill those that are gone."""
        known = {pod["metadata"]["name"]: pod for pod in self.pods.all_pods()}
        for name, pod in known.items():
            if pod["status"].get("phase") == "Pending" and name not in self.started:
                self.started.append(name)
                self.running[name] = self.start(pod)
                self._report(pod, "Running", {"running": {"startedAt": _now()}})
        for name in [name for name in self.running if name in known]:
            self._keep_log(known[name])
        for name, process in [*self.running.items()]:
            if name not in known:
                process.terminate()
            if process.poll() is None:
                continue
            if name in known:
                self._keep_log(known[name])
            del self.running[name]
            if name in known:
                self._report_end(known[name], process.returncode)

    def start(self, pod: Object) -> "subprocess.Popen[bytes]":
        """Start a pod's first container, with its log in a file."""
        container, uid = pod["spec"]["containers"][0], pod["metadata"]["uid"]
        own = self.folder / uid
        own.mkdir(parents=True)
        (own / "prompt").write_text(pod["metadata"]["annotations"]["bdauto/prompt"])
        values = {one["name"]: one.get("value", uid).replace("$$", "$") for one in container["env"]}
        given = {"BDAUTO_PROMPT": str(own / "prompt"), "BDAUTO_TERMINATION_LOG": str(own / "termination-log")}
        with (own / "log").open("wb") as log:
            return subprocess.Popen(
                container["command"],
                env={**self.environment, **values, **given},
                cwd=own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _report_end(self, pod: Object, code: int) -> None:
        told = self.folder / pod["metadata"]["uid"] / "termination-log"
        words = told.read_text() if told.exists() else ""
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "message": words, "finishedAt": _now()}
        self._report(pod, "Failed" if code else "Succeeded", {"terminated": {"startedAt": _now(), **ended}})

    def _report(self, pod: Object, phase: str, state: Object) -> None:
        name = pod["spec"]["containers"][0]["name"]
        one = {
            "name": name,
            "state": state,
            "ready": phase == "Running",
            "restartCount": 0,
            "image": "i",
            "imageID": "i",
        }
        ready = {"type": "Ready", "status": "True" if phase == "Running" else "False"}
        with contextlib.suppress(KeyError):
            self.pods.write_pod(
                pod["metadata"]["name"], {"phase": phase, "containerStatuses": [one], "conditions": [ready]}
            )

    def _keep_log(self, pod: Object) -> None:
        """Give new lines of a log to the stand-in. A real API server asks a kubelet itself, which is not there."""
        logs = getattr(self.pods, "logs", {})
        known = logs.setdefault(pod["metadata"]["name"], [])
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        known += [(at, line) for line in self.log(pod).splitlines()[len(known) :]]

    def log(self, pod: Object) -> str:
        """Return what a pod's container printed."""
        text: str = (self.folder / pod["metadata"]["uid"] / "log").read_text(errors="replace")
        return text


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def wait_for(what: str, found: Any, seconds: float = 60) -> Any:
    """Return the first true result of a function. Raises AssertionError after this time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        result = found()
        if result:
            return result
        time.sleep(0.2)
    raise AssertionError(f"no {what} within {seconds:g} s")


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment with more, without the settings of bdauto."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BDAUTO_")} | more
