"""Put the manifests and the Terraform module on a real Kubernetes control plane, and run what its controllers create.

`make e2e-k8s`, by hand; or with the names of parts: `cronjobs`, `run`, `terraform`. etcd, kube-apiserver and
kube-controller-manager run on loopback in a temporary folder. There is no kubelet: this script takes its place and runs
each Pod's own command line, environment and mounts on this machine, in a mount namespace with a read-only root, against
the sandbox. Everything is gone afterwards.

Programs are found on PATH, or by the variable named in PROGRAMS: ETCD=/path/to/etcd, and so on. Terraform is optional.
"""

import contextlib
import difflib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bdauto.sandbox import Sandbox

ROOT = Path(__file__).parents[1]
NAMESPACE = "beads-server"
CONTROLLERS = "cronjob,job,deployment,replicaset,serviceaccount,namespace,garbage-collector,ttl-after-finished"
PROGRAMS = {
    "ETCD": ("etcd", "Debian's etcd-server"),
    "KUBE_APISERVER": ("kube-apiserver", "go build k8s.io/kubernetes/cmd/kube-apiserver"),
    "KUBE_CONTROLLER_MANAGER": ("kube-controller-manager", "go build k8s.io/kubernetes/cmd/kube-controller-manager"),
    "KUBECTL": ("kubectl", "the Kubernetes client"),
    "OPENSSL": ("openssl", "Debian's openssl"),
    "UNSHARE": ("unshare", "util-linux"),
}
DEFAULTS = {
    "completions": 1,
    "manualSelector": False,
    "mountPropagation": "None",
    "optional": False,
    "parallelism": 1,
    "privileged": False,
    "shareProcessNamespace": False,
}
"""Kubernetes' own defaults that Terraform's provider writes out."""
Object = dict[str, Any]
T = TypeVar("T")


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def find_programs() -> dict[str, str]:
    """Return the path of each program of PROGRAMS; exits 2 and names all that are missing."""
    found = {variable: os.environ.get(variable) or shutil.which(name) for variable, (name, _) in PROGRAMS.items()}
    missing = [variable for variable, path in found.items() if not path or not os.access(path, os.X_OK)]
    for variable in missing:
        name, source = PROGRAMS[variable]
        say(f"missing: {name} (on PATH or as {variable}=/path/to/{name}; it comes from: {source})")
    if missing:
        sys.exit(2)
    return {variable: path for variable, path in found.items() if path}


