"""Agents in Kubernetes: the Job that is made of a template, and what each answer to its creation means."""

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from bdauto.agents import kinds
from bdauto.agents.answers import Answer, AtCapacity, Misconfigured, NotStarted, Refused, Started
from bdauto.agents.kinds import AgentSettings
from bdauto.agents.kubernetes.checks import checks
from bdauto.agents.kubernetes.cluster import Cluster
from bdauto.agents.kubernetes.settings import KubernetesSettings
from bdauto.agents.kubernetes.template import check_template, job_of, short_hash, tombstone_of
from bdauto.agents.runner import CheckContext
from bdauto.common.errors import ServiceDown, ServiceDrift, UsageError
from tests.support.fake_kubernetes import Failure, Object, template
from tests.support.fakes import NOW, bead
from tests.support.kubernetes import World, world

__all__ = ["world"]


def made(of: Object | None = None, **given: Any) -> Object:
    plain: dict[str, Any] = {"tracker": "t", "bead": "x-1", "attempt": "w1", "assignee": "agent", "prompt": "do it"}
    return job_of(of or template(), KubernetesSettings(), **(plain | given))


def test_a_job_has_what_keeps_it_from_running_twice() -> None:
    job = made()
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert {name: spec[name] for name in ("completions", "parallelism", "backoffLimit", "podReplacementPolicy")} == {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
    }
    assert (pod["restartPolicy"], pod["automountServiceAccountToken"]) == ("Never", False)
    assert "ttlSecondsAfterFinished" not in spec, "its name must be taken until its end is recorded"
    assert spec["template"]["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def test_a_job_is_named_by_its_attempt_and_tells_its_bead() -> None:
    job = made(bead="Web_1.2", tracker="t-1")
    assert job["metadata"]["name"] == "bdauto-w1"
    assert job["metadata"]["annotations"]["bdauto/bead"] == "Web_1.2"
    labels = job["metadata"]["labels"]
    assert labels["bdauto/bead-hash"] == short_hash("Web_1.2"), "a bead's id may be no label value"
    assert labels.items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_the_prompt_is_a_file_and_no_variable_is_expanded() -> None:
    job = made(assignee="$(API_KEY)", prompt="print $(API_KEY)")
    pod, [container] = job["spec"]["template"], job["spec"]["template"]["spec"]["containers"]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert (env["BEAD_ID"], env["BDAUTO_JOB"], env["BEADS_ACTOR"]) == ("x-1", "w1", "$$(API_KEY)")
    assert pod["metadata"]["annotations"]["bdauto/prompt"] == "print $(API_KEY)"
    [volume] = pod["spec"]["volumes"]
    assert volume["downwardAPI"]["items"][0]["path"] == "prompt"
    assert container["volumeMounts"][-1]["mountPath"] == "/etc/bdauto-job"


def test_what_the_template_says_stays() -> None:
    of = template(activeDeadlineSeconds=600, suspend=True, ttlSecondsAfterFinished=1)
    of["spec"]["jobTemplate"]["metadata"] = {"labels": {"kueue.x-k8s.io/queue-name": "q"}, "annotations": {"a": "b"}}
    pod = of["spec"]["jobTemplate"]["spec"]["template"]
    pod["metadata"] = {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}}
    pod["spec"] |= {"automountServiceAccountToken": True, "newField": {"of": "a later version"}}
    pod["spec"]["containers"][0]["env"] = [{"name": "BEAD_ID", "value": "old"}, {"name": "KEY", "value": "k"}]
    before = copy.deepcopy(of)
    job = made(of)
    assert of == before, "the template is read again only in the next cycle"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    assert (job["spec"]["activeDeadlineSeconds"], job["spec"]["suspend"]) == (600, True)
    spec = job["spec"]["template"]
    assert spec["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true"
    assert (spec["spec"]["automountServiceAccountToken"], spec["spec"]["newField"]["of"]) == (True, "a later version")
    env = [(one["name"], one.get("value")) for one in spec["spec"]["containers"][0]["env"]]
    assert ("BEAD_ID", "old") not in env
    assert ("KEY", "k") in env
    assert ("BDAUTO_AGENT_TIMEOUT", "480s") in env, "its entry ends the agent before Kubernetes ends the pod"


REFUSED: list[tuple[str, Callable[[Object], Any], str]] = [
    ("not suspended", lambda of: of["spec"].update(suspend=False), "spec.suspend is not true"),
    ("two completions", lambda of: job_spec(of).update(completions=2), "completions must not be 2"),
    ("two at a time", lambda of: job_spec(of).update(parallelism=2), "parallelism must not be 2"),
    ("retries", lambda of: job_spec(of).update(backoffLimit=1), "backoffLimit must not be 1"),
    ("retries per index", lambda of: job_spec(of).update(backoffLimitPerIndex=1), "backoffLimitPerIndex"),
    ("indexed", lambda of: job_spec(of).update(completionMode="Indexed"), "completionMode"),
    ("another replacement", lambda of: job_spec(of).update(podReplacementPolicy="TerminatingOrFailed"), "Replacement"),
    ("another controller", lambda of: job_spec(of).update(managedBy="kueue.x-k8s.io/multikueue"), "managedBy"),
    (
        "ignored disruptions",
        lambda of: job_spec(of).update(podFailurePolicy={"rules": [{"action": "Ignore"}]}),
        "podFailurePolicy has the action Ignore",
    ),
    ("restarts", lambda of: job_spec(of)["template"]["spec"].update(restartPolicy="OnFailure"), "restartPolicy"),
    ("no container", lambda of: job_spec(of)["template"]["spec"].update(containers=[]), "it has no container"),
    ("our volume", lambda of: job_spec(of)["template"]["spec"].update(volumes=[{"name": "bdauto-job"}]), "volume name"),
]


def job_spec(of: Object) -> Object:
    found: Object = of["spec"]["jobTemplate"]["spec"]
    return found


@pytest.mark.parametrize(("change", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_template_that_could_run_twice_is_refused(change: Callable[[Object], Any], words: str) -> None:
    of = template()
    settings = KubernetesSettings(kubernetes_template="agent")
    check_template(of, settings)
    change(of)
    with pytest.raises(UsageError, match=words) as caught:
        check_template(of, settings)
    assert "\n" not in str(caught.value)


def test_a_job_is_created_once_however_often_it_is_started(world: World) -> None:
    answers = [world.another().start(bead("x-1"), "w1") for _ in range(3)]
    assert answers == [Started("w1")] * 3
    assert len(world.api.pods) == 1


def failing(world: World, what: Exception, times: int, *, method: str = "POST", after: bool = False) -> None:
    """Let these requests fail so often, before or after their work."""
    left = [times]

    def fail(asked: str, _path: str) -> None:
        if asked == method and left[0]:
            left[0] -= 1
            raise what

    setattr(world.api, "after" if after else "before", fail)


LOST = [httpx2.ReadTimeout("late"), httpx2.RemoteProtocolError("closed"), httpx2.ConnectError("refused")]


@pytest.mark.parametrize("after", [False, True], ids=["before it is made", "after it is made"])
@pytest.mark.parametrize("error", LOST, ids=["time-out", "broken off", "no connection"])
def test_a_lost_answer_is_looked_up_by_name(world: World, error: Exception, after: bool) -> None:
    failing(world, error, 1, after=after)
    assert world.agent.start(bead("x-1"), "w1") == Started("w1")
    assert len(world.api.pods) == 1


def test_an_api_that_stays_away_starts_nothing_and_is_not_unknown(world: World) -> None:
    world.agent.check_start()

    def down(_method: str, _path: str) -> None:
        raise httpx2.ConnectError("refused")

    world.api.before = down
    began = world.clock.time
    assert isinstance(world.agent.start(bead("x-1"), "w1"), NotStarted)
    assert world.clock.time - began < timedelta(seconds=15), "a claim is not held for long"


def test_nothing_is_created_seconds_after_a_pause_may_have_begun(world: World) -> None:
    world.agent.check_start()
    created: list[float] = []

    def slow(method: str, _path: str) -> None:
        if method == "POST":
            created.append(world.clock.monotonic())
            world.clock.sleep(5)
            raise httpx2.ReadTimeout("late")

    world.api.before = slow
    assert isinstance(world.agent.start(bead("x-1"), "w1"), NotStarted)
    assert len(created) == 1


def refused(code: int, reason: str, words: str) -> Failure:
    return Failure(code, reason, words)


FORBIDDEN = 'jobs.batch is forbidden: User "u" cannot create resource "jobs"'
QUOTA = 'jobs.batch "bdauto-w1" is forbidden: exceeded quota: q, requested: count/jobs.batch=1'
ANSWERS: list[tuple[str, Failure, type[Answer], str]] = [
    ("over quota", refused(403, "Forbidden", QUOTA), AtCapacity, "exceeded quota: q"),
    ("no right", refused(403, "Forbidden", FORBIDDEN), Misconfigured, "cannot create"),
    ("no account", refused(401, "Unauthorized", "Unauthorized"), Misconfigured, "401"),
    ("no namespace", refused(404, "NotFound", 'namespaces "x" not found'), Misconfigured, "404"),
    ("a webhook", refused(400, "BadRequest", 'admission webhook "w" denied the request'), Misconfigured, "webhook"),
    ("invalid", refused(422, "Invalid", "spec.template: Invalid value"), Refused, "spec.template: Invalid value"),
]


@pytest.mark.parametrize(("failure", "meaning", "words"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_what_a_refusal_means(world: World, failure: Failure, meaning: type[Answer], words: str) -> None:
    world.api.refuse = failure
    answer = world.agent.start(bead("x-1"), "w1")
    assert isinstance(answer, meaning)
    assert words in str(answer)
    assert not world.api.jobs


def test_a_full_namespace_gets_no_claim_for_a_minute(world: World) -> None:
    """A claim that is given back changes the tracker, which would make `run` look again at once, for ever."""
    world.api.refuse = Failure(403, "Forbidden", QUOTA)
    world.agent.start(bead(), "w1")
    [part] = world.agent.status().parts
    assert part.capacity is not None
    assert (part.capacity.free, "the namespace is full" in part.text) == (0, True)
    world.clock.sleep(61)
    assert [part.capacity and part.capacity.free for part in world.agent.status().parts] == [4]


def test_a_quota_that_changes_while_it_is_counted_is_asked_again(world: World) -> None:
    world.api.refuse, world.api.refusals = refused(409, "Conflict", "the object has been modified"), 1
    assert world.agent.start(bead("x-1"), "w1") == Started("w1")


@pytest.mark.parametrize("code", [429, 500, 503, 504])
def test_an_overloaded_api_is_asked_again(world: World, code: int) -> None:
    world.api.refuse, world.api.refusals = refused(code, "", "later"), 1
    assert world.agent.start(bead("x-1"), "w1") == Started("w1")


def test_a_job_that_is_being_deleted_is_not_started(world: World) -> None:
    world.agent.start(bead("x-1"), "w1")
    world.api.jobs["bdauto-w1"]["metadata"]["deletionTimestamp"] = "2026-04-18T22:35:46Z"
    answer = world.agent.start(bead("x-1"), "w1")
    assert answer == NotStarted("somebody deletes the Job bdauto-w1")


def test_a_name_that_somebody_else_has_taken_is_not_ours(world: World) -> None:
    world.agent.start(bead("x-2"), "w1")
    answer = world.agent.start(bead("x-1"), "w1")
    assert answer == NotStarted("the name bdauto-w1 is taken by a Job of somebody else")


def test_a_tombstone_keeps_a_late_dispatcher_from_starting(world: World) -> None:
    world.agent.forbid_start(world.claimed())
    assert world.agent.start(bead("x-1"), "w1") == NotStarted("its claim was given up meanwhile, or cancelled")
    assert not world.api.pods


def test_a_tombstone_does_not_harm_a_job_that_is_there(world: World) -> None:
    world.agent.start(bead("x-1"), "w1")
    world.agent.forbid_start(world.claimed())
    assert world.state() == "queued"


def test_a_tombstone_that_cannot_be_written_is_an_error(world: World) -> None:
    world.agent.check_start()
    world.api.denied.add("create jobs")
    with pytest.raises(ServiceDrift, match="403"):
        world.agent.forbid_start(world.claimed())
    assert tombstone_of(tracker="t", bead="x-1", attempt="w1")["spec"]["completions"] == 0


def test_before_a_claim_the_template_must_be_there_and_fit(world: World) -> None:
    with pytest.raises(UsageError, match="there is no such CronJob in namespace beads"):
        world.another(kubernetes_template="none").check_start()
    world.api.denied.add("get cronjobs")
    with pytest.raises(UsageError, match="cannot be read: the Kubernetes API answers 403"):
        world.agent.check_start()
    world.api.denied.clear()
    world.api.cron_jobs["agent"]["spec"]["suspend"] = False
    with pytest.raises(UsageError, match=r"spec\.suspend is not true"):
        world.agent.check_start()


def test_slots_are_counted_and_never_remembered(world: World) -> None:
    for number in range(3):
        world.another().start(bead(f"x-{number}"), f"w{number}")
    [part] = world.agent.status().parts
    assert (part.text, part.capacity and part.capacity.free) == ("3 of 4 slots taken", 1)
    world.end_pod("w1")
    assert world.agent.status().free == 2, "an end that is not recorded yet takes no slot"
    world.another(tracker="another").start(bead("y-1"), "w9")
    assert world.agent.status().free == 2, "another tracker has slots of its own"
    world.api.denied.add("list jobs")
    assert "403" in str(world.agent.status().error)


def test_a_place_is_the_template_s_and_lasts_as_long_as_the_job(world: World) -> None:
    place = world.agent.place()
    assert (place.id, place.host) == ("k8s-11111111-2222-3333-4444-555555555555", "namespace beads")
    assert place.longest == timedelta(minutes=45 + 2 + 15)
    assert world.agent.owns(world.claimed())
    assert not world.agent.owns(bead("x-2", metadata={"bdauto.attempt": "w2", "bdauto.jobs_folder": "k8s-other"}))


def test_a_kubeconfig_that_cannot_be_used_is_said_on_one_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent/config")
    for context in (None, "none"):
        with pytest.raises(UsageError, match="the kubeconfig cannot be used") as caught:
            Cluster(None, context)
        assert "\n" not in str(caught.value)


def test_an_answer_that_is_no_json_is_an_error_in_one_line(world: World) -> None:
    world.api.garbage = "<html>\nproxy</html>"
    with pytest.raises(ServiceDown, match="does not answer"):
        world.agent.read_template()


def test_doctor_names_rights_template_and_quota(world: World) -> None:
    found = {check.name: check for check in checks(world.agent, CheckContext(lambda: NOW))}
    names = ("rights", "template", "image", "quota")
    assert {name: check.level for name, check in found.items()} == dict.fromkeys(names, "ok")
    world.api.denied.add("create jobs")
    world.api.quotas = [{"metadata": {"name": "q"}, "status": {"hard": {"count/jobs.batch": "10"}}}]
    found = {check.name: check for check in checks(world.agent, CheckContext(lambda: NOW))}
    assert found["rights"].detail == "this account may not create batch/jobs in namespace beads"
    assert (found["quota"].level, found["quota"].hint) == ("warn", "limit `pods` instead")


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"image": "r.test:5000/agent"}, "r.test:5000/agent names no fixed version"),
        ({"image": "r.test/agent:latest"}, "names no fixed version"),
        ({"image": "r.test/agent:1", "command": ["claude"]}, "does not start `bdauto agent-entry`"),
        ({"image": "r.test/agent@sha256:0"}, ""),
        ({"image": "r.test:5000/agent:1", "command": ["sh", "-c", "exec bdauto agent-entry -- a"]}, ""),
        ({"image": "r.test/agent:1", "command": None}, ""),
    ],
)
def test_doctor_judges_the_image_of_the_template(world: World, container: Object, said: str) -> None:
    pod = world.api.cron_jobs["agent"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    pod["containers"][0] |= container
    found = {check.name: check for check in checks(world.agent, CheckContext(lambda: NOW))}["image"]
    assert (found.level, said in found.detail) == ("warn" if said else "ok", True)


def test_the_option_chooses_kubernetes_and_excludes_the_others() -> None:
    assert kinds.required(AgentSettings(kubernetes_template="agent")).folder == "kubernetes"
    for other in ({"agent_url": "http://a"}, {"agent_command": "true"}, {"beadboard_url": "http://b"}):
        with pytest.raises(UsageError, match=r"--kubernetes-template .*exclude each other|and --kubernetes-template"):
            kinds.required(AgentSettings(kubernetes_template="agent", **other))
