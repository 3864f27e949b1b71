"""The manifests: what Kubernetes' controllers make of them is run, and ends as it should."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from bdauto.sandbox import Sandbox
from scripts.e2e_k8s.comparison import KINDS, OURS, meanings
from scripts.e2e_k8s.control_plane import NAMESPACE, ControlPlane, Object
from scripts.e2e_k8s.node import ROOT, Node
from scripts.e2e_k8s.reporting import check, fetch, say, until

KUSTOMIZE = ROOT / "deploy" / "kustomize"


def overlay(folder: Path, source: str, sandbox: Sandbox, *components: str) -> Path:
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
        "resources": [os.path.relpath(KUSTOMIZE / source, target)],
        "components": [os.path.relpath(KUSTOMIZE / "components" / name, target) for name in components],
        "configMapGenerator": [
            {"name": "beads-metadata", "behavior": "replace", "files": ["metadata.json"]},
            {"name": "bdauto-settings", "behavior": "merge", "envs": ["settings.env"]},
        ],
        "patches": [{"target": {"kind": "CronJob"}, "patch": json.dumps(every_minute)}],
    }
    (target / "kustomization.yaml").write_text(json.dumps(kustomization))
    return target


def by_kustomize(plane: ControlPlane, source: str) -> dict[str, Any]:
    """Apply one of the project's folders as it stands, read what the API server made of it, and delete it again."""
    plane.kubectl("apply", "-k", str(KUSTOMIZE / source))
    taken = meanings(plane.get(KINDS, *OURS))
    plane.kubectl("delete", "-k", str(KUSTOMIZE / source))
    return taken


def new_pods(plane: ControlPlane, seen: set[str]) -> list[Object]:
    """Return the Pods that were not seen yet and are to be run."""
    pods = [pod for pod in plane.get("pods") if pod["metadata"]["uid"] not in seen]
    seen.update(pod["metadata"]["uid"] for pod in pods)
    return [pod for pod in pods if pod["status"].get("phase") == "Pending"]


def completed(plane: ControlPlane) -> set[str]:
    """Return the names of the CronJobs that have a completed Job."""
    jobs = [job["metadata"] for job in plane.get("jobs") if job["status"].get("succeeded")]
    return {owner["name"] for metadata in jobs for owner in metadata["ownerReferences"]}


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
    names = {"beads-dispatcher", "beads-reaper"}
    wanted = set(names)
    while wanted:
        for pod in until("Pod from the CronJob controller", 130, lambda: new_pods(plane, seen)):
            wanted.discard(pod["metadata"]["labels"]["app.kubernetes.io/name"])
            check(node.run(pod) == 0, "the Pod's command succeeded")
    check([post.task for post in sandbox.posts] == [waiting], f"BeadBoard was asked once, for {waiting}")
    for bead in (waiting, stalled):
        say("\n".join(f"   {bead} | {line}" for line in sandbox.notes(bead)))
    check(sandbox.show(waiting)["status"] == "in_progress", f"{waiting} is in progress")
    check(sandbox.show(stalled)["status"] == "blocked", f"{stalled} is blocked")
    until("completed Job of each", 30, lambda: names <= completed(plane))  # a slow machine is in the next tick by now
    say(plane.kubectl("get", "jobs"))

    say("== the kill switch: overlays/suspended")
    say(plane.kubectl("apply", "-k", str(overlay(folder, "overlays/suspended", sandbox))))
    say(plane.kubectl("get", "cronjobs"))
    before = {job["metadata"]["uid"] for job in plane.get("jobs")}
    time.sleep(130)
    after = {job["metadata"]["uid"] for job in plane.get("jobs")}
    check(after <= before, "no new Job within two ticks")
    plane.kubectl("delete", "cronjobs,jobs,pods", "--all")


def deployment(plane: ControlPlane, sandbox: Sandbox, folder: Path, *components: str) -> None:
    """The Deployment: its Pod is probed, dispatches a bead, shows its metrics and ends in order."""
    say("\n== the Deployment: overlays/run" + "".join(f" with components/{name}" for name in components))
    node, seen = Node(plane, sandbox), {pod["metadata"]["uid"] for pod in plane.get("pods")}
    for job in sandbox.board.jobs:
        sandbox.board.finish(job)
    bead = sandbox.create("one more", priority=0)
    say(plane.kubectl("apply", "-k", str(overlay(folder, "overlays/run", sandbox, *components))))
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
        for target in ("beadboard", "agent"):
            check(f'bdauto_up{{target="{target}"}} 1.0' in metrics, f"its metrics say that {target} is up")
        started = time.monotonic()
        process.signal(signal.SIGTERM)
        process.wait(timeout=pod["spec"]["terminationGracePeriodSeconds"])
        say("\n".join(f"   | {line}" for line in process.stderr.decode().splitlines()))
        check(process.exit_code == 0, f"SIGTERM ended it in order after {time.monotonic() - started:.1f} s")
    finally:
        if process.is_alive():
            process.kill()
    plane.kubectl("delete", "-k", str(folder / "overlays" / "overlays-run"))


def example(plane: ControlPlane) -> None:
    """The example overlay, with the operators' definitions in the cluster: the API server accepts every object."""
    say("\n== the example overlay: examples/cluster")
    path = str(KUSTOMIZE / "examples/cluster")
    say(plane.kubectl("apply", "-k", path))
    kinds = "podmonitors,prometheusrules,externalsecrets"
    check(len(plane.get(kinds)) == 3, "the PodMonitor, the PrometheusRule and the ExternalSecret are there")
    plane.kubectl("delete", "-k", path)
