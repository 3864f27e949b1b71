"""Jobs in Kubernetes: what may start an agent twice, and what may lose its end.

Dispatchers and sweeps are killed at any call, requests and answers are lost, the Job controller starts a second pod,
and a node is lost while its container runs on. People and agents change beads meanwhile. It uses the real dispatcher,
reaper, agent of Kubernetes and fence of a pod, on the stand-in of the API. `python -m tests.simulation --lives` runs
many.
"""

import contextlib
import copy
import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2

from bdauto.agents.kubernetes.cluster import Cluster
from bdauto.agents.kubernetes.evidence import read_job
from bdauto.agents.kubernetes.message import Message, encode
from bdauto.agents.kubernetes.runner import KubernetesAgent
from bdauto.agents.kubernetes.settings import KubernetesSettings
from bdauto.agents.prompt_settings import CommandLine
from bdauto.bd.change import Change
from bdauto.common.errors import BdError, BdTimeout
from bdauto.controllers.pod_fence import take
from bdauto.controllers.reaper import Reaper
from bdauto.domain.bead import Bead
from bdauto.domain.record import DUE
from bdauto.domain.settings import DispatchSettings, OnStall, ReapSettings
from tests.support.fake_kubernetes import Failure, FakeKubernetes, Object
from tests.support.fakes import Clock, Tracker, dispatcher, row
from tests.support.kubernetes import KUBECONFIG

AGENT = "agent"
CALM = 4 * 48
"""Half hours after the last fault within which every bead is settled and every end recorded."""
FULL = Failure(403, "Forbidden", 'jobs.batch "x" is forbidden: exceeded quota: q')
ACTS = ("notes", "notes", "closes", "closes", "leaves", "fails", "hands back", "clears", "deletes", "closes another")
ENDS = ("leaves", "fails")
CLOSED = {"status": "closed"}
PEOPLE = ("notes", "closes", "opens", "opens", "gives away", "gives to the agent", "blocks")


class Killed(BaseException):
    """The process that made this call is gone."""


@dataclass(eq=False)
class Container:
    """What a kubelet runs. `agent`: its entry has started the agent. `lost`: its node is, and the API has no pod."""

    pod: str
    uid: str
    bead: str
    attempt: str
    agent: bool = False
    alive: bool = True
    lost: bool = False


