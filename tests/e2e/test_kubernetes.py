"""Agents in Kubernetes through the command line: a bead from its claim to its end, races, kills, and pods that go.

A kubelet of the tests runs `bdauto agent-entry` of each pod on this machine.
"""

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bdauto.sandbox import Sandbox
from tests.e2e.test_checked_agents import LIES
from tests.support.cli import (
    BDAUTO,
    Done,
    finish,
    forget_backoff,
    make_world,
    metadata,
    run,
    start,
    status,
    tell,
    wait_minutes,
)
from tests.support.fake_kubernetes import FakeKubernetes, Served, template
from tests.support.kubelet import Kubelet, wait_for
from tests.support.real_kubernetes import RealKubernetes

CLOSES = """
cat > /dev/null
$BD note $BEAD_ID "claimed by agent $BDAUTO_JOB"
echo "working on $BEAD_ID"
echo '{"type":"result","subtype":"success","is_error":false,"total_cost_usd":0.25,"num_turns":3,"session_id":"s-1"}'
$BD close $BEAD_ID --reason "all done"
"""
WAITS = "cat > /dev/null; echo waiting; until [ -e $GO ]; do sleep 0.1; done"
_names = itertools.count()


class Site:
    """A tracker, a cluster, a kubelet, and an agent that is a shell script."""

    def __init__(self, world: Sandbox, api: Any, kubeconfig: Path) -> None:
        self.world = world
        self.api = api
        self.kubeconfig = kubeconfig
        self.served: Served | None = None
        self.agent = world.folder / "agent"
        self.go = world.folder / "go"
        self.kubelet = Kubelet(api, world.folder / "pods", world.env(BEADBOARD_URL=""))
        self.does(CLOSES)

    def does(self, script: str) -> None:
        """Write the agent's script. Each run of it leaves a line in `runs`."""
        lines = ["#!/bin/sh", f"BD={self.world.bd_path}", f"GO={self.go}", f'echo "$BDAUTO_JOB" >> {self.runs_file}']
        self.agent.write_text("\n".join([*lines, script, ""]))
        self.agent.chmod(0o700)

    @property
    def runs_file(self) -> Path:
        return self.world.folder / "agent-runs"

    @property
    def runs(self) -> list[str]:
        """The attempts whose agents were started, in order."""
        return self.runs_file.read_text().split() if self.runs_file.exists() else []

    def template(self, **spec: Any) -> dict[str, Any]:
        made = template(**spec)
        [container] = made["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        container["command"] = [str(BDAUTO), "agent-entry", "--", str(self.agent)]
        return made

    def given(self, **env: str) -> dict[str, Any]:
        plain = {"BEADBOARD_URL": "", "KUBECONFIG": str(self.kubeconfig), "BDAUTO_KUBERNETES_TEMPLATE": "agent"}
        return {**plain, "BDAUTO_AGENT_SLOTS": "9", **env}

    def run(self, *words: str, **env: str) -> Done:
        return run(self.world, *words, **self.given(**env))

    def start(self, *words: str, **env: str) -> Any:
        return start(self.world, *words, **self.given(**env))

    def dispatch(self, *words: str, **env: str) -> Done:
        return self.run("dispatch", "--json", *words, **env)

    def reap(self, *words: str, **env: str) -> Done:
        return self.run("reap", "--json", *words, **env)

    def job(self, bead: str) -> dict[str, Any] | None:
        jobs = [one for one in self.api.all_jobs() if not one["metadata"]["name"].endswith("-log")]
        found = [one for one in jobs if one["metadata"]["annotations"].get("bdauto/bead") == bead]
        return found[-1] if found else None

    def ended(self, bead: str) -> Callable[[], bool]:
        def over() -> bool:
            conditions = ((self.job(bead) or {}).get("status") or {}).get("conditions") or ()
            return any(one["type"] in ("Complete", "Failed") for one in conditions)

        return over

    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.api.all_pods()]


KINDS = [
    ("server", "fake"),
    pytest.param(("real-server", "fake"), marks=pytest.mark.real_bd),
    ("server", "real"),
    pytest.param(("real-server", "real"), marks=pytest.mark.real_bd),
]


