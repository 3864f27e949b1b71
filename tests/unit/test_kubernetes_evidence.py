"""Agents in Kubernetes: what Jobs and pods say of a claim, when one is given up, and how its end is recorded."""

import copy
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from bdauto.agents.answers import Refused
from bdauto.agents.kubernetes import message
from bdauto.agents.kubernetes.output import KEPT_BYTES, TAIL, kept
from bdauto.agents.kubernetes.runner import KubernetesAgent
from bdauto.agents.named_jobs import Patience, job_in_the_way
from bdauto.common.errors import ServiceDown
from bdauto.controllers.reaper import Reaper
from bdauto.controllers.reconciler import Reconciler
from bdauto.domain.agent_end import Why
from bdauto.domain.reaping import Action, ReapDecision, decide_reap
from bdauto.domain.reconcile import RunningJob
from bdauto.domain.record import Result, Run
from bdauto.domain.settings import ReapSettings
from tests.support.fake_kubernetes import Failure, Object
from tests.support.fakes import NOW, Tracker, bead, row
from tests.support.kubernetes import World, world

__all__ = ["world"]
CONDITION = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}


def started(world: World) -> KubernetesAgent:
    world.agent.start(bead("x-1"), "w1")
    return world.agent


def judged(world: World, **metadata: Any) -> ReapDecision:
    claimed = world.claimed(**metadata)
    evidence, _ = world.another().evidence([claimed])
    return decide_reap(claimed, evidence, ReapSettings(), world.clock.time)


def end(world: World) -> Run:
    return world.another().evidence([world.claimed()])[0].ends["x-1"]


def test_the_states_of_a_job_from_its_claim_to_its_end(world: World) -> None:
    assert world.state() == "not started"
    started(world)
    assert world.state() == "queued"
    world.run_pod()
    assert world.state() == "running"
    world.end_pod()
    assert world.state() == "completed"


def test_a_look_is_two_lists_however_many_jobs_run(world: World) -> None:
    beads = [world.claimed(f"x-{number}", f"w{number}") for number in range(50)]
    for one in beads:
        world.agent.start(one, one.record.attempt)
    agent = world.another()
    world.api.requests.clear()
    states = agent.evidence(beads)[0].states
    assert set(states.values()) == {"queued"}
    assert [path.rpartition("/")[2] for _, path in world.api.requests] == ["jobs", "pods"]


def test_without_a_claim_nobody_is_asked(world: World) -> None:
    assert world.agent.evidence([])[0].states == {}
    assert world.api.requests == []


def test_an_end_has_the_figures_of_the_termination_message(world: World) -> None:
    started(world)
    told = Run(result=Result.completed, ended_at=NOW, agent="claude", cost_usd=0.42, tokens=7, session="s-1")
    world.end_pod(told=message.encode(message.message_of(told, "completed")).decode())
    found = end(world)
    assert (found.result, found.why, found.cost_usd, found.tokens, found.session, found.agent) == (
        Result.completed,
        Why.ok,
        0.42,
        7,
        "s-1",
        "claude",
    )


FORGED: list[tuple[str, str]] = [
    ("no JSON", "all is well"),
    ("nothing", ""),
    ("another type", '{"cost_usd": "much", "why": ["limit"]}'),
    ("huge", '{"cost_usd": 1e300, "tokens": -1, "turns": 1e300, "words": "' + "x" * 3000 + '"}'),
    ("control characters", '{"words": "\\u001b[2J\\u202e", "session": "\\n\\n", "agent": "\\u0007", "why": "config"}'),
    ("deep", "[" * 4000),
    ("half", '{"state": "comp'),
    ("a surrogate", '{"words": "\\ud800"}'),
]


@pytest.mark.parametrize("told", [row[1] for row in FORGED], ids=[row[0] for row in FORGED])
def test_a_forged_message_changes_no_result(world: World, told: str) -> None:
    started(world)
    world.end_pod(code=1, told=told)
    found = end(world)
    assert (found.result, found.cost_usd, found.tokens) == (Result.failed, None, None)
    assert found.why is Why.error
    assert found.words.isprintable()
    assert len(found.words) <= 200