def until(what: str, seconds: float, attempt: Callable[[], T]) -> T:
    """Return the first true result of `attempt`, asked twice a second; exits 1 after `seconds` without one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            result = attempt()
            if result:
                return result
        time.sleep(0.5)
    sys.exit(f"FAILED: no {what} within {seconds:g} s")


def check(condition: bool, what: str) -> None:
    """Say that something holds, or exit 1 because it does not."""
    if not condition:
        sys.exit(f"FAILED: {what}")
    say(f"ok: {what}")


def free_port() -> int:
    """Return a TCP port that is free on loopback just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ControlPlane:
    """etcd, the API server and the controllers on loopback, in a folder; `kubectl` talks to them."""

    def __init__(self, folder: Path, programs: dict[str, str]) -> None:
        self.folder = folder
        self.programs = programs
        self.kubeconfig = folder / "kubeconfig"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all three and wait until the API server is ready."""
        etcd, peer, api = (f"127.0.0.1:{free_port()}" for _ in range(3))
        token, key = secrets.token_hex(16), self.folder / "service-accounts.key"
        subprocess.run([self.programs["OPENSSL"], "genrsa", "-out", key, "2048"], check=True, capture_output=True)
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
        )
        until("API server", 120, lambda: self.kubectl("get", "--raw", "/readyz") == "ok")
        self._spawn(
            "KUBE_CONTROLLER_MANAGER",
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join(f'{name}-controller' for name in CONTROLLERS.split(','))}",
            "--leader-elect=false",
            "--secure-port=0",
            f"--service-account-private-key-file={key}",
        )

    def _write_kubeconfig(self, api: str, token: str) -> None:
        authority = self.folder / "certificates" / "apiserver.crt"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "e2e", "cluster": {"server": f"https://{api}", "certificate-authority": str(authority)}}
            ],
            "users": [{"name": "e2e", "user": {"token": token}}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
            "current-context": "e2e",
        }
        self.kubeconfig.write_text(json.dumps(config))
        self.kubeconfig.chmod(0o600)

    def _spawn(self, program: str, *arguments: str) -> None:
        path = self.programs[program]
        with (self.folder / f"{Path(path).name}.log").open("wb") as log:
            process = subprocess.Popen([path, *arguments], stdout=log, stderr=log, cwd=self.folder)
        self.processes.append(process)

    def check_alive(self) -> None:
        """Exit 1 with the end of its log when one of the three has ended by itself."""
        for process in self.processes:
            if process.poll() is not None:
                log = self.folder / f"{Path(str(process.args[0])).name}.log"  # type: ignore[index]
                sys.exit(f"FAILED: {log.stem} ended by itself:\n{log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop what was started, last first."""
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Run kubectl in the namespace and return its stdout. Raises CalledProcessError."""
        self.check_alive()
        argv = [self.programs["KUBECTL"], f"--kubeconfig={self.kubeconfig}", f"--namespace={NAMESPACE}", *arguments]
        return subprocess.run(argv, input=given, capture_output=True, text=True, check=True, timeout=60).stdout

    def get(self, kind: str, *more: str) -> list[Object]:
        """Return the objects of a kind."""
        items: list[Object] = json.loads(self.kubectl("get", kind, *more, "-o", "json"))["items"]
        return items


class Node:
    """Takes the kubelet's place: runs a Pod's container on this machine and reports how it ended."""

    def __init__(self, plane: ControlPlane, sandbox: Sandbox) -> None:
        self.plane = plane
        self.sandbox = sandbox

    def start(self, pod: Object) -> subprocess.Popen[str]:
        """Start the Pod's only container, with its command line, environment and mounts as the API server has them."""
        [container] = pod["spec"]["containers"]
        env = self._environment(container)
        say(f"   pod {pod['metadata']['name']}: {shlex.join(container['command'])}")
        say(f"   environment: {' '.join(sorted(env))}; mounts: {' '.join(self._mounts(container))}")
        argv = [self.plane.programs["UNSHARE"], "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        script = self._mount_script(pod, container)
        return subprocess.Popen(
            [*argv, "sh", "-euc", script, "sh", *container["command"]],
            env={**env, "PATH": f"{Path(sys.executable).parent}:{self.sandbox.bd.parent}:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, pod: Object) -> int:
        """Run the Pod to its end, show what it printed, report its phase, and return the exit status."""
        deadline = pod["spec"].get("activeDeadlineSeconds", 120)
        process = self.start(pod)
        try:
            out, err = process.communicate(timeout=deadline)
        finally:
            process.kill()
        for line in (*out.splitlines(), *err.splitlines()):
            say(f"   | {line}")
        say(f"   exit status {process.returncode}")
        phase = "Succeeded" if process.returncode == 0 else "Failed"
        status = json.dumps({"status": {"phase": phase}})
        self.plane.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "-p", status)
        return process.returncode

    def _environment(self, container: Object) -> dict[str, str]:
        """Resolve the container's variables from the ConfigMaps and Secrets that they name."""
        env: dict[str, str] = {}
        for source in container.get("envFrom", []):
            env |= json.loads(self.plane.kubectl("get", "configmap", source["configMapRef"]["name"], "-o", "json"))[
                "data"
            ]
        for item in container["env"]:
            if "value" in item:
                env[item["name"]] = item["value"]
                continue
            reference = item["valueFrom"]["secretKeyRef"]
            path = "{.data." + reference["key"] + "}"
            encoded = self.plane.kubectl("get", "secret", reference["name"], "-o", f"jsonpath={path}")
            if encoded:
                env[item["name"]] = subprocess.run(
                    ["base64", "-d"], input=encoded, capture_output=True, text=True, check=True
                ).stdout
            elif not reference.get("optional"):
                sys.exit(f"FAILED: the Secret has no {reference['key']}")
        if "BDAUTO_LISTEN" in env:  # a Pod has an address of its own; here it would be this machine's
            env["BDAUTO_LISTEN"] = env["BDAUTO_LISTEN"].replace("0.0.0.0", "127.0.0.1")
        return env

    @staticmethod
    def _mounts(container: Object) -> dict[str, Object]:
        return {mount["mountPath"]: mount for mount in container["volumeMounts"]}

    def _mount_script(self, pod: Object, container: Object) -> str:
        """Return the shell lines that mount the volumes, make the rest read-only, and become the command."""
        base = self.plane.folder / "pods" / pod["metadata"]["uid"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        lines = [f"mount --bind {self.sandbox.folder} {self.sandbox.folder}"]
        for path, mount in self._mounts(container).items():
            content = base / mount["name"]
            content.mkdir(parents=True)
            config_map = volumes[mount["name"]].get("configMap")
            if config_map:
                data = json.loads(self.plane.kubectl("get", "configmap", config_map["name"], "-o", "json"))["data"]
                for name, text in data.items():
                    (content / name).write_text(text)
            if not Path(path).is_dir():
                lines += self._mount_point(Path(path), base / f"{mount['name']}-parent")
            lines.append(f"mount --bind {content} {path}")
            if mount.get("readOnly"):
                lines.append(f"mount -o remount,bind,ro {path}")
        if container["securityContext"]["readOnlyRootFilesystem"]:
            lines.append("mount -o remount,bind,ro /")
        return "\n".join([*lines, 'exec "$@"'])

    @staticmethod
    def _mount_point(path: Path, scratch: Path) -> list[str]:
        """Return the lines that make a mount point under a folder of this machine without writing to that folder."""
        for name in ("upper", "work"):
            (scratch / name).mkdir(parents=True)
        layers = f"lowerdir={path.parent},upperdir={scratch / 'upper'},workdir={scratch / 'work'}"
        return [f"mount -t overlay overlay -o {layers} {path.parent}", f"mkdir {path}"]


def overlay(folder: Path, source: str, sandbox: Sandbox) -> Path:
    """Write an overlay over one of the project's that points at the sandbox, with a tick every minute."""
    target = folder / "overlays" / source.replace("/", "-")
    target.mkdir(parents=True)
    metadata = json.loads((sandbox.db / "metadata.json").read_text())
    metadata["sandbox_database"] = str(sandbox.db / "sandbox.db")
    (target / "metadata.json").write_text(json.dumps(metadata))
    (target / "settings.env").write_text(f"BEADBOARD_URL={sandbox.url}\nBDAUTO_AGENT_URL={sandbox.agent_url}\n")
    every_minute = [{"op": "replace", "path": "/spec/schedule", "value": "* * * * *"}]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [os.path.relpath(ROOT / "deploy/kustomize" / source, target)],
        "configMapGenerator": [
            {"name": "beads-metadata", "behavior": "replace", "files": ["metadata.json"]},
            {"name": "bdauto-settings", "behavior": "merge", "envs": ["settings.env"]},
        ],
        "patches": [{"target": {"kind": "CronJob"}, "patch": json.dumps(every_minute)}],
    }
    (target / "kustomization.yaml").write_text(json.dumps(kustomization))
    return target


def new_pods(plane: ControlPlane, seen: set[str]) -> list[Object]:
    """Return the Pods that were not seen yet and are to be run."""
    pods = [pod for pod in plane.get("pods") if pod["metadata"]["uid"] not in seen]
    seen.update(pod["metadata"]["uid"] for pod in pods)
    return [pod for pod in pods if pod["status"].get("phase") == "Pending"]


def cron_jobs(plane: ControlPlane, sandbox: Sandbox, folder: Path) -> None:
    """The two CronJobs: the controller starts Jobs, their Pods dispatch a bead and reap one, suspension ends it."""
    say("\n== the two CronJobs")
    node, seen = Node(plane, sandbox), set[str]()
    waiting = sandbox.create("write the report", priority=0)
    stalled = sandbox.create("its agent died")
    for change in (["-s", "in_progress"], ["--append-notes", "claimed by agent 0b37aa7fd784"]):
        sandbox.run("update", stalled, *change, actor="beads-dispatcher")
    sandbox.age(stalled, 45)
    say(plane.kubectl("apply", "-k", str(overlay(folder, "base", sandbox))))
    say(plane.kubectl("get", "cronjobs"))
    wanted = {"beads-dispatcher", "beads-reaper"}
    while wanted:
        for pod in until("Pod from the CronJob controller", 130, lambda: new_pods(plane, seen)):
            wanted.discard(pod["metadata"]["labels"]["app.kubernetes.io/name"])
            check(node.run(pod) == 0, "the Pod's command succeeded")
    check([post.task for post in sandbox.posts] == [waiting], f"BeadBoard was asked once, for {waiting}")
    for bead in (waiting, stalled):
        say("\n".join(f"   {bead} | {line}" for line in sandbox.notes(bead)))
    check(sandbox.show(waiting)["status"] == "in_progress", f"{waiting} is in progress")
    check(sandbox.show(stalled)["status"] == "blocked", f"{stalled} is blocked")
    until("completed Jobs", 30, lambda: all(job["status"].get("succeeded") for job in plane.get("jobs")))
    say(plane.kubectl("get", "jobs"))

    say("== the kill switch: overlays/suspended")
    say(plane.kubectl("apply", "-k", str(overlay(folder, "overlays/suspended", sandbox))))
    say(plane.kubectl("get", "cronjobs"))
    before = {job["metadata"]["uid"] for job in plane.get("jobs")}
    time.sleep(130)
    after = {job["metadata"]["uid"] for job in plane.get("jobs")}
    check(after <= before, "no new Job within two ticks")
    plane.kubectl("delete", "cronjobs,jobs,pods", "--all")


def deployment(plane: ControlPlane, sandbox: Sandbox, folder: Path) -> None:
    """The Deployment: its Pod is probed, dispatches a bead, shows its metrics and ends in order."""
    say("\n== the Deployment: overlays/run")
    node, seen = Node(plane, sandbox), {pod["metadata"]["uid"] for pod in plane.get("pods")}
    for job in sandbox.board.jobs:
        sandbox.board.finish(job)
    bead = sandbox.create("one more", priority=0)
    say(plane.kubectl("apply", "-k", str(overlay(folder, "overlays/run", sandbox))))
    [pod] = until("Pod of the Deployment", 60, lambda: new_pods(plane, seen))
    process = node.start(pod)
    try:
        [container] = pod["spec"]["containers"]
        [port] = (item["containerPort"] for item in container["ports"])
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = container[name]["httpGet"]["path"]
            until(f"answer to the {name}", 60, lambda path=path: fetch(port, path)[0] == 200)  # type: ignore[misc]
            say(f"ok: {name} {path} answers 200")
        until("dispatch", 60, lambda: sandbox.posts and sandbox.posts[-1].task == bead)
        until("record", 20, lambda: any("dispatched: job=" in note for note in sandbox.notes(bead)))
        say(f"ok: {bead} was dispatched")
        metrics = fetch(port, "/metrics")[1]
        check('bdauto_up{target="beadboard"} 1.0' in metrics, "its metrics say that BeadBoard is up")
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=pod["spec"]["terminationGracePeriodSeconds"])
        say("\n".join(f"   | {line}" for line in err.splitlines()))
        check(process.returncode == 0, f"SIGTERM ended it in order after {time.monotonic() - started:.1f} s")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    plane.kubectl("delete", "-k", str(folder / "overlays" / "overlays-run"))


def fetch(port: int, path: str) -> tuple[int, str]:
    """GET a page from loopback: status and text."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.status, answer.read().decode()


def terraform(plane: ControlPlane, folder: Path) -> None:
    """The Terraform module: applied, its kill switch flipped and read back, its objects compared with Kustomize's."""
    say("\n== the Terraform module")
    program = os.environ.get("TERRAFORM") or shutil.which("terraform")
    if not program:
        say("skipped: terraform is not on PATH, nor named by TERRAFORM")
        return
    module = folder / "terraform"
    shutil.copytree(ROOT / "deploy/terraform", module, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))

    def tf(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [program, f"-chdir={module / 'examples/basic'}", *arguments]
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=300)
        return subprocess.CompletedProcess(argv, done.returncode, plain(done.stdout), plain(done.stderr))

    def apply(*variables: str) -> None:
        settings = [f"-var=kubeconfig={plane.kubeconfig}", "-var=wait_for_rollout=false", *variables]
        done = tf("apply", "-auto-approve", "-input=false", "-no-color", *settings)
        summary = re.findall(r"^(?:Apply complete.*|.*Error: .*)$", done.stdout + done.stderr, re.MULTILINE)
        check(done.returncode == 0, f"terraform apply {' '.join(variables)}: {'; '.join(summary)}")

    done = tf("init", "-input=false", "-no-color")
    if done.returncode != 0:
        say(f"skipped: terraform init failed:\n{done.stderr}")
        return
    cron_jobs, run = by_kustomize(plane, "base"), by_kustomize(plane, "overlays/run")
    apply()
    say(plane.kubectl("get", "cronjobs"))
    same(snapshot(plane), cron_jobs, "the API server has the same CronJobs as from deploy/kustomize/base")
    apply("-var=beads_dispatcher_enabled=false")
    say(plane.kubectl("get", "cronjobs"))
    check(all(job["spec"]["suspend"] for job in plane.get("cronjobs")), "SUSPEND is true on both CronJobs")
    apply("-var=beads_dispatcher_enabled=true")
    check(not any(job["spec"]["suspend"] for job in plane.get("cronjobs")), "SUSPEND is false on both CronJobs")
    apply("-var=mode=run")
    same(snapshot(plane), run, "in mode run, the same objects as from deploy/kustomize/overlays/run, and no CronJob")
    apply("-var=mode=run", "-var=beads_dispatcher_enabled=false")
    check(plane.get("deployments")[0]["spec"]["replicas"] == 0, "the kill switch scales the Deployment to zero")
    done = tf("destroy", "-auto-approve", "-input=false", "-no-color", f"-var=kubeconfig={plane.kubeconfig}")
    check(done.returncode == 0, "terraform destroy")