@pytest.fixture(params=KINDS, ids=["sandbox", "real-server", "sandbox-real-k8s", "real-server-real-k8s"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    flavour, cluster = request.param
    plane = request.getfixturevalue("control_plane") if cluster == "real" else None
    with make_world(request, flavour) as world:
        if plane is None:
            api = FakeKubernetes()
            served = api.serve()
            kubeconfig = world.folder / "kubeconfig"
            kubeconfig.write_text(json.dumps(served.kubeconfig()))
            made = Site(world, api, kubeconfig)
            made.served = served
            api.cron_jobs["agent"] = made.template()
            with made.kubelet:
                yield made
            served.close()
        else:
            real = RealKubernetes(plane, f"beads-{os.getpid()}-{next(_names)}", world.folder)
            made = Site(world, real, real.file)
            real.apply(made.template())
            with made.kubelet:
                yield made


def test_a_bead_is_dispatched_worked_on_closed_and_recorded(site: Site) -> None:
    bead = site.world.create("Fix it")
    assert site.dispatch().outcomes == {bead: "dispatched"}
    wait_for("end", site.ended(bead))
    assert status(site.world, bead) == "closed"
    if isinstance(site.api, FakeKubernetes):  # a real API server asks a kubelet for logs
        assert f"working on {bead}" in site.run("logs", bead).out
    site.reap()
    [ended] = json.loads(metadata(site.world, bead)["runs"])
    assert (ended["result"], ended["cost"], ended["session"], ended["why"]) == ("completed", 0.25, "s-1", "ok")
    assert ended["runner"].startswith("namespace ")
    site.reap()  # which sees that it is recorded
    job = site.job(bead)
    assert job is not None
    assert job["spec"]["ttlSecondsAfterFinished"] == 7 * 86_400
    assert site.runs == [ended["attempt"]]
    assert metadata(site.world, bead)["pod"] == site.api.all_pods()[0]["metadata"]["uid"]
    if isinstance(site.api, FakeKubernetes):  # its Job's time is over
        del site.api.jobs[job["metadata"]["name"]]
        site.api.pods.clear()
        done = site.run("logs", bead)
        assert (f"working on {bead}" in done.out, "state=completed" in done.err) == (True, True)


def test_two_pods_of_one_attempt_start_one_agent(site: Site) -> None:
    bead = site.world.create()
    site.does(WAITS)
    site.dispatch()
    wait_for("run", lambda: site.runs)
    [pod] = site.api.all_pods()
    second = json.loads(json.dumps(pod))
    second["metadata"] |= {"uid": "99999999-2222-3333-4444-555555555555", "name": "second"}
    process = site.kubelet.start(second)
    assert process.wait(60) == 0, site.kubelet.log(second)
    assert "another pod has taken attempt" in site.kubelet.log(second)
    assert json.loads((site.kubelet.folder / second["metadata"]["uid"] / "termination-log").read_text())["fenced"]
    site.go.touch()
    wait_for("end", site.ended(bead))
    assert len(site.runs) == 1


def test_an_api_that_is_away_loses_nothing_and_runs_nothing_twice(site: Site) -> None:
    if site.served is None:
        pytest.skip("only the stand-in can be taken away")
    bead = site.world.create()
    site.does(WAITS + CLOSES.replace("cat > /dev/null", ""))
    site.dispatch()
    wait_for("run", lambda: site.runs)
    site.served.down = True
    other = site.world.create("meanwhile")
    assert site.dispatch().code == 4
    assert status(site.world, other) == "open"
    assert site.reap().outcomes == {bead: "kept"}
    site.go.touch()
    wait_for("close", lambda: status(site.world, bead) == "closed")
    site.served.down = False
    wait_for("end", site.ended(bead))
    site.reap()
    [ended] = json.loads(metadata(site.world, bead)["runs"])
    assert (ended["result"], ended["cost"], len(site.runs)) == ("completed", 0.25, 1)


def test_a_deleted_pod_charges_nothing_and_does_not_run_again(site: Site) -> None:
    bead = site.world.create()
    site.does(WAITS)
    site.dispatch()
    wait_for("run", lambda: site.runs)
    site.api.delete_pod(site.pods()[0])
    wait_for("end", site.ended(bead))
    done = site.reap()
    assert done.outcomes == {bead: "released"}
    assert "its pod was deleted" in done.out
    assert metadata(site.world, bead).get("attempts", 0) == 0
    time.sleep(1)
    assert len(site.runs) == 1


def test_a_failing_agent_is_told_with_its_last_words(site: Site) -> None:
    bead = site.world.create()
    site.does(
        'cat > /dev/null; $BD note $BEAD_ID "claimed by agent $BDAUTO_JOB"; sleep 1; echo "no such branch"; exit 3'
    )
    site.dispatch()
    wait_for("end", site.ended(bead))
    site.reap("--on-stall", "requeue")
    [ended] = json.loads(metadata(site.world, bead)["runs"])
    assert (ended["result"], ended["why"], ended["words"]) == ("failed", "error", "no such branch")


CHECK = """sh -c 'echo "$BEAD_ACCEPTANCE by $BEADS_ACTOR" > {seen}; test -e {go} || {{ echo no such file; exit 3; }}'"""
DONE = """
cat > $SEEN.prompt
$BD note $BEAD_ID "claimed by agent $BDAUTO_JOB"
echo "I did it."
"""


def test_a_bead_is_closed_when_its_check_has_passed_in_the_pod(site: Site) -> None:
    seen = site.world.folder / "seen"
    check = CHECK.format(seen=seen, go=site.go)
    site.does(f"SEEN={seen}{DONE}$BD close $BEAD_ID --reason done")
    bead, after = site.world.create(), site.world.create()
    tell(site.world, "dep", "add", after, bead)
    assert site.dispatch(BDAUTO_AGENT_CHECK=check).outcomes == {bead: "dispatched"}
    wait_for("end", site.ended(bead))
    assert site.dispatch(BDAUTO_AGENT_CHECK=check).outcomes == {bead: "reverted", after: "kept"}
    site.reap()
    assert (status(site.world, bead), metadata(site.world, bead)["failed_checks"]) == ("open", 1)
    assert "its check (sh): exit status 3: no such file" in site.world.notes(bead)[-1]
    assert "bd close" not in seen.with_name("seen.prompt").read_text()
    site.go.touch()
    site.does(f"SEEN={seen}{DONE}")
    forget_backoff(site.world, bead)
    assert site.dispatch(BDAUTO_AGENT_CHECK=check).outcomes == {bead: "dispatched"}
    wait_for("end", site.ended(bead))
    assert "no such file" in seen.with_name("seen.prompt").read_text()
    assert status(site.world, bead) == "in_progress"
    assert site.reap().outcomes == {bead: "closed"}
    assert site.world.show(bead)["close_reason"] == "I did it."
    assert seen.read_text() == "it works by bdauto-check\n"
    assert site.dispatch(BDAUTO_AGENT_CHECK=check).outcomes == {after: "dispatched"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked to end"])
def test_a_pod_that_ends_in_the_middle_of_its_check_has_not_passed(site: Site, number: signal.Signals) -> None:
    bead, begun = site.world.create(), site.world.folder / "begun"
    site.does(f"SEEN={site.go}{DONE}$BD close $BEAD_ID --reason done")
    site.dispatch(BDAUTO_AGENT_CHECK=f"sh -c 'touch {begun}; exec sleep 100'")
    wait_for("check", begun.exists)
    [entry] = site.kubelet.running.values()
    entry.send_signal(number)
    wait_for("end", site.ended(bead))
    site.reap()
    assert status(site.world, bead) in ("open", "blocked")
    [ended] = json.loads(metadata(site.world, bead)["runs"])
    assert (ended["result"], ended["checked"]) == ("failed" if number is signal.SIGKILL else "stopped", False)


MESSAGE = """echo '{"state": "completed", "why": "ok", "passed": 1}' > $BDAUTO_TERMINATION_LOG"""
LIARS = {name: lie for name, lie in LIES.items() if name != "writes the end"} | {
    "writes the message": f"{MESSAGE}; $BD close $BEAD_ID --reason done",
    "writes it and ends its entry": f"{MESSAGE}; $BD close $BEAD_ID --reason done; kill -9 $(ps -o ppid= -p $$)",
}


@pytest.mark.maintainer
def test_agents_in_pods_that_lie_about_being_done_start_no_dependent(site: Site) -> None:
    cases = "\n".join(f"{number}) {lie};;" for number, lie in enumerate(LIARS.values()))
    site.does(
        f'export BD\n$BD note $BEAD_ID "claimed by agent $BDAUTO_JOB"\n'
        f'n=$($BD show $BEAD_ID --json | grep -o "liar [0-9]*" | head -1)\ncase ${{n#liar }} in\n{cases}\nesac'
    )
    liars = [site.world.create(f"liar {number}") for number in range(len(LIARS))]
    dependents = [site.world.create() for _ in liars]
    for after, bead in zip(dependents, liars, strict=True):
        tell(site.world, "dep", "add", after, bead)
    given = {"BDAUTO_AGENT_CHECK": "false", "BDAUTO_AGENT_SLOTS": "20", "BDAUTO_MAX": "20", "BDAUTO_TRIP_AFTER": "100"}
    started: set[str] = set()
    while len(started) < len(liars) or not all(site.ended(bead)() for bead in liars):
        done = site.dispatch(**given)
        started |= {bead for bead, outcome in done.outcomes.items() if outcome == "dispatched"}
    for _ in range(2):
        site.reap("--max-reap", "0")
        done = site.dispatch(**given)
        started |= {bead for bead, outcome in done.outcomes.items() if outcome == "dispatched"}
    assert started == {*liars}
    assert [bead for bead in liars if status(site.world, bead) == "closed"] == []


def test_the_entry_holds_the_time_limit_itself(site: Site) -> None:
    bead = site.world.create()
    site.does(WAITS)
    site.dispatch(BDAUTO_AGENT_TIMEOUT="2s")
    wait_for("end", site.ended(bead))
    site.reap()
    [ended] = json.loads(metadata(site.world, bead)["runs"])
    assert (ended["result"], ended["why"]) == ("timeout", "timeout")


def test_a_cancelled_job_ends_and_its_bead_is_blocked(site: Site) -> None:
    bead = site.world.create()
    site.does(f"cat > /dev/null; echo '{{\"total_cost_usd\": 0.5}}'; {WAITS}")
    site.dispatch()
    wait_for("run", lambda: site.runs)
    done = site.run("cancel", bead, "--json")
    assert (done.json["state"], done.json["blocked"]) == ("cancelled", True)
    site.reap()
    [ended] = json.loads(metadata(site.world, bead)["runs"])
    assert (ended["result"], status(site.world, bead)) == ("stopped", "blocked")
    wait_for("end of the agent", lambda: not site.kubelet.running)


def test_a_claim_without_a_job_is_given_back_and_can_start_no_more(site: Site) -> None:
    """Its dispatcher was killed between the two, or waits there."""
    bead = site.world.create()
    place = f"k8s-{_uid(site)}"
    attempt = "w00000000000000aa"
    tell(site.world, "update", bead, "-s", "in_progress", "--set-metadata", f"bdauto.attempt={attempt}")
    for name, value in (("jobs_folder", place), ("attempts", "1"), ("claimed_at", "2026-01-01T00:00:00Z")):
        tell(site.world, "update", bead, "--set-metadata", f"bdauto.{name}={value}")
    wait_minutes(site.world, bead, 60)
    done = site.reap()
    assert done.outcomes == {bead: "released"}
    job = site.job(bead)
    assert job is not None
    assert (job["metadata"]["name"], job["spec"]["completions"]) == (f"bdauto-{attempt}", 0)
    assert site.pods() == []


def _uid(site: Site) -> str:
    if isinstance(site.api, RealKubernetes):
        return str(json.loads(site.api.kubectl("get", "cronjob", "agent", "-o", "json"))["metadata"]["uid"])
    return str(site.api.cron_jobs["agent"]["metadata"]["uid"])


def test_dispatchers_that_are_killed_at_any_moment_start_each_bead_once(site: Site) -> None:
    site.does(WAITS)
    beads = [site.world.create(f"bead {number}") for number in range(3)]
    for delay in (0.3, 0.5, 0.7, 0.9, 1.1, 1.3):
        processes = [site.start("dispatch", "--max", "3") for _ in range(4)]
        time.sleep(delay)
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            finish(process, site.world)
    done = site.dispatch("--max", "3")
    for bead in beads:
        wait_minutes(site.world, bead, 60)
        forget_backoff(site.world, bead)
    site.reap("--max-reap", "0")
    for bead in beads:
        forget_backoff(site.world, bead)
    done = site.dispatch("--max", "3")
    assert done.code in (0, 5)
    jobs = [one for one in site.api.all_jobs() if one["spec"]["completions"] == 1]
    bead_of = [one["metadata"]["annotations"]["bdauto/bead"] for one in jobs]
    wait_for("runs", lambda: len(site.runs) >= len(set(bead_of)))
    assert len(site.runs) == len(set(site.runs)), "no attempt runs twice"
    alive = [pod["metadata"]["annotations"] for pod in site.api.all_pods() if pod["status"]["phase"] == "Running"]
    assert len(alive) <= len(beads)
    site.go.touch()