def test_a_message_of_success_does_not_hide_a_failure(world: World) -> None:
    started(world)
    world.end_pod(code=1, told='{"state": "completed", "why": "ok"}')
    assert end(world).result is Result.failed


def test_a_container_out_of_memory_says_so(world: World) -> None:
    started(world)
    ended = {"exitCode": 137, "reason": "OOMKilled"}
    world.end_pod(code=137, containerStatuses=[{"name": "agent", "state": {"terminated": ended}}])
    assert end(world).words == "OOMKilled"


def test_an_entry_that_never_reached_the_tracker_charges_no_bead(world: World) -> None:
    started(world)
    world.end_pod(code=3, told='{"state":"error","why":"network","words":"no agent was started: the server is away"}')
    decision = judged(world)
    assert (decision.charged, decision.service, end(world).why) == (False, True, Why.network)
    assert "no agent was started: the server is away" in decision.note


OCI = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
OCI += 'unable to start container process: exec: "no-such-program": executable file not found in $PATH: unknown'


def test_a_command_that_is_not_in_the_image_charges_no_bead(world: World) -> None:
    started(world)
    ended = {"exitCode": 128, "reason": "StartError", "message": OCI}
    world.end_pod(code=128, containerStatuses=[{"name": "agent", "state": {"terminated": ended}}])
    decision = judged(world)
    assert (decision.charged, decision.service, end(world).why) == (False, True, Why.config)
    assert end(world).words.startswith("StartError: failed to create containerd task")
    assert '"no-such-program": executable file not found in $PATH' in end(world).words


def test_an_init_container_that_fails_charges_no_bead(world: World) -> None:
    started(world)
    ended = {"exitCode": 2, "reason": "Error", "message": "python: can't open file '/opt/bdauto/copy_bdauto.py'\n"}
    waits = [{"name": "agent", "state": {"waiting": {"reason": "PodInitializing"}}}]
    inits = [{"name": "bdauto", "state": {"terminated": ended}}]
    world.end_pod(code=1, containerStatuses=waits, initContainerStatuses=inits)
    decision = judged(world)
    assert (decision.charged, decision.service, end(world).why) == (False, True, Why.config)
    assert (
        end(world).words == "init container failed: bdauto: Error: python: can't open file '/opt/bdauto/copy_bdauto.py'"
    )


def test_the_cause_of_a_nested_error_is_not_cut_off(world: World) -> None:
    started(world)
    pull = (
        'failed to pull and unpack image "r.test/agent:9": failed to resolve reference "r.test/agent:9": failed to do '
    )
    pull += 'request: Head "https://r.test/v2/agent/manifests/9": dial tcp: lookup r.test: no such host'
    world.api.write_pod(world.pod(), waiting("ErrImagePull", pull))
    assert "no such host" in judged(world).evidence


def test_a_pod_that_kubernetes_took_away_charges_no_bead(world: World) -> None:
    started(world)
    world.run_pod()
    world.end_pod(code=143, conditions=[CONDITION])
    decision = judged(world)
    assert (decision.action, decision.charged) == (Action.release, False)
    assert "Kubernetes took its pod away: EvictionByEvictionAPI: drained" in decision.note


def test_a_pod_that_was_deleted_charges_no_bead(world: World) -> None:
    started(world)
    world.run_pod()
    world.api.delete_pod(world.pod())
    decision = judged(world)
    assert (decision.action, decision.charged) == (Action.release, False)
    assert "its pod was deleted" in decision.note
    assert len(world.api.jobs) == 1


def test_why_a_pod_was_taken_away_is_known_after_it_is_gone(world: World) -> None:
    """Kubernetes removes an evicted pod once its container has ended. Its reason was seen meanwhile."""
    agent = started(world)
    world.run_pod()
    world.api.write_pod(world.pod(), {"conditions": [CONDITION]})
    agent.evidence([world.claimed()])
    world.api.delete_pod(world.pod())
    found = agent.evidence([world.claimed()])[0].ends["x-1"]
    assert found.result is Result.stopped
    assert found.words == "Kubernetes took its pod away: EvictionByEvictionAPI: drained"