def plain(text: str) -> str:
    """Return a text without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def snapshot(plane: ControlPlane) -> dict[str, Any]:
    """Return the specs of all workloads as the API server has them, without what may differ between two tools."""
    kinds = "cronjobs,deployments,services,networkpolicies"
    return {f"{item['kind']}/{item['metadata']['name']}": essence(item["spec"]) for item in plane.get(kinds)}


def essence(value: Any) -> Any:
    """Drop annotations, defaults, empty values and the hashes in generated names, and sort the environment."""
    if isinstance(value, dict):
        kept = {key: essence(item) for key, item in value.items() if key != "annotations"}
        return {key: item for key, item in kept.items() if item not in ({}, [], None, DEFAULTS.get(key))}
    if isinstance(value, list):
        items = [essence(item) for item in value]
        named = items and all(isinstance(item, dict) and "name" in item for item in items)
        return sorted(items, key=lambda item: str(item["name"])) if named else items
    return re.sub(r"^(beads-metadata|bdauto-settings)-[a-z0-9]{10}$", r"\1", value) if isinstance(value, str) else value


def by_kustomize(plane: ControlPlane, source: str) -> dict[str, Any]:
    """Apply one of the project's overlays as it stands, take the snapshot, and delete it again."""
    path = str(ROOT / "deploy/kustomize" / source)
    plane.kubectl("apply", "-k", path)
    taken = snapshot(plane)
    plane.kubectl("delete", "-k", path)
    return taken


