"""etcd, kube-apiserver and kube-controller-manager on loopback, in a temporary folder."""

import contextlib
import json
import os
import re
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

import sh

from scripts.e2e_k8s.reporting import free_port, say, until

NAMESPACE = "beads-server"
CONTROLLERS = "cronjob,job,deployment,replicaset,serviceaccount,namespace,garbage-collector,ttl-after-finished"
CONTROLLERS += ",resourcequota,pod-garbage-collector"
BUILD = "go build -ldflags '-X k8s.io/component-base/version.gitVersion=v1.36.3'"
"""Without its version the API server does not satisfy the chart's kubeVersion. Name the one that you build."""
PROGRAMS = {
    "ETCD": ("etcd", "Debian's etcd-server"),
    "KUBE_APISERVER": ("kube-apiserver", f"{BUILD} k8s.io/kubernetes/cmd/kube-apiserver"),
    "KUBE_CONTROLLER_MANAGER": ("kube-controller-manager", f"{BUILD} k8s.io/kubernetes/cmd/kube-controller-manager"),
    "KUBECTL": ("kubectl", "the Kubernetes client"),
    "OPENSSL": ("openssl", "Debian's openssl"),
    "UNSHARE": ("unshare", "util-linux"),
}
LOWEST = (1, 34)
"""The first Kubernetes with the MutatingAdmissionPolicy with which a part plays Kyverno."""
SETTLED = (1, 36)
"""The first that has it in v1. Before, it is in v1beta1, and off."""
BETA = ("--feature-gates=MutatingAdmissionPolicy=true", "--runtime-config=admissionregistration.k8s.io/v1beta1=true")
Object = dict[str, Any]


def find_program(variable: str, name: str) -> str | None:
    """Return the path of a program that a variable names, or that is on PATH; None if there is none."""
    path = os.environ.get(variable) or shutil.which(name)
    return path if path and os.access(path, os.X_OK) else None


def find_programs() -> dict[str, str]:
    """Return the path of each program of PROGRAMS; exits 2 and names all that are missing."""
    found = {variable: find_program(variable, name) for variable, (name, _) in PROGRAMS.items()}
    for variable in (variable for variable, path in found.items() if not path):
        name, source = PROGRAMS[variable]
        say(f"missing: {name} (on PATH or as {variable}=/path/to/{name}; it comes from: {source})")
    if not all(found.values()):
        sys.exit(2)
    return {variable: path for variable, path in found.items() if path}


def version(programs: dict[str, str]) -> tuple[int, int]:
    """Return the API server's version, without its patch."""
    found = re.search(r"v(\d+)\.(\d+)", str(sh.Command(programs["KUBE_APISERVER"])("--version")))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def check_version(programs: dict[str, str]) -> None:
    """Exit 2 if the API server is too old for the parts that play Kyverno."""
    if version(programs) < LOWEST:
        lowest, found = (".".join(map(str, one)) for one in (LOWEST, version(programs)))
        say(f"kube-apiserver is {found}: {lowest} or later has MutatingAdmissionPolicy, which this needs")
        sys.exit(2)


class ControlPlane:
    """The three processes, and kubectl to talk to them."""

    def __init__(self, folder: Path, programs: dict[str, str]) -> None:
        self.folder = folder
        self.programs = programs
        self.kubeconfig = folder / "kubeconfig"
        self.admission = "v1" if version(programs) >= SETTLED else "v1beta1"
        """The version of the API in which MutatingAdmissionPolicy is."""
        self._processes: dict[str, Any] = {}
        self._kubectl = sh.Command(programs["KUBECTL"]).bake(
            f"--kubeconfig={self.kubeconfig}", f"--namespace={NAMESPACE}", _tty_out=False, _timeout=120
        )

    def start(self) -> None:
        """Start all three and wait until the API server is ready."""
        etcd, peer, api = (f"127.0.0.1:{free_port()}" for _ in range(3))
        token, key = secrets.token_hex(16), self.folder / "service-accounts.key"
        sh.Command(self.programs["OPENSSL"])("genrsa", "-out", key, "2048")
        (self.folder / "tokens.csv").write_text(f"{token},e2e,e2e,system:masters\n")
        (self.folder / "tokens.csv").chmod(0o600)
        self._write_kubeconfig(api, token)
        self._spawn(
            "ETCD",
            f"--data-dir={self.folder / 'etcd'}",
            *(f"--{name}=http://{etcd}" for name in ("listen-client-urls", "advertise-client-urls")),
            *(f"--{name}=http://{peer}" for name in ("listen-peer-urls", "initial-advertise-peer-urls")),
            f"--initial-cluster=default=http://{peer}",
            "--unsafe-no-fsync",
        )
        self._spawn(
            "KUBE_APISERVER",
            f"--etcd-servers=http://{etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={api.rpartition(':')[2]}",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            *(BETA if LOWEST <= version(self.programs) < SETTLED else ()),
        )
        until("API server", 180, lambda: self.kubectl("get", "--raw", "/readyz") == "ok")
        self._spawn(
            "KUBE_CONTROLLER_MANAGER",
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join(f'{name}-controller' for name in CONTROLLERS.split(','))}",
            "--leader-elect=false",
            "--secure-port=0",
            f"--service-account-private-key-file={key}",
        )

    def _write_kubeconfig(self, api: str, token: str) -> None:
        cluster = {
            "server": f"https://{api}",
            "certificate-authority": str(self.folder / "certificates" / "apiserver.crt"),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "e2e", "cluster": cluster}],
            "users": [{"name": "e2e", "user": {"token": token}}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e", "namespace": NAMESPACE}}],
            "current-context": "e2e",
        }
        self.kubeconfig.write_text(json.dumps(config))
        self.kubeconfig.chmod(0o600)

    def _spawn(self, program: str, *arguments: str) -> None:
        command = sh.Command(self.programs[program])
        log = str(self._log(program))
        self._processes[program] = command(
            *arguments, _bg=True, _bg_exc=False, _out=log, _err_to_out=True, _tty_out=False, _cwd=str(self.folder)
        )

    def _log(self, program: str) -> Path:
        return self.folder / f"{PROGRAMS[program][0]}.log"

    def check_alive(self) -> None:
        """Exit 1 with the end of its log when one of the three has ended by itself."""
        for program, process in self._processes.items():
            if not process.is_alive():
                sys.exit(f"FAILED: {PROGRAMS[program][0]} ended by itself:\n{self._log(program).read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop what was started, last first."""
        for process in reversed(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                process.wait(timeout=20)
            except sh.TimeoutException:
                process.kill()
            except sh.ErrorReturnCode:
                pass

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Run kubectl in the namespace and return its stdout. Raises sh.ErrorReturnCode."""
        self.check_alive()
        return str(self._kubectl(*arguments, _in=given))

    def get(self, kind: str, *more: str) -> list[Object]:
        """Return the objects of a kind."""
        items: list[Object] = json.loads(self.kubectl("get", kind, *more, "-o", "json"))["items"]
        return items

    def read(self, kind: str, name: str) -> Object | None:
        """Return one object, None if it does not exist."""
        text = self.kubectl("get", kind, name, "--ignore-not-found", "-o", "json")
        found: Object | None = json.loads(text) if text else None
        return found
