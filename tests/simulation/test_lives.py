"""Lives of jobs, chains of attempts, lanes, Jobs in Kubernetes: each of their rules is kept, each defect found."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from bdauto.agents.cli_adapters.table import Adapter
from bdauto.agents.kubernetes import kubernetes_jobs, template
from bdauto.agents.kubernetes.evidence import end_of, state_of
from bdauto.agents.kubernetes.kubernetes_jobs import KubernetesJobs
from bdauto.agents.kubernetes.runner import KubernetesAgent
from bdauto.agents.kubernetes.template import job_of
from bdauto.agents.local import sessions
from bdauto.agents.local.runner import LocalAgent
from bdauto.bd.change import rewrite
from bdauto.controllers import dispatcher, pod_fence, reconciler
from bdauto.controllers.earlier_jobs import EarlierJobs
from bdauto.controllers.unchecked_beads import UncheckedBeads
from bdauto.domain import breaker, reconcile, resume
from bdauto.domain.agent_end import Why
from bdauto.domain.edits import author
from bdauto.domain.lanes import LaneRule, Lanes
from bdauto.domain.reconcile import Decision, decide
from bdauto.loop.loop import Loop
from tests.simulation import pods
from tests.simulation.chains import attempts
from tests.simulation.lanes import dispatches
from tests.simulation.lives import AGENT, live
from tests.simulation.pods import runs_jobs

pytestmark = pytest.mark.timeout(900)
EARLY = datetime.fromisoformat("2020-01-01T00:00:00+00:00")


def author_is(change: Callable[[str | None], str | None]) -> Callable[..., str | None]:
    return lambda *words: change(author(*words))


def decides(**given: Any) -> Callable[..., Decision]:
    return lambda *words, **named: decide(*words, **{**named, **given})


def unheard(running: Any, bead: Any, *words: Any, **named: Any) -> Decision:
    return decide(running, bead and msgspec.structs.replace(bead, updated_at=EARLY), *words, **named)


def unwoken(*words: Any, **named: Any) -> Decision:
    return msgspec.structs.replace(decide(*words, **named), due=None)


LIVES: dict[str, tuple[Any, str, Any]] = {
    "an agent's own change stops its job": (reconcile, "author", author_is(lambda who: "ada" if who else who)),
    "what is unclear is stopped": (reconcile, "author", author_is(lambda who: who or "ada")),
    "another's change stops nothing": (reconcile, "author", author_is(lambda who: AGENT if who else who)),
    "an agent that closed its bead is ended at once": (reconciler, "decide", decides(linger=timedelta())),
    "an agent that closed its bead stays": (reconciler, "decide", decides(linger=timedelta(days=1))),
    "a tool may be silent no longer than a model": (reconcile, "TOOL_SILENCE", timedelta()),
    "a note is no sign of life": (reconciler, "decide", unheard),
    "the time of a job wakes nobody": (reconciler, "decide", unwoken),
}
CHAINS: dict[str, tuple[Any, str, Any]] = {
    "a session is resumed six times": (resume, "MOST_RESUMES", 6),
    "a session is resumed four times": (resume, "MOST_RESUMES", 4),
    "a failed run is resumed": (resume, "RESUMED_AFTER", resume.RESUMED_AFTER | {Why.error}),
    "a silent run is resumed": (resume, "RESUMED_AFTER", resume.RESUMED_AFTER | {Why.silence}),
    "a run that hit a limit starts cold": (resume, "RESUMED_AFTER", resume.RESUMED_AFTER - {Why.limit}),
    "a failed check starts cold": (sessions, "_interrupted", lambda _: False),
    "a session is resumed without its file": (Adapter, "can_resume", lambda *_: True),
    "two jobs go on in one session": (sessions, "_in_use", lambda *_: False),
}


def last_lane(lanes: Lanes, bead: Any) -> LaneRule | None:
    return next((rule for rule in reversed(lanes.rules) if not rule.lacks(bead)), None)


def always_taking(bd: Any, *_words: Any) -> Lanes:
    lanes: Lanes = bd.lanes
    return msgspec.structs.replace(lanes, taking={path[0].name: "held" for path in lanes.fallen_back()})


def first_of_the_file(loop: Any) -> Any:
    now = loop.runtime.monotonic()
    ready = [turn for turn in loop._turns if turn[0].due <= now + 1]
    return min(ready or loop._turns, key=lambda turn: turn[1])


LANES: dict[str, tuple[Any, str, Any]] = {
    "a bead goes to the last lane that takes it": (Lanes, "of", last_lane),
    "each lane takes what it would take alone": (Lanes, "condition", lambda *_: None),
    "a fallback takes beads of a lane that works": (dispatcher, "as_seen", always_taking),
    "a fallback takes no beads": (dispatcher, "as_seen", lambda bd, *_: bd.lanes),
    "a breaker holds all lanes": (breaker, "key_of", lambda _: "bdauto.breaker.l0"),
    "a limit counts the runs of all lanes": (Lanes, "ran", lambda *_: True),
    "a limit counts nothing": (Lanes, "ran", lambda *_: False),
    "the jobs of all lanes take the slots of each": (LocalAgent, "_counts", lambda *_: True),
    "a lane has more jobs than slots": (LocalAgent, "_counts", lambda *_: False),
    "two lanes settle the claims of a removed one": (Lanes, "claimed", lambda *_: True),
    "the loop prefers the lane that is first in the file": (Loop, "_next_turn", first_of_the_file),
}


def unconditional(*words: Any, **named: Any) -> Any:
    return rewrite(*words, **{name: value for name, value in named.items() if not name.startswith("if_")})


def removed_at_once(*words: Any, **named: Any) -> Any:
    job = job_of(*words, **named)
    job["spec"]["ttlSecondsAfterFinished"] = 0
    return job


def over_without_pod(job: Any, pod: Any) -> str:
    return "failed" if job.state == "queued" else state_of(job, pod)


def all_passed(*words: Any) -> Any:
    return msgspec.structs.replace(end_of(*words), checked=True)


PODS: dict[str, tuple[Any, str, Any]] = {
    "no pod asks whether another has its attempt": (pods, "take", lambda bd, *_, bead_id, **__: bd.bead(bead_id)),
    "the fence compares nothing": (pod_fence, "rewrite", unconditional),
    "a Job may be removed before its end is recorded": (template, "job_of", removed_at_once),
    "the end of a Job is not marked as recorded": (KubernetesAgent, "mark_recorded", lambda *_, deleted: None),
    "the ends of Jobs whose beads lost their record stay unknown": (KubernetesJobs, "unrecorded", lambda _: []),
    "a bead is started while its Job runs": (EarlierJobs, "hold_back", lambda *_: False),
    "a Job that waits for its pod counts as over": (kubernetes_jobs, "state_of", over_without_pod),
    "a Job that has ended has passed its checks": (kubernetes_jobs, "end_of", all_passed),
    "a bead that its agent has closed unchecked stays closed": (UncheckedBeads, "open_here", lambda *_: []),
}

SLOW = (
    "the fence compares nothing",
    "a Job may be removed before its end is recorded",
    "a bead is started while its Job runs",
    "a Job that has ended has passed its checks",
    "a bead that its agent has closed unchecked stays closed",
)
"""Defects that take dozens of histories."""
FIRST = {"the ends of Jobs whose beads lost their record stay unknown": 600}
"""Where to begin the search for a defect that takes hundreds of histories."""


def test_no_job_is_stopped_without_a_reason_or_goes_on_in_spite_of_one() -> None:
    assert [(life.seed, life.violation) for life in map(live, range(1_000)) if life.violation] == []


def test_no_session_is_resumed_against_the_rules() -> None:
    assert [(chain.seed, chain.violation) for chain in map(attempts, range(50)) if chain.violation] == []


def test_each_bead_is_started_by_its_lane_or_the_fallback_of_that() -> None:
    assert [(world.seed, world.violation) for world in map(dispatches, range(60)) if world.violation] == []


def test_no_attempt_has_two_agents_in_kubernetes_and_each_end_is_recorded() -> None:
    assert [(world.seed, world.violation) for world in map(runs_jobs, range(60)) if world.violation] == []


@pytest.mark.parametrize("name", LIVES)
def test_a_defect_of_stopping_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*LIVES[name])
    assert any(live(seed).violation for seed in range(1_000))


@pytest.mark.parametrize("name", CHAINS)
def test_a_defect_of_resuming_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*CHAINS[name])
    assert any(attempts(seed).violation for seed in range(100))


@pytest.mark.parametrize("name", LANES)
def test_a_defect_of_lanes_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*LANES[name])
    assert any(dispatches(seed).violation for seed in range(300))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.maintainer] * (name in SLOW)) for name in PODS])
def test_a_defect_of_jobs_in_kubernetes_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*PODS[name])
    first = FIRST.get(name, 0)
    assert any(runs_jobs(seed).violation for seed in range(first, first + 400))