def test_a_second_pod_that_found_the_attempt_taken_charges_no_bead(world: World) -> None:
    """Kueue suspends a Job, which deletes its pod, and resumes it. The agent has begun, and is not started again."""
    started(world)
    world.end_pod(told='{"fenced":true,"words":"another pod has taken attempt w1"}')
    decision = judged(world)
    assert (decision.action, decision.charged, decision.early_death) == (Action.release, False, False)
    assert "its pod is gone, and the next one started no agent: another pod has taken attempt w1" in decision.note


def test_a_pod_that_succeeded_is_not_stopped_afterwards(world: World) -> None:
    """The API was away when it ended, so bdauto has asked Kubernetes to end a Job that had done its work."""
    started(world)
    told = Run(result=Result.completed, ended_at=NOW, cost_usd=0.42)
    world.end_pod(told=message.encode(message.message_of(told, "completed")).decode())
    job = world.api.jobs["bdauto-w1"]
    job["metadata"]["annotations"]["bdauto/stopped"] = "its agent closed the bead and did not end within 2m"
    job["status"]["conditions"] = [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]
    assert (end(world).result, end(world).cost_usd) == (Result.completed, 0.42)


def test_a_job_that_was_deleted_runs_until_its_pod_is_gone(world: World) -> None:
    """kubectl deletes the Job at once, and the pod gets its time to end."""
    started(world)
    world.run_pod()
    del world.api.jobs["bdauto-w1"]
    assert judged(world, **{"bdauto.job": "w1"}).evidence.startswith("job w1 is running")
    assert world.another().job_state("w1") == "running", "a bead that was opened again gets no second agent"
    world.api.pods.clear()
    assert world.another().job_state("w1") is None
    decision = judged(world, **{"bdauto.job": "w1"})
    assert (decision.action, decision.charged) == (Action.release, False)
    assert "was stopped: its Job was deleted" in decision.note


def test_the_end_of_a_pod_that_was_kept_without_its_job_is_known(world: World) -> None:
    started(world)
    told = Run(result=Result.completed, ended_at=NOW, cost_usd=0.42)
    world.end_pod(told=message.encode(message.message_of(told, "completed")).decode())
    del world.api.jobs["bdauto-w1"]
    found = world.another().evidence([world.claimed(**{"bdauto.job": "w1"})])[0].ends["x-1"]
    assert (found.result, found.cost_usd) == (Result.completed, 0.42)


@pytest.mark.parametrize(
    ("state", "why", "result"),
    [("cancelled", Why.silence, Result.timeout), ("cancelled", Why.stopped, Result.stopped)],
    ids=["silent", "asked to end"],
)
def test_an_agent_that_its_entry_has_ended_did_not_fail(world: World, state: str, why: Why, result: Result) -> None:
    started(world)
    told = Run(result=result, why=why, ended_at=NOW, words="nothing was written for 5s")
    world.end_pod(code=1, told=message.encode(message.message_of(told, state)).decode())
    assert end(world).result is result


def test_a_failure_to_come_is_no_proof_of_death(world: World) -> None:
    """Its node is lost: the container may run until the kubelet is back."""
    started(world)
    world.run_pod()
    target = {"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"}
    world.api.jobs["bdauto-w1"]["status"] |= {"conditions": [], "failed": 1, "terminating": 1}
    found = world.api.jobs["bdauto-w1"]["status"]
    found["conditions"] = [target]
    assert world.state() == "running"
    assert judged(world).action is Action.keep


def test_a_job_that_is_being_deleted_runs_until_it_is_gone(world: World) -> None:
    started(world)
    world.run_pod()
    world.api.jobs["bdauto-w1"]["metadata"]["deletionTimestamp"] = "2026-04-18T22:35:46Z"
    assert world.state() == "running"


def test_a_suspended_job_is_queued_and_says_so(world: World) -> None:
    world.api.cron_jobs["agent"]["spec"]["jobTemplate"]["spec"]["suspend"] = True
    started(world)
    world.clock.sleep(86_400)
    decision = judged(world)
    assert (decision.action, "is queued (suspended)" in decision.evidence) == (Action.keep, True)
    assert [one.give_up for one in world.another().running_jobs()] == [""]


