"""The Terraform module: applied, switched off and on, and put in the place of the stack that it replaces."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import sh

from scripts.e2e_k8s.comparison import KINDS, OURS, meanings, same
from scripts.e2e_k8s.control_plane import ControlPlane, find_program
from scripts.e2e_k8s.helm import IN_KUBERNETES, by_helm
from scripts.e2e_k8s.kustomize import by_kustomize
from scripts.e2e_k8s.node import ROOT
from scripts.e2e_k8s.reporting import check, say, until

KYVERNO = {
    "kind": "MutatingAdmissionPolicy",
    "metadata": {"name": "ndots"},
    "spec": {
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": ["batch", "apps"],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["cronjobs", "deployments"],
                }
            ]
        },
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [
            {
                "patchType": "JSONPatch",
                "jsonPatch": {
                    "expression": '[JSONPatch{op: "add", path: "/spec" + (object.kind == "CronJob" ? '
                    '"/jobTemplate/spec" : "") + "/template/spec/dnsConfig", value: '
                    '{"options": [{"name": "ndots", "value": "2"}]}}]'
                },
            }
        ],
    },
}
"""What Kyverno does in the stack that is replaced, done by the API server itself."""
BINDING = {
    "kind": "MutatingAdmissionPolicyBinding",
    "metadata": {"name": "ndots"},
    "spec": {"policyName": "ndots"},
}


class Terraform:
    """One working folder, applied to the cluster. `init` says whether the provider could be had."""

    def __init__(self, program: str, plane: ControlPlane, folder: Path) -> None:
        self._run = sh.Command(program).bake(
            f"-chdir={folder}",
            _tty_out=False,
            _timeout=600,
            _env={**os.environ, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"},
            _return_cmd=True,
        )
        self._kubeconfig = f"-var=kubeconfig={plane.kubeconfig}"

    def version(self) -> tuple[int, ...]:
        """Return the program's version."""
        text = json.loads(str(self._run("version", "-json")))["terraform_version"]
        return tuple(int(part) for part in text.split("-")[0].split("."))

    def init(self) -> bool:
        """Fetch the provider; False, with the reason said, where it cannot be fetched."""
        try:
            self._run("init", "-no-color")
        except sh.ErrorReturnCode as error:
            say(f"skipped: terraform init failed:\n{error.stderr.decode()}")
            return False
        return True

    def apply(self, *variables: str) -> str:
        """Apply and return the last line, the counts of what was done."""
        done = self._run("apply", "-auto-approve", "-no-color", self._kubeconfig, *variables)
        text = done.stdout.decode()
        for line in re.findall(r"^.*Warning: .*$", text, re.MULTILINE):
            say(f"   {line}")
        [summary] = re.findall(r"^Apply complete.*$", text, re.MULTILINE)
        say(f"ok: terraform apply {' '.join(variables)}: {summary}")
        return str(summary)

    def plan(self, *variables: str) -> str:
        """Plan and return the line with the counts, or `No changes`."""
        text = self._run("plan", "-no-color", self._kubeconfig, *variables).stdout.decode()
        [summary] = re.findall(r"^(?:Plan:.*|No changes)", text, re.MULTILINE)
        return str(summary)

    def forget(self, address: str) -> None:
        """Take a resource out of the state and leave it in the cluster."""
        self._run("state", "rm", address)

    def destroy(self) -> None:
        """Delete everything in the state."""
        self._run("destroy", "-auto-approve", "-no-color", self._kubeconfig)


def copy_of_the_module(folder: Path) -> Path:
    """Copy the module, so that nothing Terraform downloads or writes ends in the tree."""
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*")
    return Path(shutil.copytree(ROOT / "deploy/terraform", folder / "terraform", ignore=ignored, dirs_exist_ok=True))


def module(program: str, plane: ControlPlane, folder: Path) -> None:
    """Apply examples/basic: the same objects as from Kustomize, and a kill switch that the API server confirms."""
    say("\n== the Terraform module: examples/basic")
    terraform = Terraform(program, plane, copy_of_the_module(folder) / "examples/basic")
    if not terraform.init():
        return
    no_wait = "-var=wait_for_rollout=false"
    cron_jobs, run = by_kustomize(plane, "base"), by_kustomize(plane, "overlays/run")
    terraform.apply(no_wait)
    say(plane.kubectl("get", "cronjobs"))
    same(meanings(plane.get(KINDS, *OURS)), cron_jobs, "the API server has the same as from deploy/kustomize/base")
    terraform.apply(no_wait, "-var=beads_dispatcher_enabled=false")
    say(plane.kubectl("get", "cronjobs"))
    check(all(job["spec"]["suspend"] for job in plane.get("cronjobs")), "SUSPEND is true on both CronJobs")
    terraform.apply(no_wait, "-var=beads_dispatcher_enabled=true")
    check(not any(job["spec"]["suspend"] for job in plane.get("cronjobs")), "SUSPEND is false on both CronJobs")
    terraform.apply(no_wait, "-var=mode=run")
    same(meanings(plane.get(KINDS, *OURS)), run, "in mode run, the same as from overlays/run, and no CronJob")
    terraform.apply(no_wait, "-var=mode=run", "-var=beads_dispatcher_enabled=false")
    check(plane.get("deployments")[0]["spec"]["replicas"] == 0, "the kill switch scales the Deployment to zero")
    with _ndots(plane):
        terraform.apply(no_wait, "-var=mode=run")
        check("ndots" in json.dumps(plane.get("deployments")), "the Deployment has a dns_config that nobody asked for")
        check(terraform.plan(no_wait, "-var=mode=run") == "No changes", "the next plan shows no change")
    terraform.destroy()
    check(not plane.get(KINDS, *OURS), "terraform destroy leaves nothing")