@dataclass(eq=False)
class World:
    """The tracker, the cluster, and all who use them."""

    seed: int
    violation: str = ""
    calm: bool = False
    down: bool = False
    depth: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    agents: Counter[str] = field(default_factory=Counter)
    """How many agents each attempt has had."""
    passed: set[str] = field(default_factory=set)
    """The attempts whose checks have passed."""
    late: dict[str, bool] = field(default_factory=dict)
    """Whether the last agent that closed a bead was another one than that of its claim, or on a lost node."""
    wiped: set[str] = field(default_factory=set)
    """Beads whose record somebody has removed."""
    containers: list[Container] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = rng = random.Random(self.seed)
        self.clock = Clock()
        self.api = SimKubernetes(self)
        self.rows = {f"x-{n}": row(f"x-{n}", priority=rng.randrange(3)) for n in range(rng.randint(2, 4))}
        self.store: dict[str, Any] = {}
        self.events: list[Any] = []
        self.cluster = Cluster(None, None, self.api.transport())
        self.slots = rng.choice((1, 2, 4))
        self.checks = rng.choice(((), (CommandLine(("check",)),)))
        [container] = self.api.cron_jobs["agent"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        container["command"] = ["bdauto", "agent-entry", "--", "agent"]
        self.reap = ReapSettings(on_stall=rng.choice((OnStall.block, OnStall.requeue)), max_attempts=9)
        self.processes = [self.process() for _ in range(3)]

    def process(self) -> KubernetesAgent:
        """Return what a new process knows of the cluster: nothing."""
        settings = KubernetesSettings(kubernetes_template="agent", agent_slots=self.slots, agent_check=self.checks)
        return KubernetesAgent(settings, self.cluster, "t", AGENT, runtime=self.runtime())

    def runtime(self) -> Any:
        """Return the clock, with ids of its own."""
        return self.clock.runtime(self.rng.randrange(1 << 60))

    def violate(self, words: str) -> None:
        """Note the first broken promise."""
        self.violation = self.violation or words

    # Those who are killed

    def run(self, act: Callable[[], object]) -> bool:
        """Let a process do something. Return False if it is killed meanwhile."""
        self.depth += 1
        try:
            act()
        except Killed:
            self.counts["killed"] += 1
            return False
        finally:
            self.depth -= 1
        return True

    def work(self) -> None:
        """Let a dispatcher or a reaper do its work, and start it anew if it is killed."""
        number = self.rng.randrange(len(self.processes))
        act = self.rng.choice((self.dispatch, self.sweep))
        if not self.run(lambda: act(self.processes[number])) or self.rng.random() < 0.2:
            self.processes[number] = self.process()

    def dispatch(self, agent: KubernetesAgent) -> None:
        """Run one cycle."""
        settings = DispatchSettings(max_beads=2, max_attempts=9)
        dispatcher(bd := SimTracker(self), bd, lambda: agent, settings, self.runtime()).cycle()

    def sweep(self, agent: KubernetesAgent) -> None:
        """Run one sweep."""
        Reaper(bd := SimTracker(self, sweeps=True), bd, lambda: agent, self.reap, self.runtime()).sweep()

    def meanwhile(self) -> None:
        """Between two calls of a process: others act, time passes, or it is killed."""
        if self.calm:
            return
        chance = self.rng.random()
        if chance < 0.015:
            raise Killed
        if chance < 0.15 and self.depth < 3:
            self.happen()
        elif chance < 0.2:
            self.clock.time += timedelta(seconds=self.rng.choice((1, 30, 400, 900)) * self.rng.random())

    def lose(self, chance: float) -> bool:
        """Return whether a fault happens."""
        return not self.calm and self.rng.random() < chance

    # The cluster

    def kubelet(self) -> None:
        """Start the containers of new pods, and end those whose pods are gone or whose Jobs are over."""
        for one in [one for one in self.containers if one.alive and not one.lost]:
            job = self.api.jobs.get(f"bdauto-{one.attempt}")
            if one.pod in self.api.pods and (job is None or job["status"].get("conditions")):
                self.api.delete_pod(one.pod)
            one.alive = one.pod in self.api.pods
        known = {one.uid for one in self.containers}
        for pod in [pod for pod in self.api.all_pods() if pod["metadata"]["uid"] not in known]:
            about, [container] = pod["metadata"], pod["spec"]["containers"]
            env = {one["name"]: one.get("value") for one in container["env"]}
            one = Container(about["name"], about["uid"], env["BEAD_ID"], env["BDAUTO_JOB"])
            if self.lose(0.3):  # it pulls the image yet
                continue
            self.containers.append(one)
            self.report(one, "Running", {"running": {}})
            if not self.run(lambda one=one: self.entry(one)):  # type: ignore[misc]
                self.end(one, 137)

    def entry(self, one: Container) -> None:
        """Do what the entry of a pod does, until it starts the agent."""
        bd = SimTracker(self)
        try:
            why = take(bd, bd, self.runtime(), bead_id=one.bead, attempt=one.attempt, pod=one.uid)
        except BdError as error:
            self.end(one, 1, Message(state="error", why="network", words=error.message))
            return
        if isinstance(why, str):
            self.counts["fenced"] += 1
            self.end(one, 0, Message(fenced=True, words=why))
        elif one.alive:
            self.begin(one)

    def begin(self, one: Container) -> None:
        """Start the agent, and judge whether it may run."""
        one.agent = True
        self.counts["agents"] += 1
        self.agents[one.attempt] += 1
        if self.agents[one.attempt] > 1:
            self.violate(f"attempt {one.attempt} of {one.bead} has a second agent")
        for other in self.containers:
            job = self.api.jobs.get(f"bdauto-{other.attempt}")
            goes_on = other.alive and other.agent and not other.lost and job and not job["status"].get("conditions")
            if other is not one and other.bead == one.bead and goes_on:
                self.violate(f"{one.bead} has an agent of {one.attempt} while the Job of {other.attempt} runs")

    def report(self, one: Container, phase: str, state: Object, **status: Any) -> None:
        """Tell the API of a container, unless its pod is gone."""
        with contextlib.suppress(KeyError):
            self.api.write_pod(
                one.pod, {"phase": phase, "containerStatuses": [{"name": "agent", "state": state}]} | status
            )

    def end(self, one: Container, code: int, told: Message | None = None, **status: Any) -> None:
        """End a container."""
        one.alive = False
        words = encode(told).decode() if told else ""
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "message": words}
        self.report(one, "Failed" if code else "Succeeded", {"terminated": ended}, **status)

    def second_pod(self) -> None:
        """Let the Job controller start a pod again that it has forgotten: Kubernetes says that it may."""
        if pods := [pod for pod in self.api.all_pods() if pod["status"]["phase"] in ("Pending", "Running")]:
            pod = copy.deepcopy(self.rng.choice(pods))
            name = f"{pod['metadata']['name']}-{self.rng.randrange(1 << 30)}"
            pod["metadata"] |= {"name": name, "uid": f"uid-{name}"}
            self.api.pods[name] = pod | {"status": {"phase": "Pending"}}

    def lose_node(self) -> None:
        """Lose a node: the API forgets its pod, and the container runs on."""
        if running := [one for one in self.containers if one.alive and one.pod in self.api.pods]:
            one = self.rng.choice(running)
            one.lost = True
            self.api.delete_pod(one.pod)

    def evict(self) -> None:
        """Take a pod away."""
        if running := [one for one in self.containers if one.alive and not one.lost]:
            why = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            self.end(self.rng.choice(running), 137, conditions=[why])

    # People and agents

    def write(self, who: str, bead: str, **fields: Any) -> None:
        """Let somebody change a bead, and bd record it."""
        if bead not in self.rows:
            return
        fields = {name: value for name, value in fields.items() if self.rows[bead].get(name) != value}
        self.rows[bead] |= {**fields, "updated_at": self.clock.now()}
        if fields.get("status") == "closed":
            self.rows[bead]["closed_at"] = self.clock.now()
        for name in ("status", "assignee"):
            if name in fields:
                kind = "status_changed" if name == "status" else "updated"
                at = f"{self.clock.now():%Y-%m-%dT%H:%M:%SZ}"
                event = {"issue_id": bead, "actor": who, "event_type": kind, "created_at": at}
                self.events.append(event | {"new_value": {name: fields[name]}})

    def note(self, who: str, bead: str, text: str) -> None:
        """Let somebody write a note."""
        if bead in self.rows:
            self.write(who, bead, notes=f"{self.rows[bead].get('notes', '')}\n{text}".strip())

    def agent_acts(self) -> None:
        """Let an agent do something, also what it should not."""
        if not (working := [one for one in self.containers if one.alive and one.agent]):
            return
        one = self.rng.choice(working)
        act = "closes" if self.calm else self.rng.choice(ACTS)
        match act:
            case "notes":
                self.note(AGENT, one.bead, f"claimed by agent {one.attempt}")
                return
            case "closes":
                self.agent_closes(one, one.bead)
            case "hands back":
                self.write(AGENT, one.bead, status="open")
            case "clears":
                self.write(AGENT, one.bead, metadata={})
                self.wiped.add(one.bead)
            case "deletes":
                self.rows.pop(one.bead, None)
            case "closes another":
                self.agent_closes(one, self.rng.choice([*self.rows] or [""]))
        if act in ENDS or self.calm or self.rng.random() < 0.5:
            self.agent_ends(one, failed=act == "fails")

    def agent_closes(self, one: Container, bead: str) -> None:
        """Let an agent close a bead."""
        claim = SimTracker(self).bead(bead).record.attempt if bead in self.rows else ""
        if bead in self.rows and self.rows[bead]["status"] != "closed":
            self.late[bead] = one.lost or claim != one.attempt
        self.write(AGENT, bead, status="closed")

    def agent_ends(self, one: Container, *, failed: bool) -> None:
        """Let an agent end, and its checks run."""
        passes = not failed and (self.calm or self.rng.random() < 0.6)
        if not self.checks or failed:
            self.end(one, int(failed), Message(state="failed" if failed else "completed"))
            return
        self.passed |= {one.attempt} if passes else set()
        self.end(one, int(not passes), Message(state="completed", why="ok" if passes else "check", passed=int(passes)))

    def person_acts(self) -> None:
        """Let a person change a bead."""
        running = [one.bead for one in self.containers if one.alive and one.bead in self.rows]
        bead = self.rng.choice([*self.rows, *running] or [""])
        match self.rng.choice(PEOPLE):
            case "notes":
                self.note("ada", bead, "a note")
            case "closes":
                self.write("ada", bead, status="closed")
            case "opens":
                self.write("ada", bead, status="open")
            case "gives away":
                self.write("ada", bead, assignee="bob")
            case "gives to the agent":
                self.write("ada", bead, assignee=AGENT)
            case "blocks":
                self.write("ada", bead, status="blocked")

    def happen(self) -> None:
        """Let something happen."""
        often = (self.work, self.work, self.kubelet, self.kubelet, self.agent_acts, self.pass_time)
        seldom = (self.second_pod, self.lose_node, self.evict, *[self.person_acts] * 3, self.break_api)
        self.rng.choice(often if self.rng.random() < 0.8 else seldom)()

    def pass_time(self) -> None:
        """Let some time pass."""
        self.clock.time += timedelta(seconds=self.rng.choice((10, 300, 3000, 8000)) * self.rng.random())

    def break_api(self) -> None:
        """Let the API be down, full, or well again."""
        self.down = self.rng.random() < 0.3
        self.api.refuse = self.rng.choice((None, None, FULL))

    # The end

    def settle(self) -> None:
        """Let the faults end, and wait until every bead is settled and every end recorded."""
        self.calm, self.down, self.api.refuse = True, False, None
        for one in self.containers:
            one.alive = one.alive and not one.lost
        for _ in range(CALM):
            self.clock.time += timedelta(minutes=30)
            self.kubelet()
            self.agent_acts()
            self.sweep(self.processes[0])
            self.dispatch(self.processes[0])
            left = [*self.unsettled()]
            if self.violation or not left:
                break
        else:
            self.violate(f"not settled within {CALM // 2} hours: {left}")
        for one in self.containers:
            if one.agent and one.bead in self.rows and one.bead not in self.wiped:
                runs = SimTracker(self).bead(one.bead).record.all_runs
                if not any(run.attempt == one.attempt and run.ended_at for run in runs):
                    self.violate(f"the end of {one.attempt} is not recorded on {one.bead}")
        for bead in [one["id"] for one in self.rows.values() if self.checks and one["status"] == "closed"]:
            self.judge_closed(bead)

    def judge_closed(self, bead: str) -> None:
        """A bead stays closed without a check by a person, or by an agent of the past: then it is marked."""
        who = [event["actor"] for event in self.events if (event["issue_id"], event["new_value"]) == (bead, CLOSED)]
        had = {one.attempt for one in self.containers if one.bead == bead and one.agent}
        if had and who and who[-1] == AGENT and not (had & self.passed or bead in self.wiped):
            marked = SimTracker(self).bead(bead).record.check == DUE
            if not (self.late[bead] and marked):
                self.violate(f"{bead} is closed without a check, {'late' if self.late[bead] else 'by its agent'}")

    def unsettled(self) -> Iterator[str]:
        """Yield the beads that are not settled, and the Jobs that are not over or whose end is not recorded."""
        for one in self.rows.values():
            if one["assignee"] == AGENT and one["status"] in ("open", "in_progress"):
                yield f"{one['id']} is {one['status']}"
        for job in self.api.all_jobs():
            view = read_job(job)
            if view is None or not (view.over and (view.recorded or view.tombstone)):
                yield f"{job['metadata']['name']} is {view.state if view else 'odd'}, and not recorded"