def waiting(reason: str, words: str = "") -> Object:
    return {"containerStatuses": [{"name": "agent", "state": {"waiting": {"reason": reason, "message": words}}}]}


def stops(world: World) -> list[RunningJob]:
    """Do what a sweep does: end what must be given up."""
    claimed = row("x-1", status="in_progress", metadata=world.claimed().metadata, updated_at=world.clock.time)
    tracker = Tracker(world.clock, claimed)
    Reconciler(tracker, None, timedelta(minutes=1), world.clock.runtime()).look(world.another())
    return list(world.another().running_jobs())


@pytest.mark.parametrize("reason", ["InvalidImageName", "CreateContainerConfigError"])
def test_what_time_does_not_mend_is_given_up_at_once(world: World, reason: str) -> None:
    started(world)
    world.api.write_pod(world.pod(), waiting(reason, 'secret "key" not found'))
    assert world.agent.ended({"w1"}) == {"w1"}, "it wakes the loop"
    stops(world)
    world.clock.sleep(2)
    decision = judged(world)
    assert (decision.action, decision.charged) == (Action.release, False)
    assert (decision.early_death, decision.service) == (True, True), "the circuit breaker counts it"
    assert f'{reason}: secret "key" not found' in decision.note


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (waiting("ImagePullBackOff", "Back-off pulling image"), "ImagePullBackOff: Back-off pulling image"),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]},
            "Unschedulable: 0/3",
        ),
    ],
    ids=["image", "node"],
)
def test_what_may_mend_itself_waits_is_shown_and_given_up(world: World, status: Object, words: str) -> None:
    started(world)
    world.api.write_pod(world.pod(), status)
    assert f"is queued ({words})" in judged(world).evidence
    world.clock.sleep(14 * 60)
    assert [one.give_up for one in stops(world)] == [""]
    world.clock.sleep(2 * 60)
    stops(world)
    world.clock.sleep(2)
    decision = judged(world)
    assert (decision.action, decision.charged, decision.early_death) == (Action.release, False, False)
    assert f"pending: {words}" in decision.note


def test_a_job_without_a_pod_quotes_its_events(world: World) -> None:
    world.api.pods_allowed = 0
    started(world)
    world.clock.sleep(31)
    assert "is queued (FailedCreate: Error creating: pods is forbidden: exceeded quota: pods)" in judged(world).evidence


def test_a_fast_clock_here_gives_up_nothing(world: World) -> None:
    """The API server's clock is asked before a Job is given up."""
    started(world)
    server = world.clock.time
    world.api.now = lambda: server
    world.clock.sleep(3600)
    assert [one.give_up for one in world.another().running_jobs()] == [""]


def test_a_job_whose_pod_has_just_ended_is_not_given_up(world: World) -> None:
    """Between a pod's end and the Job's, no pod is listed."""
    started(world)
    world.run_pod()
    world.clock.sleep(3600)
    world.api.jobs["bdauto-w1"]["status"] |= {"active": 1, "ready": 0}
    world.api.pods[world.pod()]["status"]["phase"] = "Succeeded"
    agent = world.another()
    world.api.frozen = True
    assert [one.give_up for one in agent.running_jobs()] == [""]


def test_a_stopped_job_keeps_the_figures_that_its_log_had(world: World) -> None:
    agent = started(world)
    running = {"running": {"startedAt": "2026-04-18T22:35:46Z"}}
    world.api.write_pod(world.pod(), {"phase": "Running", "containerStatuses": [{"name": "agent", "state": running}]})
    line = '{"type":"result","subtype":"success","is_error":false,"total_cost_usd":0.5,"num_turns":3,"session_id":"s"}'
    world.api.logs[world.pod()] = [("2026-04-18T22:35:46.1Z", line)]
    assert agent.cancel("w1", "ann") == "cancelled"
    found = end(world)
    assert (found.result, found.cost_usd, found.words) == (Result.stopped, 0.5, "cancelled by ann")
    assert not world.api.pods


def test_a_suspended_job_can_be_cancelled(world: World) -> None:
    world.api.cron_jobs["agent"]["spec"]["jobTemplate"]["spec"]["suspend"] = True
    assert started(world).cancel("w1", "ann") == "cancelled"
    assert not world.api.pods


