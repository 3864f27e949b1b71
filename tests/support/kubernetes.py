"""An agent in Kubernetes on the stand-in of the API, in memory."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bdauto.agents.kubernetes.cluster import Cluster
from bdauto.agents.kubernetes.runner import KubernetesAgent
from bdauto.agents.kubernetes.settings import KubernetesSettings
from tests.support.fake_kubernetes import NAMESPACE, FakeKubernetes, Object
from tests.support.fakes import NOW, Clock, bead

KUBECONFIG: Object = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "fake", "cluster": {"server": "https://kubernetes.test", "insecure-skip-tls-verify": True}}],
    "users": [{"name": "fake", "user": {"token": "a-token"}}],
    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": NAMESPACE}}],
    "current-context": "fake",
}


class World:
    """The stand-in, a clock, and an agent on both."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.api = FakeKubernetes(self.clock.now)
        self.agent = self.another()

    def another(self, assignee: str = "agent", tracker: str = "tracker-1", **settings: Any) -> KubernetesAgent:
        """Return another process's agent."""
        plain: dict[str, Any] = {"kubernetes_template": "agent", "agent_slots": 4}
        return KubernetesAgent(
            KubernetesSettings(**(plain | settings)),
            Cluster(None, None, self.api.transport()),
            tracker,
            assignee,
            runtime=self.clock.runtime(),
        )

    def claimed(self, bead_id: str = "x-1", attempt: str = "w1", **metadata: Any) -> Any:
        """Return a bead that this agent has claimed."""
        own = {
            "bdauto.attempt": attempt,
            "bdauto.claimed_at": NOW.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "bdauto.jobs_folder": self.agent.place().id,
            "bdauto.ends_by": (NOW + timedelta(minutes=50)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "bdauto.host": self.agent.place().host,
        }
        return bead(bead_id, status="in_progress", metadata=own | metadata)

    def state(self, attempt: str = "w1", bead_id: str = "x-1") -> str | None:
        """Return what a new look says of a claim."""
        return self.agent.evidence([self.claimed(bead_id, attempt)])[0].states.get(bead_id)

    def pod(self, attempt: str = "w1") -> str:
        """Return the name of the attempt's only pod."""
        [name] = self.api.pod_names(attempt)
        return name

    def run_pod(self, attempt: str = "w1") -> None:
        """Let the attempt's pod run."""
        at = {"startedAt": self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")}
        self.api.write_pod(self.pod(attempt), {"phase": "Running", "containerStatuses": [_status({"running": at})]})

    def end_pod(self, attempt: str = "w1", code: int = 0, told: str = "", **status: Any) -> None:
        """End the attempt's pod with this exit status and termination message."""
        at = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "message": told, "startedAt": at}
        phase = "Failed" if code else "Succeeded"
        plain = {"phase": phase, "containerStatuses": [_status({"terminated": ended})]}
        self.api.write_pod(self.pod(attempt), plain | status)


def _status(state: Object) -> Object:
    return {"name": "agent", "state": state}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world of its own for a test."""
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(KUBECONFIG))
    monkeypatch.setenv("KUBECONFIG", str(file))
    return World()
