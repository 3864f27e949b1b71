"""What bdauto believes of the Kubernetes API and its Job controller: by the stand-in, and by real ones on PATH."""

import itertools
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdauto.agents.answers import Answer, AtCapacity, Misconfigured, NotStarted, Refused, Started
from bdauto.agents.kubernetes.checks import checks
from bdauto.agents.kubernetes.cluster import Cluster
from bdauto.agents.kubernetes.runner import KubernetesAgent
from bdauto.agents.kubernetes.settings import KubernetesSettings
from bdauto.agents.kubernetes.template import LONGEST_PROMPT, log_of
from bdauto.agents.runner import CheckContext
from bdauto.common.clock import utc_now
from bdauto.common.errors import ServiceRefusal
from bdauto.domain.agent_end import Why
from bdauto.domain.bead import Bead
from bdauto.domain.record import Result, Run
from tests.support.fake_kubernetes import Failure, FakeKubernetes, Object, template
from tests.support.fakes import bead
from tests.support.kubelet import wait_for
from tests.support.real_kubernetes import RealKubernetes

ROOT = Path(__file__).parents[2]
_names = itertools.count()


class Side:
    """One of the two, and what happens to its pods."""

    def __init__(self, api: Any, kubeconfig: Path) -> None:
        self.api = api
        self.kubeconfig = kubeconfig
        self.clusters: list[Cluster] = []

    @property
    def real(self) -> bool:
        return isinstance(self.api, RealKubernetes)

    def agent(self, **settings: Any) -> KubernetesAgent:
        plain: dict[str, Any] = {"kubernetes_template": "agent", "agent_slots": 50}
        self.clusters.append(Cluster(None, None))
        return KubernetesAgent(KubernetesSettings(**(plain | settings)), self.clusters[-1], "t-1", "agent")

    def close(self) -> None:
        for cluster in self.clusters:
            cluster.close()

    def template(self, **spec: Any) -> None:
        if self.real:
            self.api.apply(template(**spec))
        else:
            self.api.cron_jobs["agent"] = template(**spec)

    def quota(self, what: str, hard: int) -> None:
        if self.real:
            quota = {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": "q"},
                "spec": {"hard": {what: hard}},
            }
            self.api.apply(quota)
            wait_for(
                "quota",
                lambda: (
                    what in json.loads(self.api.kubectl("get", "quota", "q", "-o", "json"))["status"].get("hard", {})
                ),
            )
        elif what == "pods":
            self.api.pods_allowed = hard
        else:
            self.api.refuse = Failure(403, "Forbidden", "jobs.batch is forbidden: exceeded quota: q, requested: …")

    def pod(self, attempt: str = "w1") -> Object:
        def found() -> list[Object]:
            return [pod for pod in self.api.all_pods() if pod["metadata"]["labels"].get("bdauto/attempt") == attempt]

        pod: Object = wait_for("pod", found)[0]
        return pod

    def write(self, status: Object, attempt: str = "w1") -> None:
        self.api.write_pod(self.pod(attempt)["metadata"]["name"], status)

    def run_pod(self) -> None:
        self.write(
            {"phase": "Running", "containerStatuses": [_container({"running": {"startedAt": _now()}}, ready=True)]}
        )

    def end_pod(self, code: int, told: str = "", **more: Any) -> None:
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "message": told, "finishedAt": _now()}
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [_container({"terminated": ended})]}
        self.write(status | more)

    def claimed(self, attempt: str = "w1") -> Bead:
        own = {"bdauto.attempt": attempt, "bdauto.jobs_folder": self.agent().place().id}
        return bead("x-1", status="in_progress", metadata=own)

    def state(self, attempt: str = "w1") -> str | None:
        return self.agent().evidence([self.claimed(attempt)])[0].states.get("x-1")

    def waits(self) -> str:
        return self.agent().evidence([self.claimed()])[0].waits.get("x-1", "")

    def becomes(self, state: str, attempt: str = "w1") -> None:
        wait_for(state, lambda: self.state(attempt) == state, 30)

    def end(self) -> Run:
        found: Run = wait_for("end", lambda: self.agent().evidence([self.claimed()])[0].ends.get("x-1"), 30)
        return found


def _container(state: Object, *, ready: bool = False) -> Object:
    return {"name": "agent", "state": state, "ready": ready, "restartCount": 0, "image": "i", "imageID": "i"}


def _now() -> str:
    return utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(params=["stand-in", "real-k8s"])