def test_a_recorded_job_leaves_the_looks_and_gets_its_ttl(world: World) -> None:
    agent = started(world)
    world.end_pod()
    [(bead_id, run)] = agent.unrecorded()
    assert (bead_id, run.attempt) == ("x-1", "w1")
    assert "ttlSecondsAfterFinished" not in world.api.jobs["bdauto-w1"]["spec"]
    agent.mark_recorded("w1", deleted=False)
    assert world.api.jobs["bdauto-w1"]["spec"]["ttlSecondsAfterFinished"] == 7 * 86_400
    assert world.another().unrecorded() == []
    assert world.state() == "completed", "it can still be asked about by its name"


def test_an_end_outlives_a_restart_until_it_is_recorded(world: World) -> None:
    started(world)
    world.end_pod()
    world.clock.sleep(30 * 86_400)
    assert [run.attempt for _, run in world.another().unrecorded()] == ["w1"]


def test_another_queue_s_ends_are_left_to_it(world: World) -> None:
    started(world)
    world.end_pod()
    assert world.another("another-agent").unrecorded() == []


def test_a_bead_whose_other_job_runs_is_not_settled(world: World) -> None:
    started(world)
    world.run_pod()
    claimed = world.claimed(attempt="w2")
    evidence, _ = world.another().evidence([claimed])
    assert (evidence.states["x-1"], evidence.others["x-1"]) == ("running", "w1")


@pytest.mark.parametrize("answers", [True, False])
def test_a_bead_that_lost_its_record_is_not_settled_while_its_job_runs(world: World, answers: bool) -> None:
    started(world)
    world.run_pod()
    world.clock.sleep(3000)
    if not answers:
        world.agent.place()  # the template is known from before

        def down(_method: str, _path: str) -> None:
            raise httpx2.ConnectError("no route to host")

        world.api.before = down
    tracker = Tracker(world.clock, row("x-1", status="in_progress", updated_at=NOW))
    Reaper(tracker, tracker, lambda: world.agent, ReapSettings(), world.clock.runtime()).sweep()
    assert tracker.rows["x-1"]["status"] == "in_progress", "its agent may have removed the record"


def test_before_a_start_each_job_of_the_bead_is_known(world: World) -> None:
    started(world)
    world.run_pod()
    opened = bead("x-1")

    def found() -> Any:
        return job_in_the_way(
            world.another(), opened, lambda _job: "", NOW, grace=timedelta(minutes=2), patience=Patience()
        )

    assert found().job == "w1"
    world.end_pod()
    assert found() is None


def test_notes_that_name_hostile_jobs_ask_nobody(world: World) -> None:
    for job in ("../../secrets/x", "A_B", "w" * 90, "x-", "x/../../y"):
        assert world.agent.job_state(job) is None
    assert world.api.requests == []


def test_an_api_that_is_down_is_no_verdict(world: World) -> None:
    agent = started(world)
    world.run_pod()

    def down(_method: str, _path: str) -> None:
        raise httpx2.ConnectError("refused")

    world.api.before = down
    claimed = world.claimed()
    evidence, error = agent.evidence([claimed])
    assert (evidence.states["x-1"], isinstance(error, ServiceDown)) == ("no answer", True)
    assert decide_reap(claimed, evidence, ReapSettings(), NOW + timedelta(minutes=40)).action is Action.keep
    assert (agent.ended({"w1"}), agent.stop("w1", "why"), agent.unrecorded()) == (set(), False, [])
    agent.mark_recorded("w1", deleted=False)
    world.api.before = lambda _method, _path: None
    assert world.state() == "running"


def test_annotations_and_fields_of_other_tools_change_nothing(world: World) -> None:
    agent = started(world)
    job = world.api.jobs["bdauto-w1"]
    job["metadata"]["annotations"] |= {"kyverno.io/x": "y", "bdauto/stopped": None}
    job["status"]["conditions"] = ["odd", None, {"type": "Complete"}, {"type": "Suspended", "status": "False"}]
    job["status"]["startTime"] = "yesterday"
    world.api.pods[world.pod()]["status"] |= {"conditions": None, "containerStatuses": "none"}
    assert agent.evidence([world.claimed()])[0].states["x-1"] == "queued"


