"""The Helm chart: installed, switched off, changed to the other mode, and taken away."""

from typing import Any

import sh

from scripts.e2e_k8s.comparison import KINDS, OURS, meanings, same
from scripts.e2e_k8s.control_plane import NAMESPACE, ControlPlane
from scripts.e2e_k8s.kustomize import by_kustomize
from scripts.e2e_k8s.node import ROOT
from scripts.e2e_k8s.reporting import check, say

CHART = ROOT / "deploy" / "helm" / "bdauto"
KEEP = "--reset-then-reuse-values"
"""How an upgrade keeps the values that the operator has given so far."""
ADDRESSES = (
    "beadboardUrl=http://beadboard.beadboard.svc.cluster.local",
    "agent.url=http://claude-agent-service.claude-agent.svc.cluster.local:8080",
    "dolt.host=dolt.beads-server.svc.cluster.local",
)
"""The values with which the chart makes the same objects as deploy/kustomize."""


IN_KUBERNETES = ("kubernetes.enabled=true", "kubernetes.image=agent:1", ADDRESSES[2])
"""The values with which the chart makes the same objects as the module's examples/kubernetes."""


def by_helm(program: str, plane: ControlPlane, *values: str) -> dict[str, Any]:
    """Install the chart with these values, read what the API server made of it, and take it away again."""
    helm = _helm(program, plane)
    helm("install", "bdauto", str(CHART), *(f"--set={value}" for value in values))
    taken = meanings(plane.get(KINDS, *OURS))
    helm("uninstall", "bdauto", "--wait")
    return taken


def _helm(program: str, plane: ControlPlane) -> Any:
    return sh.Command(program).bake(
        f"--kubeconfig={plane.kubeconfig}", f"--namespace={NAMESPACE}", _tty_out=False, _timeout=300
    )


def chart(program: str, plane: ControlPlane, *, operator: bool) -> None:
    """Install the chart in both modes; `operator` says whether the Prometheus operator's definitions are there."""
    say("\n== the Helm chart")
    helm = _helm(program, plane)
    say(helm("version", "--short"))
    cron_jobs, run = by_kustomize(plane, "base"), by_kustomize(plane, "overlays/run")

    def upgrade(option: str, *values: str) -> None:
        helm("upgrade", option, "bdauto", str(CHART), *(f"--set={value}" for value in values))
        say(f"ok: helm upgrade {option} {' '.join(values)}")

    upgrade("--install", *ADDRESSES)
    say(plane.kubectl("get", "cronjobs"))
    same(meanings(plane.get(KINDS, *OURS)), cron_jobs, "the API server has the same as from deploy/kustomize/base")
    upgrade(KEEP, "enabled=false")
    check(all(job["spec"]["suspend"] for job in plane.get("cronjobs")), "SUSPEND is true on both CronJobs")
    upgrade(
        KEEP,
        "enabled=true",
        "mode=run",
        *(("podMonitor.enabled=true", "prometheusRule.enabled=true") if operator else ()),
    )
    same(meanings(plane.get(KINDS, *OURS)), run, "in mode run, the same as from overlays/run, and no CronJob")
    if operator:
        check(len(plane.get("podmonitors,prometheusrules")) == 2, "the PodMonitor and the PrometheusRule are there")
    upgrade(KEEP, "agent.existingSecret=beadboard-agent-service", "agent.tokenKey=api_bearer_token")
    volumes = plane.get("deployments")[0]["spec"]["template"]["spec"]["volumes"]
    [secret] = (volume["secret"] for volume in volumes if "secret" in volume)
    named = (secret["secretName"], secret["items"][0]["key"])
    check(named == ("beadboard-agent-service", "api_bearer_token"), "the token comes from a Secret that exists already")
    upgrade(KEEP, "enabled=false")
    check(plane.get("deployments")[0]["spec"]["replicas"] == 0, "the kill switch scales the Deployment to zero")
    say(helm("status", "bdauto"))
    helm("uninstall", "bdauto")
    check(not plane.get(KINDS, *OURS), "helm uninstall leaves nothing")
