"""Agents in Kubernetes whose work is checked in the pod: no bead is closed without a check that has passed."""

import copy
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.agents.kubernetes import message
from bdauto.agents.kubernetes.message import Message
from bdauto.agents.kubernetes.runner import KubernetesAgent
from bdauto.agents.prompt_settings import CommandLine
from bdauto.common.errors import ServiceError, UsageError
from bdauto.controllers.reaper import Reaper
from bdauto.domain.agent_end import Why
from bdauto.domain.outcome import Report
from bdauto.domain.reaping import Action, ReapDecision, decide_reap
from bdauto.domain.record import Result
from bdauto.domain.settings import ReapSettings
from tests.support.fake_kubernetes import Object, template
from tests.support.fakes import NOW, Tracker, bead, row
from tests.support.kubernetes import World, world
from tests.unit.test_kubernetes_evidence import CONDITION

__all__ = ["world"]
CHECKS = (CommandLine(("make", "test $HOME")), CommandLine(("./lint",)))
PASSED = Message(state="completed", why="ok", words="All done.", passed=2)
FAILED = Message(state="completed", why="check", words="check 1 of 2 (make): exit 2: no", passed=0)


def told(found: Message) -> str:
    return message.encode(found).decode()


def checking(world: World, **settings: Any) -> KubernetesAgent:
    """Return an agent whose template runs the entry, and whose work two checks judge."""
    pod = world.api.cron_jobs["agent"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    pod["containers"][0]["command"] = ["bdauto", "agent-entry", "--", "agent"]
    plain: dict[str, Any] = {"agent_check": CHECKS, "agent_check_timeout": timedelta(minutes=5)}
    return world.another(**(plain | settings))


def started(world: World) -> KubernetesAgent:
    agent = checking(world)
    agent.start(bead("x-1"), "w1")
    return agent


def claim(world: World, **fields: Any) -> Object:
    """Return the row of the bead that the Job works on."""
    own = {"job": "w1", "result": "running", "check": "due", "attempts": 1, "assignee": "agent"}
    metadata = world.claimed().metadata | {f"bdauto.{name}": value for name, value in own.items()}
    plain = {"status": "in_progress", "notes": "claimed by agent w1", "updated_at": NOW}
    return row("x-1", **(plain | fields), metadata=metadata)


def judged(world: World) -> ReapDecision:
    [claimed] = Tracker(world.clock, claim(world)).read(["x-1"]).result().beads
    evidence, _ = world.another().evidence([claimed])
    return decide_reap(claimed, evidence, ReapSettings(), world.clock.time)


class Desk:
    """Sweeps of one process over a tracker with the Job's bead."""

    def __init__(self, world: World, agent: KubernetesAgent, **fields: Any) -> None:
        self.world, self.agent = world, agent
        self.tracker = Tracker(world.clock, claim(world, **fields))

    def sweep(self) -> Report:
        runtime = self.world.clock.runtime()
        return Reaper(self.tracker, self.tracker, lambda: self.agent, ReapSettings(), runtime).sweep()

    def outcomes(self) -> list[tuple[str, str]]:
        self.world.clock.sleep(6)
        return [(one.id, str(one.outcome)) for one in self.sweep().beads]

    def closes(self, actor: str = "agent") -> None:
        """Close the bead in this name."""
        self.tracker.rows["x-1"] |= {"status": "closed", "closed_at": self.world.clock.now()}
        at = {"issue_id": "x-1", "created_at": self.world.clock.now().strftime("%Y-%m-%d %H:%M:%S")}
        self.tracker.recorded = [at | {"actor": actor, "event_type": "closed", "new_value": "done"}]

    @property
    def status(self) -> str:
        return self.tracker.bead("x-1").status


def test_a_passed_check_closes_the_bead_with_the_agents_last_words(world: World) -> None:
    desk = Desk(world, started(world))
    world.end_pod(told=told(PASSED))
    assert desk.outcomes() == [("x-1", "closed")]
    [change] = [one for one in desk.tracker.written if one.status]
    assert (change.status, change.reason) == ("closed", "All done.")
    assert desk.tracker.bead("x-1").record.check == ""
    assert desk.sweep().beads == ()


def test_a_failed_check_opens_the_bead_uncharged_and_is_quoted(world: World) -> None:
    agent = started(world)
    desk = Desk(world, agent)
    world.end_pod(code=1, told=told(FAILED))
    assert desk.outcomes() == [("x-1", "requeued")]
    found = desk.tracker.bead("x-1")
    assert (found.status, found.record.attempts, found.record.failed_checks) == ("open", 0, 1)
    asked = agent.prompt(found, "w2")
    assert "check 1 of 2 (make): exit 2: no" in asked
    assert "bd close" not in asked


NOT_PASSED: list[tuple[str, dict[str, Any]]] = [
    ("a container that failed", {"code": 1, "told": told(PASSED)}),
    ("one that was killed", {"code": 137, "told": told(PASSED)}),
    ("one that was killed in a check", {"code": 143, "told": told(Message(state="cancelled", passed=0))}),
    ("no message", {"told": ""}),
    ("a message of another program", {"told": "done"}),
    ("a half message", {"told": told(PASSED)[:30]}),
    ("an entry without checks", {"told": told(Message(state="completed", why="ok"))}),
    ("too few checks", {"told": told(Message(state="completed", why="ok", passed=1))}),
    ("too many checks", {"told": told(Message(state="completed", why="ok", passed=3))}),
    ("no number of checks", {"told": '{"state": "completed", "passed": true}'}),
    ("no check", {"told": told(Message(state="completed", why="ok", passed=0))}),
    ("a pod that started nothing", {"told": told(Message(fenced=True, passed=2))}),
    ("an agent that reached a limit", {"told": told(Message(state="completed", why="limit", passed=2))}),
    ("an agent that timed out", {"told": told(Message(state="timeout", passed=2))}),
    ("a pod that was taken away", {"code": 143, "told": told(PASSED), "conditions": [CONDITION]}),
]


@pytest.mark.parametrize("ended", [row[1] for row in NOT_PASSED], ids=[row[0] for row in NOT_PASSED])
@pytest.mark.parametrize("lies", [False, True], ids=["leaves it", "closes it"])
def test_nothing_but_all_checks_passed_closes_a_bead(world: World, ended: dict[str, Any], lies: bool) -> None:
    desk = Desk(world, started(world))
    if lies:
        desk.closes()
    world.end_pod(**ended)
    for _ in range(3):
        desk.outcomes()
    assert desk.status != "closed"


def test_a_second_pod_that_starts_nothing_passes_nothing(world: World) -> None:
    """Its Job is Complete, though the first pod was killed when its agent had told of its end, or written of one."""
    started(world)
    first = world.pod()
    second = copy.deepcopy(world.api.pods[first])
    world.api.frozen = True
    world.end_pod(code=137, told=told(PASSED))
    second["metadata"] |= {"name": "a-second", "uid": "99999999-2222-3333-4444-555555555555"}
    world.api.pods["a-second"] = second
    ended = {"terminated": {"exitCode": 0, "message": told(Message(fenced=True))}}
    world.api.frozen = False
    world.api.write_pod("a-second", {"phase": "Succeeded", "containerStatuses": [{"name": "agent", "state": ended}]})
    assert world.state() == "completed"
    decision = judged(world)
    assert decision.action is not Action.close
    assert world.another().evidence([world.claimed()])[0].ends["x-1"].result is Result.failed


def test_a_job_whose_pod_is_gone_has_not_passed(world: World) -> None:
    started(world)
    world.end_pod(told=told(PASSED))
    world.another().evidence([])
    world.api.pods.clear()
    decision = judged(world)
    assert decision.action is not Action.close
    assert "its pod was deleted, so nobody knows whether its checks have passed" in decision.evidence


def test_an_image_that_cannot_check_is_a_misconfiguration(world: World) -> None:
    started(world)
    world.end_pod(told=told(Message(state="completed", why="ok")))
    decision = judged(world)
    assert (decision.action, decision.charged, decision.service) == (Action.release, False, True)
    assert "no check has run" in decision.note


@pytest.mark.parametrize("why", ["check", "review", "land", "config"])
def test_an_agent_without_a_check_cannot_say_that_one_failed(world: World, why: str) -> None:
    """Its bead would not be charged."""
    world.agent.start(bead("x-1"), "w1")
    world.end_pod(code=1, told=told(Message(state="failed", why=why)))
    decision = judged(world)
    assert (decision.charged, decision.failed_check) == (True, False)


@pytest.mark.parametrize("running", [True, False], ids=["in its pod", "after its end"])
def test_what_its_agent_closes_unchecked_is_open_again(world: World, running: bool) -> None:
    desk = Desk(world, started(world))
    world.run_pod()
    if not running:
        world.end_pod(code=1, told=told(FAILED))
    desk.closes()
    assert desk.outcomes() == [("x-1", "reverted" if running else "requeued")]
    assert desk.status == ("in_progress" if running else "open")


def test_an_agent_that_takes_the_mark_away_gains_nothing(world: World) -> None:
    desk = Desk(world, started(world))
    world.run_pod()
    del desk.tracker.rows["x-1"]["metadata"]["bdauto.check"]
    desk.closes()
    assert desk.outcomes() == [("x-1", "reverted")]


def test_a_bead_that_is_closed_in_the_middle_of_a_sweep_is_found(world: World) -> None:
    """Between the look at closed beads and the record of the Job's end."""
    desk = Desk(world, started(world))
    world.run_pod()

    world.clock.sleep(6)
    desk.agent.unchecked()

    def ends(_method: str, _path: str) -> None:
        world.api.before = lambda _method, _path: None
        world.end_pod(code=1, told=told(FAILED))
        desk.closes()

    world.api.before = ends
    desk.sweep()
    for _ in range(3):
        desk.outcomes()
    assert desk.status == "open"


def test_a_closed_bead_whose_job_was_deleted_has_not_passed(world: World) -> None:
    """Its agent had closed it, or its check would have told."""
    desk = Desk(world, started(world))
    world.end_pod(told=told(PASSED))
    world.api.jobs.clear()
    world.api.pods.clear()
    desk.closes()
    assert desk.outcomes() == [("x-1", "reverted")]
    assert desk.outcomes() == [("x-1", "released")]
    assert desk.tracker.bead("x-1").record.attempts == 0


def test_what_passed_and_its_agent_has_closed_stays_closed(world: World) -> None:
    desk = Desk(world, started(world))
    desk.closes()
    world.end_pod(told=told(PASSED))
    for _ in range(3):
        assert desk.outcomes() == []
    assert desk.tracker.bead("x-1").record.check == ""
    assert world.api.jobs["bdauto-w1"]["metadata"]["labels"]["bdauto/recorded"] == "true"


def test_what_a_person_closes_stays_closed(world: World) -> None:
    desk = Desk(world, started(world))
    world.end_pod(code=1, told=told(FAILED))
    desk.closes("ann")
    desk.outcomes()
    world.clock.sleep(3600)
    desk.outcomes()
    assert desk.status == "closed"
    assert world.api.jobs["bdauto-w1"]["metadata"]["labels"]["bdauto/recorded"] == "true"


def test_an_api_that_is_away_opens_and_settles_nothing(world: World) -> None:
    desk = Desk(world, started(world))
    desk.closes()
    world.end_pod(code=1, told=told(FAILED))
    left = [2]

    def down(_method: str, _path: str) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise httpx2.ConnectError("refused")

    world.api.before = down
    with pytest.raises(ServiceError):
        world.another().unchecked()
    left[0] = 2
    assert desk.outcomes() == [("x-1", "reverted")]
    assert desk.tracker.bead("x-1").record.unended, "its end would hide it"
    assert desk.outcomes() == [("x-1", "requeued")]


def test_a_running_check_keeps_the_job_that_its_agent_has_closed(world: World) -> None:
    agent = started(world)
    world.run_pod()
    assert [one.checked for one in agent.running_jobs()] == [True]
    assert agent.checking
    assert not checking(world, assignee="another").checking
    world.end_pod(told=told(PASSED))
    world.clock.sleep(6)
    assert not agent.checking


def test_the_pod_gets_the_checks_and_the_time_for_them(world: World) -> None:
    agent = started(world)
    job = world.api.jobs["bdauto-w1"]
    env = {one["name"]: one.get("value", "") for one in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["BDAUTO_CHECKS"] == '{"commands":[["make","test $$HOME"],["./lint"]],"seconds":300.0}'
    assert env["BDAUTO_AGENT_TIMEOUT"] == "2700s"
    assert job["spec"]["activeDeadlineSeconds"] == (45 + 15 + 2 * 6 + 2) * 60
    place = agent.place()
    assert (place.checked, place.longest) == (True, timedelta(seconds=job["spec"]["activeDeadlineSeconds"]))


def test_a_deadline_of_the_template_leaves_the_checks_their_time(world: World) -> None:
    world.api.cron_jobs["agent"] = template(activeDeadlineSeconds=20 * 60)
    agent = started(world)
    [container] = world.api.jobs["bdauto-w1"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "BDAUTO_AGENT_TIMEOUT", "value": "360s"} in container["env"]
    world.api.cron_jobs["agent"]["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] = 14 * 60
    with pytest.raises(UsageError, match="leave the agent no time: the checks of --agent-check may take 14m"):
        agent.check_start()


REFUSED: list[tuple[str, list[str], dict[str, Any], str]] = [
    ("no entry", ["claude", "-p"], {}, "--agent-check needs `bdauto agent-entry -- CMD` as the command"),
    ("no UTF-8", [], {"agent_check": (CommandLine(("make", "\udcff")),)}, "--agent-check is not UTF-8"),
    ("too long", [], {"agent_check": (CommandLine(("make", "x" * 60_000)),)}, "--agent-check is too long for a pod"),
]


@pytest.mark.parametrize(("command", "settings", "words"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_no_pod_can_check_is_refused_before_a_claim(
    world: World, command: list[str], settings: dict[str, Any], words: str
) -> None:
    agent = checking(world, **settings)
    pod = world.api.cron_jobs["agent"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    pod["containers"][0]["command"] = command or pod["containers"][0]["command"]
    with pytest.raises(UsageError, match=words) as caught:
        agent.check_start()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["agent_review", "agent_prepare", "agent_land"])
def test_steps_that_no_pod_runs_are_refused(option: str) -> None:
    settings = AgentSettings(kubernetes_template="agent", **{option: CommandLine(("make",))})
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} does nothing with a template in Kubernetes"):
        kinds.exclude_each_other(settings)
    checked = AgentSettings(kubernetes_template="agent", agent_check=CHECKS)
    assert kinds.required(checked).part(checked).agent_check == CHECKS


def test_a_check_in_a_pod_is_told_as_the_reason_of_its_failure(world: World) -> None:
    started(world)
    world.end_pod(code=1, told=told(FAILED))
    claimed = world.claimed()
    end = world.another().evidence([claimed])[0].ends["x-1"]
    assert (end.why, end.checked, end.words) == (Why.check, False, FAILED.words)