def test_the_log_is_shown_as_it_comes_and_no_line_twice(world: World) -> None:
    agent = started(world)
    world.run_pod()
    source = agent.output("w1")
    log = world.api.logs[world.pod()] = [("2026-04-18T22:35:46.1Z", "one"), ("2026-04-18T22:35:46.2Z", "two")]
    assert b"".join(source.read()) == b"one\ntwo\n"
    assert b"".join(source.read()) == b""
    log.append(("2026-04-18T22:35:46.3Z", "three"))
    assert (b"".join(source.read()), source.state()) == (b"three\n", "running")
    world.end_pod()
    assert source.state() == "completed"


def test_a_job_that_was_just_started_has_not_ended(world: World) -> None:
    """A look from before its start must not serve."""
    started(world)
    assert world.agent.ended({"w1"}) == set()
    world.agent.start(bead("x-2"), "w2")
    assert world.agent.ended({"w1", "w2"}) == set()
    assert {one.job for one in world.agent.running_jobs()} == {"w1", "w2"}


def test_a_job_that_cannot_begin_wakes_the_loop_once(world: World) -> None:
    """If it cannot be ended either, sweep must not follow sweep."""
    started(world)
    world.api.write_pod(world.pod(), waiting("InvalidImageName"))
    world.api.denied.add("patch jobs")
    assert [world.agent.ended({"w1"}) for _ in range(3)] == [{"w1"}, set(), set()]


def test_the_time_until_a_pod_runs_is_not_the_agent_s(world: World) -> None:
    """Else an agent whose image was pulled for ten minutes would be ended by Kubernetes, and its figures be lost."""
    started(world)
    spec = world.api.jobs["bdauto-w1"]["spec"]
    assert spec["activeDeadlineSeconds"] == (45 + 15 + 2) * 60
    [container] = spec["template"]["spec"]["containers"]
    assert {"name": "BDAUTO_AGENT_TIMEOUT", "value": "2700s"} in container["env"]


def test_hostile_words_of_the_api_stay_on_one_bounded_line(world: World) -> None:
    world.api.refuse = Failure(422, "Invalid\n", "\x1b[2J" + "\u202e\n" * 9 + "x" * 9000)
    answer = world.agent.start(bead("x-1"), "w1")
    assert isinstance(answer, Refused)
    assert answer.error.isprintable()
    assert len(answer.error) <= 300


def test_many_beads_through_a_tenth_of_slots_cost_few_calls_each(world: World) -> None:
    """By the steps of `run`: a cycle, the watch of its jobs, and two sweeps, the second of which marks the ends."""
    agent = world.another(agent_slots=10)
    left, running = [bead(f"x-{number}") for number in range(100)], dict[str, Any]()
    while left or running:
        agent.check_start()
        for _ in range(min(agent.status().free or 0, len(left))):
            one, attempt = left.pop(), f"w{len(left)}"
            assert agent.jobs_of(one) == []
            agent.start(one, attempt)
            running[attempt] = world.claimed(one.id, attempt)
        agent.running_jobs()
        for attempt in [*running][:5]:
            world.run_pod(attempt)
            world.api.logs[world.pod(attempt)] = [("2026-04-18T22:35:46.1Z", "done")]
            world.end_pod(attempt)
        world.clock.sleep(6)
        over = agent.ended([*running])
        for _ in range(2):
            assert len(agent.evidence([*running.values()])[0].ends) == len(over)
            for _, run in agent.unrecorded():
                agent.mark_recorded(run.attempt, deleted=False)
                running.pop(run.attempt)
                over.discard(run.attempt)
            agent.running_jobs()
    words = "a list of the bead's Jobs, its start, its pod, the pod's log and what keeps that, its mark, and the looks"
    assert len(world.api.requests) / 100 < 8, words
    assert len([name for name in world.api.jobs if name.endswith("-log")]) == 100