def jobs(program: str, plane: ControlPlane, folder: Path) -> None:
    """Apply examples/kubernetes, a Job for each bead: the same objects and rights as from the chart, in both modes."""
    say("\n== the Terraform module: examples/kubernetes")
    helm = find_program("HELM", "helm")
    terraform = Terraform(program, plane, copy_of_the_module(folder) / "examples/kubernetes")
    if not helm or not terraform.init():
        say("skipped: it needs helm and the provider")
        return
    wanted = {mode: by_helm(helm, plane, *IN_KUBERNETES, f"mode={mode}") for mode in ("run", "cronjob")}
    for mode, objects in wanted.items():
        options = (f"-var=mode={mode}", "-var=wait_for_rollout=false")
        terraform.apply(*options)
        same(meanings(plane.get(KINDS, *OURS)), objects, f"in mode {mode}, the same as from the chart")
        check(terraform.plan(*options) == "No changes", "the next plan shows no change")
    terraform.destroy()
    check(not plane.get(KINDS, *OURS), "terraform destroy leaves nothing")


def cutover(program: str, plane: ControlPlane, folder: Path) -> None:
    """Apply examples/cutover: the stack with the script, then bdauto in its place, with everything changed in place."""
    say("\n== the cut-over by Terraform: examples/cutover")
    examples = copy_of_the_module(folder) / "examples/cutover"
    work = examples / "work"
    shutil.copytree(examples / "before", work)
    terraform = Terraform(program, plane, work)
    if not terraform.init():
        return
    with _ndots(plane):
        terraform.apply()
        check("ndots" in json.dumps(plane.get("cronjobs")), "the pod templates have a dns_config that nobody asked for")
        check(terraform.plan() == "No changes", "the old stack plans no change")
        before = _identities(plane)

        for file in work.glob("*.tf"):
            file.unlink()
        shutil.copytree(examples / "after", work, dirs_exist_ok=True)
        if terraform.version() < (1, 7):
            (work / "removed.tf").unlink()
            terraform.forget("kubernetes_config_map.beads_metadata")
            say("ok: Terraform has no removed block yet: terraform state rm kubernetes_config_map.beads_metadata")
        terraform.init()
        summary = terraform.plan()
        check(summary == "Plan: 1 to import, 3 to add, 3 to change, 0 to destroy.", f"the new one: {summary}")
        terraform.apply()
        say(plane.kubectl("get", "cronjobs,configmaps,networkpolicies"))
        check(
            before.items() <= _identities(plane).items(),
            "the CronJobs and the ConfigMap are the same objects as before",
        )
        commands = [
            job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
            for job in plane.get("cronjobs")
        ]
        check(all(command[0] == "bdauto" for command in commands), "both CronJobs run bdauto")
        check("ndots" in json.dumps(plane.get("cronjobs")), "the dns_config is still there")
        for name in ("moves.tf", "removed.tf"):
            (work / name).unlink(missing_ok=True)
        check(terraform.plan() == "No changes", "without moves.tf and removed.tf it plans no change")
        terraform.destroy()


@contextlib.contextmanager
def _ndots(plane: ControlPlane) -> Iterator[None]:
    """Have the API server write a dns_config into every CronJob and Deployment that is created or changed meanwhile."""
    for item in (KYVERNO, BINDING):
        given = {"apiVersion": f"admissionregistration.k8s.io/{plane.admission}", **item}
        plane.kubectl("apply", "-f", "-", given=json.dumps(given))
    probe = ("create", "cronjob", "probe", "--image=none", "--schedule=0 0 1 1 *", "--dry-run=server", "-o", "json")
    until("mutation by the admission policy", 60, lambda: "ndots" in plane.kubectl(*probe))
    yield
    for kind in ("mutatingadmissionpolicybinding", "mutatingadmissionpolicy"):
        plane.kubectl("delete", kind, "ndots")
    until("the end of the mutation", 60, lambda: "ndots" not in plane.kubectl(*probe))  # or the next part has it, too


def _identities(plane: ControlPlane) -> dict[str, str]:
    objects = [*plane.get("cronjobs"), *plane.get("configmaps")]
    return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["uid"] for item in objects}
