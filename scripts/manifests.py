"""Write the objects of deploy/kustomize as the Helm chart prints them: `make manifests`. It needs helm on PATH.

The ConfigMaps are not among them. Kustomize generates those with a hash in their names, so that a changed setting
replaces the pods. The chart's checksum of the settings, which does the same for Helm, is left out.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import sh

from scripts.e2e_k8s.helm import ADDRESSES, CHART
from scripts.e2e_k8s.kustomize import KUSTOMIZE

HEAD = "# Printed by helm from deploy/helm/bdauto: change it there and run `make manifests`.\n"
CHECKSUM = re.compile(r"^ +annotations:\n +# A changed setting .*\n +bdauto/config-checksum: .*\n", re.MULTILINE)
PARTS = {
    "base/cronjobs.yaml": ("cronjobs",),
    "base/networkpolicy.yaml": ("networkpolicy",),
    "overlays/run/deployment.yaml": ("deployment", "mode=run"),
    "components/kubernetes/kubernetes.yaml": (
        "kubernetes",
        "kubernetes.enabled=true",
        "beadboardUrl=",
        "agent.url=",
        "kubernetes.image=agent:0.1.0",
    ),
    "components/two-replicas/poddisruptionbudget.yaml": ("poddisruptionbudget", "mode=run", "replicas=2"),
    "components/monitoring/monitoring.yaml": (
        "monitoring",
        "mode=run",
        "podMonitor.enabled=true",
        "prometheusRule.enabled=true",
    ),
}
"""The chart's template behind each file, and the values for it."""


def printed() -> Iterator[tuple[Path, str]]:
    """Yield each file and what helm prints for it."""
    for name, (template, *values) in PARTS.items():
        options = [f"--set={value}" for value in (*ADDRESSES, *values)]
        text = sh.helm("template", "bdauto", CHART, f"--show-only=templates/{template}.yaml", *options, _tty_out=False)
        yield KUSTOMIZE / name, HEAD + CHECKSUM.sub("", str(text))


RULES = CHART / "files" / "rules.yaml"
"""The chart's own copy of the alerts: Helm reads nothing outside of a chart, and warns of symbolic links."""

if __name__ == "__main__":
    RULES.write_text((CHART.parents[1] / "monitoring" / "rules.yaml").read_text())
    for path, text in printed():
        path.write_text(text)