def ended_with_log(world: World, *lines: str, keep: timedelta = timedelta(days=7)) -> KubernetesAgent:
    """Return an agent that has recorded the end of a Job with this log."""
    agent = world.another(agent_keep=keep)
    agent.start(bead("x-1"), "w1")
    world.run_pod()
    world.api.logs[world.pod()] = [("2026-04-18T22:35:46.1Z", line) for line in lines]
    world.end_pod(code=1)
    assert [run.attempt for _, run in agent.unrecorded()] == ["w1"]
    agent.mark_recorded("w1", deleted=False)
    return agent


def shown(world: World) -> tuple[str, str]:
    """Return what `bdauto logs` reads, and the state of the job."""
    agent = world.another()
    assert agent.jobs_of(bead("x-1")) == ["w1"]
    world.clock.sleep(6)
    output = agent.output("w1")
    state = output.state()
    return b"".join([*output.read(), *output.read()]).decode(), state


def test_the_end_of_a_log_outlives_its_job(world: World) -> None:
    ended_with_log(world, "one", "two")
    assert shown(world) == ("one\ntwo\n", "failed")
    world.clock.sleep(8 * 86_400)
    assert world.state() == "not started", "its Job is gone"
    assert shown(world) == ("one\ntwo\n", "failed")
    assert world.another().jobs_at_work(bead("x-1")) == []
    assert world.another().status().free == 4
    world.clock.sleep(30 * 86_400)
    assert world.api.all_jobs() == []


def test_a_kept_log_is_bounded_and_has_no_secrets(world: World) -> None:
    secret = "key sk-ant-0123456789abcdef"
    ended_with_log(world, *["x" * 9000 for _ in range(300)], "\x1b[2J\u202ehi", secret)
    world.clock.sleep(8 * 86_400)
    text, _ = shown(world)
    lines = text.splitlines()
    assert len(text.encode()) <= 16_000
    assert (len(lines) <= 200, max(map(len, lines)) <= 500) == (True, True)
    assert ("hi" in text, "\x1b" in text, "0123456789" in text) == (True, False, False)


def test_what_is_kept_of_a_log_is_read_line_by_line() -> None:
    """Two hundred lines of a stream may have more than the memory of `run`."""
    held = [0]

    class Line(bytes):
        def __del__(self) -> None:
            held[0] -= 1

    def lines() -> Iterator[bytes]:
        for number in range(TAIL):
            assert held[0] <= 2
            held[0] += 1
            yield Line(b'{"type":"result","result":"%d %s"}\n' % (number, b"x" * 9000))

    assert len(kept(lines()).encode()) <= KEPT_BYTES


def test_a_log_that_cannot_be_kept_keeps_no_end_from_being_recorded(world: World) -> None:
    agent = started(world)
    world.run_pod()
    world.api.logs[world.pod()] = [("2026-04-18T22:35:46.1Z", "one")]
    world.end_pod()
    agent.unrecorded()
    world.api.refuse = Failure(403, "Forbidden", "exceeded quota: q")
    agent.mark_recorded("w1", deleted=False)
    assert world.another().unrecorded() == []


def test_a_job_that_is_kept_for_long_needs_no_other_for_its_log(world: World) -> None:
    ended_with_log(world, "one", keep=timedelta(days=30))
    assert [*world.api.jobs] == ["bdauto-w1"]


def test_the_log_of_a_stopped_job_can_be_read_although_its_pod_is_gone(world: World) -> None:
    agent = started(world)
    world.run_pod()
    world.api.logs[world.pod()] = [("2026-04-18T22:35:46.1Z", "half of it")]
    agent.cancel("w1", "ann")
    assert not world.api.pods
    assert shown(world) == ("half of it\n", "cancelled")


def test_the_log_of_an_attempt_is_that_of_the_pod_that_ran_its_agent(world: World) -> None:
    started(world)
    world.end_pod(code=1)
    second = copy.deepcopy(world.api.pods[world.pod()])
    second["metadata"]["name"] = "a-second"
    ended = {"terminated": {"exitCode": 0, "message": '{"fenced": true}'}}
    second["status"] = {"phase": "Succeeded", "containerStatuses": [{"name": "agent", "state": ended}]}
    first = world.pod()
    world.api.pods["a-second"] = second
    found = world.agent.pod_of("w1")
    assert found
    assert found.name == first