def side(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Side]:
    file = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(file))
    if request.param == "stand-in":
        fake = FakeKubernetes()
        served = fake.serve()
        file.write_text(json.dumps(served.kubeconfig()))
        made = Side(fake, file)
        yield made
        made.close()
        served.close()
    else:
        plane = request.getfixturevalue("control_plane")
        real = RealKubernetes(plane, f"contract-{os.getpid()}-{next(_names)}", tmp_path)
        real.apply(template())
        made = Side(real, file)
        yield made
        made.close()


def test_of_sixteen_that_start_one_attempt_all_say_started_and_one_pod_is(side: Side) -> None:
    agents, answers = [side.agent() for _ in range(16)], list[Answer]()
    threads = [threading.Thread(target=lambda one=one: answers.append(one.start(bead("x-1"), "w1"))) for one in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [Started("w1")] * 16
    side.pod()
    assert (len(side.api.all_jobs()), len(side.api.all_pods())) == (1, 1)


def test_a_pod_from_pending_to_its_end(side: Side) -> None:
    side.agent().start(bead("x-1"), "w1")
    assert side.state() == "queued"
    side.pod()
    side.run_pod()
    side.becomes("running")
    side.end_pod(0, '{"state": "completed", "cost_usd": 0.5, "session": "s-1"}')
    end = side.end()
    assert (end.result, end.cost_usd, end.session) == (Result.completed, 0.5, "s-1")
    side.agent().mark_recorded("w1", deleted=False)
    [job] = side.api.all_jobs()
    assert (job["spec"]["ttlSecondsAfterFinished"], job["metadata"]["labels"]["bdauto/recorded"]) == (604800, "true")
    assert side.agent().unrecorded() == []
    assert side.state() == "completed"


def test_a_tombstone_takes_the_name_and_has_no_pod(side: Side) -> None:
    assert side.state() == "not started"
    side.agent().forbid_start(side.claimed())
    assert isinstance(side.agent().start(bead("x-1"), "w1"), NotStarted)
    assert side.state() == "not started"
    assert (len(side.api.all_jobs()), side.api.all_pods()) == (1, [])
    assert side.agent().status().free == 50


def test_what_keeps_a_log_has_no_pod_and_tells_how_its_job_ended(side: Side) -> None:
    about = {"tracker": "t-1", "bead": "x-1", "attempt": "w1"}
    side.agent().cluster.create_job(log_of(**about, state="failed", log="one\n" + "x" * 16_000))
    agent = side.agent()
    assert (agent.jobs_of(bead("x-1")), agent.job_state("w1"), agent.status().free) == (["w1"], "failed", 50)
    assert b"".join(agent.output("w1").read()).startswith(b"one\nxx")
    assert (side.api.all_pods(), side.agent().unrecorded(), side.state()) == ([], [], "not started")


def test_a_quota_on_pods_makes_the_job_wait_and_say_so(side: Side) -> None:
    side.quota("pods", 0)
    assert side.agent().start(bead("x-1"), "w1") == Started("w1")
    events = side.agent().cluster.events("Job", "bdauto-w1")
    words = wait_for("event", lambda: [one["message"] for one in side.agent().cluster.events("Job", "bdauto-w1")], 30)
    assert "exceeded quota" in words[0]
    assert list(events)
    assert side.state() == "queued"
    assert [one.give_up for one in side.agent().running_jobs()] == [""]


def test_a_quota_on_jobs_is_at_capacity(side: Side) -> None:
    side.quota("count/jobs.batch", 0)
    answer = side.agent().start(bead("x-1"), "w1")
    assert isinstance(answer, AtCapacity)
    assert "exceeded quota: q" in answer.words


def test_what_the_server_finds_invalid_is_refused_with_its_words(side: Side) -> None:
    if not side.real:
        side.api.refuse = Failure(422, "Invalid", 'Job.batch "bdauto-w" is invalid: must be no more than 63 characters')
    answer = side.agent().start(bead("x-1"), "w" * 80)
    assert isinstance(answer, Refused)
    assert "63" in answer.error


def test_the_longest_prompt_is_accepted(side: Side, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("é" * (LONGEST_PROMPT // 2))
    agent = side.agent(agent_prompt=tmp_path / "prompt")
    assert agent.problem_with(bead("x-1")) == ""
    assert agent.start(bead("x-1"), "w1") == Started("w1")


def test_a_suspended_job_waits_and_can_be_cancelled_without_a_pod(side: Side) -> None:
    side.template(suspend=True)
    side.agent().start(bead("x-1"), "w1")
    assert (side.state(), side.waits()) == ("queued", "suspended")
    assert side.agent().cancel("w1", "ann") == "cancelled"
    assert side.api.all_pods() == []
    assert side.end().words == "cancelled by ann"


def test_a_running_job_that_is_cancelled_leaves_no_pod(side: Side) -> None:
    side.agent().start(bead("x-1"), "w1")
    side.run_pod()
    assert side.agent().cancel("w1", "ann") == "cancelled"
    wait_for("end of the pod", lambda: not side.api.all_pods())
    assert side.end().result is Result.stopped


def test_a_deleted_pod_has_no_successor(side: Side) -> None:
    side.agent().start(bead("x-1"), "w1")
    side.run_pod()
    side.api.delete_pod(side.pod()["metadata"]["name"])
    end = side.end()
    assert (end.result, end.words.startswith("its pod was deleted")) == (Result.stopped, True)
    assert side.api.all_pods() == []


def test_a_disruption_is_told_with_its_reason(side: Side) -> None:
    side.agent().start(bead("x-1"), "w1")
    side.run_pod()
    told = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    side.end_pod(143, conditions=[told])
    end = side.end()
    assert (end.result, end.words) == (
        Result.stopped,
        "Kubernetes took its pod away: EvictionByEvictionAPI: drained",
    )
    assert len(side.api.all_pods()) <= 1


def test_an_image_without_a_name_is_given_up_at_once(side: Side) -> None:
    side.agent().start(bead("x-1"), "w1")
    waiting = {"waiting": {"reason": "InvalidImageName", "message": 'couldn\'t parse image name "A B"'}}
    side.write({"phase": "Pending", "containerStatuses": [_container(waiting)]})
    agent = side.agent()
    [running] = agent.running_jobs()
    assert agent.stop("w1", running.give_up)
    end = side.end()
    assert (end.result, end.why) == (Result.error, Why.config)
    assert end.words.startswith("InvalidImageName: couldn't parse")


def test_a_job_that_its_ttl_has_removed_is_not_known_and_its_name_is_free(side: Side) -> None:
    side.agent().start(bead("x-1"), "w1")
    side.run_pod()
    side.end_pod(0)
    side.becomes("completed")
    side.agent().cluster.patch_job("bdauto-w1", {"spec": {"ttlSecondsAfterFinished": 1}})
    wait_for("removal", lambda: not side.api.all_jobs(), 30)
    assert side.agent().job_state("w1") is None
    assert side.agent().jobs_of(bead("x-1")) == []


def test_a_dry_run_tells_the_server_s_time_and_makes_nothing(side: Side) -> None:
    agent = side.agent()
    agent.start(bead("x-1"), "w1")
    [job] = agent._jobs()
    assert not agent._late_by_server(job)
    assert len(side.api.all_jobs()) == 1


def test_rights_are_those_of_the_role_and_no_more(side: Side) -> None:
    if not side.real:
        side.api.denied.add("create jobs")
        assert isinstance(side.agent().start(bead("x-1"), "w1"), Misconfigured)
        side.api.denied.clear()
    else:
        side.api.kubectl("create", "serviceaccount", "bdauto")
        as_account(side)
        agent = side.agent()
        with pytest.raises(ServiceRefusal, match="403"):
            agent.cluster.job("bdauto-w1")
        role = (ROOT / "deploy/kustomize/components/kubernetes/kubernetes.yaml").read_text()
        [rules] = [one for one in role.split("---") if "\nkind: Role\n" in one]
        side.api.kubectl("apply", "-f", "-", given=rules)
        side.api.kubectl("create", "rolebinding", "b", "--role=bdauto", f"--serviceaccount={side.api.namespace}:bdauto")
    agent = side.agent()
    wait_for("rights", lambda: agent.start(bead("x-1"), "w1") == Started("w1"))
    levels = {check.name: check.level for check in checks(agent, CheckContext(utc_now))}
    assert (levels["rights"], levels["template"]) == ("ok", "ok")
    assert side.state() == "queued"
    assert agent.cancel("w1", "ann") == "cancelled"
    agent.forbid_start(side.claimed("w2"))
    agent.mark_recorded("w1", deleted=False)
    assert agent.jobs_of(bead("x-1")) == ["w1"]


def as_account(side: Side) -> None:
    """Go on with the rights of the service account `bdauto`."""
    token = side.api.kubectl("create", "token", "bdauto").strip()
    config = json.loads(side.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    side.kubeconfig.write_text(json.dumps(config))