class SimKubernetes(FakeKubernetes):
    """The API, which counts the Jobs of each attempt. Requests and answers are lost."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock.now)
        self.world = world
        self.made: Counter[str] = Counter()

        def before(_method: str, _path: str) -> None:
            world.meanwhile()
            if not world.calm and (world.down or world.lose(0.02)):
                raise httpx2.ConnectError("no route to host")

        def after(_method: str, _path: str) -> None:
            world.meanwhile()
            if world.lose(0.03):
                raise httpx2.ReadTimeout("no answer")

        self.before, self.after = before, after

    def _create(self, job: Object, *, dry_run: bool) -> Object:
        made = super()._create(job, dry_run=dry_run)
        name = job["metadata"]["name"]
        self.made[name] += not dry_run
        self.world.counts["jobs"] += not dry_run
        if self.made[name] > 1:
            self.world.violate(f"{name} is made a second time")
        return made


class SimTracker(Tracker):
    """The shared tracker, as one process sees it. It fails, and writes without an answer."""

    def __init__(self, world: World, *, sweeps: bool = False) -> None:
        super().__init__(world.clock)
        self.began, self.sweeps = world.clock.now(), sweeps
        self.world, self.rows, self.store, self.recorded = world, world.rows, world.store, world.events

        def before(_what: str | Change) -> None:
            world.meanwhile()
            if world.lose(0.01):
                raise BdTimeout("bd did not answer")

        def after(_changes: object) -> None:
            world.meanwhile()
            if world.lose(0.02):
                raise BdTimeout("bd did not answer")

        self.before_read, self.before_write, self.after_write = before, before, after

    def _apply(self, change: Change) -> bool:
        if change.bead.id not in self.rows:
            return False
        before = self.bead(change.bead.id)
        written = super()._apply(change)
        self._judge(change, before, self.bead(change.bead.id))
        return written

    def _judge(self, change: Change, before: Bead, after: Bead) -> None:
        """A pod takes what is claimed for it and free. A sweep gives back no bead whose Job it could have seen."""
        claim = before.record
        taken = change.act == "take the attempt of" and after.record.pod != claim.pod
        if taken and (before.status != "in_progress" or claim.attempt != after.record.attempt or claim.pod):
            self.world.violate(f"a pod takes {before.id}, which is {before.status} for {claim.attempt} of {claim.pod}")
        closes = before.status != "closed" == after.status
        if closes and self.world.checks and claim.attempt not in self.world.passed:
            self.world.violate(f"bdauto closes {before.id}, whose check has not passed")
        if self.sweeps and before.status == "in_progress" != after.status:
            for view in filter(None, map(read_job, self.world.api.all_jobs())):  # what is due by now is done
                seen = view.bead == before.id and view.created is not None and view.created < self.began
                if seen and not (view.over or view.tombstone) and not self._is_old(before):
                    self.world.violate(f"a sweep gives {before.id} back while the Job of {view.attempt} runs")

    def _is_old(self, bead: Bead) -> bool:
        """Whether a Job is no longer believed: nobody has written on its bead for a day."""
        return self.clock.now() - (bead.record.claimed_at or bead.updated_at) > timedelta(days=1)


@contextlib.contextmanager
def kubeconfig() -> Iterator[None]:
    """Give this process a kubeconfig."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kubeconfig"
        file.write_text(json.dumps(KUBECONFIG))
        with patch.dict(os.environ, {"KUBECONFIG": str(file)}):
            yield


def runs_jobs(seed: int) -> World:
    """Let dispatchers, reapers, pods, agents and people work at once, then wait until all is settled."""
    with kubeconfig():
        world = World(seed)
    for _ in range(60):
        world.happen()
        if world.violation:
            return world
    world.settle()
    return world
