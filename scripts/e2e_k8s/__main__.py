"""Put the manifests, the Terraform module and the Helm chart on a real Kubernetes control plane on loopback.

`make e2e-k8s`, by hand; or `python -m scripts.e2e_k8s PART…` with the names of parts: `cronjobs`, `run`, `terraform`,
`jobs`, `cutover`, `helm`. What the controllers create is run, too: there is no kubelet, so this script takes its place
and runs each Pod's container on this machine, against the sandbox. Everything is gone afterwards.

The parts `terraform` and `cutover` need Kubernetes 1.34 or later, the others 1.27.

Programs are found on PATH, or by a variable: ETCD=/path/to/etcd, and so on. TERRAFORM and HELM are optional, and so is
CRDS, a folder with the definitions of PodMonitor, PrometheusRule and ExternalSecret.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

import sh

from bdauto.sandbox import Sandbox
from scripts.e2e_k8s import helm, kustomize, terraform
from scripts.e2e_k8s.control_plane import NAMESPACE, ControlPlane, check_version, find_program, find_programs
from scripts.e2e_k8s.reporting import say, until

PARTS = ("cronjobs", "run", "terraform", "jobs", "cutover", "helm")


def main() -> None:
    """Run the parts in order; whatever was started is stopped, and the folder is removed, at the end."""
    parts = sys.argv[1:] or PARTS
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    programs = find_programs()
    if {"terraform", "cutover"} & set(parts) and find_program("TERRAFORM", "terraform"):
        check_version(programs)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    tempfile.tempdir = "/var/tmp"  # the Pods get a /tmp of their own, which would hide the sandbox
    with tempfile.TemporaryDirectory(prefix="bdauto-e2e-") as name, Sandbox(capacity=2) as sandbox:
        plane = ControlPlane(Path(name), programs)
        try:
            plane.start()
            say(plane.kubectl("version"))
            plane.kubectl("create", "namespace", NAMESPACE)
            token = f"--from-literal=api-bearer-token={sandbox.token}"
            plane.kubectl("create", "secret", "generic", "beads-agent", token)
            run(parts, plane, sandbox, Path(name))
        except sh.ErrorReturnCode as error:
            sys.exit(f"FAILED: {error.full_cmd}\n{error.stdout.decode()}{error.stderr.decode()}")
        finally:
            plane.stop()
    say("\nall parts passed; nothing is left running")


def run(parts: tuple[str, ...] | list[str], plane: ControlPlane, sandbox: Sandbox, folder: Path) -> None:
    """Run these parts; what needs a program or a definition that is not there is skipped, and said."""
    operators = define(plane)
    if "cronjobs" in parts:
        kustomize.cron_jobs(plane, sandbox, folder)
    if "run" in parts:
        kustomize.deployment(plane, sandbox, folder, *(["monitoring"] if operators else []))
        if operators:
            kustomize.example(plane)
    for part, apply in (("terraform", terraform.module), ("jobs", terraform.jobs), ("cutover", terraform.cutover)):
        program = find_program("TERRAFORM", "terraform")
        if part in parts and program:
            apply(program, plane, folder / part)
        elif part in parts:
            say(f"skipped {part}: terraform is not on PATH, nor named by TERRAFORM")
    program = find_program("HELM", "helm")
    if "helm" in parts and program:
        helm.chart(program, plane, operator=operators)
    elif "helm" in parts:
        say("skipped helm: helm is not on PATH, nor named by HELM")


def define(plane: ControlPlane) -> bool:
    """Create the custom resources' definitions that CRDS names; False without any."""
    folder = os.environ.get("CRDS")
    if not folder:
        say("skipped PodMonitor, PrometheusRule and ExternalSecret: CRDS names no folder with their definitions")
        return False
    say(plane.kubectl("apply", "--server-side", "-f", folder))
    kinds = "podmonitors,prometheusrules,externalsecrets"
    until("custom resources", 30, lambda: plane.get(kinds) == [])
    return True


if __name__ == "__main__":
    main()
