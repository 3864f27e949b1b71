"""A real API server with its Job controller, from programs on PATH, for tests that hold the stand-in to it."""

import gc
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

Object = dict[str, Any]
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "openssl", "unshare")


class RealKubernetes:
    """A namespace of its own of a real API server. It has the calls that tests make of the stand-in."""

    def __init__(self, plane: Any, namespace: str, folder: Path) -> None:
        self.plane = plane
        self.namespace = namespace
        plane.kubectl("create", "namespace", namespace)
        config = json.loads(plane.kubeconfig.read_text())
        config["contexts"][0]["context"]["namespace"] = namespace
        self.file = folder / "kubeconfig"
        self.file.write_text(json.dumps(config))
        time.sleep(0.5)  # its service account is made meanwhile, without which no pod is

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Run kubectl in the namespace."""
        return str(self.plane.kubectl(f"--namespace={self.namespace}", *arguments, given=given))

    def apply(self, thing: Object) -> None:
        """Create or change an object."""
        thing = {**thing, "metadata": {name: one for name, one in thing["metadata"].items() if name != "uid"}}
        self.kubectl("apply", "-f", "-", given=json.dumps(thing))

    def all_pods(self) -> list[Object]:
        """Return every pod."""
        found: list[Object] = json.loads(self.kubectl("get", "pods", "-o", "json"))["items"]
        return found

    def all_jobs(self) -> list[Object]:
        """Return every Job."""
        found: list[Object] = json.loads(self.kubectl("get", "jobs", "-o", "json"))["items"]
        return found

    def write_pod(self, pod: str, status: Object) -> None:
        """Merge this into a pod's status."""
        patch = json.dumps({"status": status})
        self.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", patch)

    def delete_pod(self, pod: str) -> None:
        """Delete a pod."""
        self.kubectl("delete", "pod", pod, "--wait=false", "--grace-period=0", "--force")


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A control plane for the session. Skips without its programs, or fails with --require-k8s."""
    import shutil

    if lacking := [name for name in PROGRAMS if not shutil.which(name)]:
        words = f"not on PATH: {', '.join(lacking)}"
        pytest.fail(words) if request.config.getoption("--require-k8s") else pytest.skip(words)
    from scripts.e2e_k8s.control_plane import ControlPlane, find_programs

    plane = ControlPlane(tmp_path_factory.mktemp("plane"), find_programs())
    try:
        with warnings.catch_warnings():  # sh leaves the files of logs to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            plane.start()
            gc.collect()
        yield plane
    finally:
        plane.stop()