def same(ours: dict[str, Any], theirs: dict[str, Any], what: str) -> None:
    """Check that two snapshots are equal, and show how they differ where they are not."""
    ours_text, theirs_text = (json.dumps(taken, indent=1, sort_keys=True).splitlines() for taken in (ours, theirs))
    for line in difflib.unified_diff(ours_text, theirs_text, "terraform", "kustomize", lineterm=""):
        say(line)
    check(ours == theirs, what)


def main() -> None:
    """Run all parts in order; whatever was started is stopped, and the folder is removed, at the end."""
    programs = find_programs()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    tempfile.tempdir = "/var/tmp"  # the Pods get a /tmp of their own, which would hide the sandbox
    with tempfile.TemporaryDirectory(prefix="bdauto-e2e-") as name, Sandbox(capacity=2) as sandbox:
        folder = Path(name)
        plane = ControlPlane(folder, programs)
        try:
            plane.start()
            say(plane.kubectl("version"))
            plane.kubectl("create", "namespace", NAMESPACE)
            plane.kubectl(
                "create", "secret", "generic", "beads-agent", f"--from-literal=api-bearer-token={sandbox.token}"
            )
            parts = sys.argv[1:] or ["cronjobs", "run", "terraform"]
            if "cronjobs" in parts:
                cron_jobs(plane, sandbox, folder)
            if "run" in parts:
                deployment(plane, sandbox, folder)
            if "terraform" in parts:
                terraform(plane, folder)
        except subprocess.CalledProcessError as error:
            sys.exit(f"FAILED: {shlex.join(map(str, error.cmd))}\n{error.stdout}{error.stderr}")
        finally:
            plane.stop()
    say("\nall parts passed; nothing is left running")


if __name__ == "__main__":
    main()
