"""What the start of a Job in Kubernetes costs bdauto, on a stand-in of the API on loopback."""

import json
import os
import tempfile
import time
from pathlib import Path

from bdauto.agents.answers import Started
from bdauto.agents.kubernetes.cluster import Cluster
from bdauto.agents.kubernetes.runner import KubernetesAgent
from bdauto.agents.kubernetes.settings import KubernetesSettings
from benchmarks.measure import Spread
from tests.support.fake_kubernetes import FakeKubernetes
from tests.support.fakes import bead


def kubernetes_row(rounds: int) -> list[str]:
    """Return the row of the main table about the start of a Job."""
    spread = Spread.of(_starts(rounds))
    times = f"**{spread.median * 1000:.0f} ms** ({spread.p10 * 1000:.0f}–{spread.p90 * 1000:.0f})"
    return ["start of a Job in Kubernetes (a stand-in)", "", "", times, "", "", "", str(rounds)]


def _starts(rounds: int) -> list[float]:
    with tempfile.TemporaryDirectory() as name:
        served = FakeKubernetes().serve()
        file = Path(name) / "kubeconfig"
        file.write_text(json.dumps(served.kubeconfig()))
        os.environ["KUBECONFIG"] = str(file)
        settings = KubernetesSettings(kubernetes_template="agent", agent_slots=1000)
        agent = KubernetesAgent(settings, Cluster(None, None), "benchmark", "agent")
        agent.check_start()
        try:
            return [_start(agent, f"w{number}") for number in range(rounds)]
        finally:
            agent.cluster.close()
            served.close()
            del os.environ["KUBECONFIG"]


def _start(agent: KubernetesAgent, attempt: str) -> float:
    began = time.perf_counter()
    answer = agent.start(bead(), attempt)
    took = time.perf_counter() - began
    assert answer == Started(attempt), answer
    return took
