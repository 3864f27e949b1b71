"""One bead explained: its verdict with all the conditions behind it, its place in the queue, and its story so far."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bdauto.agents.runner import check_services, job_evidence
from bdauto.agents.runner_status import RunnerStatus, with_switches
from bdauto.bd.client import Bd
from bdauto.bd.fallbacks import as_seen
from bdauto.common.errors import BdFailed, NoSuchBead
from bdauto.common.sanitize import clean
from bdauto.diagnostics.snapshot import (
    Running,
    asking,
    judge,
    last_note,
    limited,
    place_words,
    weigh,
    with_dependencies,
    with_event,
    with_jobs,
)
from bdauto.domain.bead import Bead
from bdauto.domain.eligibility import Condition, Verdict, open_blockers, verdict
from bdauto.domain.failures import what_came_of
from bdauto.domain.history import history_of, result_of
from bdauto.domain.questions import LABEL, how_to_answer, in_words
from bdauto.domain.record import Run
from bdauto.domain.results import format_cost
from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.domain.times import format_time
from bdauto.domain.values import format_age, format_duration

if TYPE_CHECKING:
    from bdauto.agents.runner import Runner


@dataclass(frozen=True)
class Explanation:
    """Why a bead is where it is. `place` counts from 1 among the `eligible`, None when it is not one of them.

    `ahead` is the bead before it there, "" for the first. `question` is the one that its agent has asked a person.
    """

    now: datetime
    verdict: Verdict
    services: RunnerStatus
    place: int | None
    eligible: int
    running: Running | None
    max_attempts: int
    ahead: str = ""
    question: Bead | None = None

    @property
    def bead(self) -> Bead:
        """The bead."""
        return self.verdict.bead

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions: those of the bead, then those that all beads share.

        While its job runs, and once the bead is closed, none matters. Of a bead that a sweep would settle, only that
        is said.
        """
        if self.bead.status == "closed":
            return ()
        if self.running:
            over = Condition("status", False, self.running.verdict, "bdauto reap")
            return () if self.running.state == "kept" else (over,)
        return self.verdict.conditions + self.services.conditions()

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        bead = self.bead
        if self.running:
            return f"in progress: {self.running.state}: {self.running.decision.evidence}"
        if bead.status == "closed":
            return f"closed{_since(bead.closed_at, self.now)}" + (f": {bead.close_reason}" if bead.close_reason else "")
        if bead.status == "blocked" and bead.record.cancelled:
            return bead.record.quarantined
        if bead.status == "blocked" and bead.record.quarantined:
            return f"quarantined by bdauto: {bead.record.quarantined}"
        if bead.status == "blocked":
            return f"blocked, not by bdauto: {last_note(bead) or 'no note says why'}"
        if self.question:
            return f"its agent asks {in_words(self.question)}"
        if self.place is None:
            return f"waiting: {self.verdict.reason}" if bead.status in ("open", "deferred") else self.verdict.reason
        held = next((condition.detail for condition in self.services.conditions() if not condition.passed), "")
        return place_words(self.place) + (f", but nothing is dispatched now: {held}" if held else "")

    @property
    def turn(self) -> str:
        """Whose turn it is: the agent's, bdauto's or yours, and to do what. "" if nobody's, as of a closed bead."""
        bead = self.bead
        if bead.status == "closed":
            return ""
        if self.running:
            kept = self.running.state == "kept"
            return "the agent's turn" if kept else "bdauto's turn: the next sweep settles it"
        if self.question:
            return f"your turn: {how_to_answer(self.question)}"
        if self.place and self.services.paused and not self.services.paused.until:
            return "your turn: bdauto resume"
        if self.place:
            after = f", after {self.ahead}" if self.ahead else ""
            return f"bdauto's turn: place {self.place} of {self.eligible} eligible{after}"
        if until := self.verdict.until:
            return f"bdauto's turn, not before {until.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
        failed = next((condition for condition in self.verdict.conditions if not condition.passed), None)
        if failed and failed.name == "ready" and open_blockers(bead):
            return f"the turn of {', '.join(open_blockers(bead))}"
        return f"your turn: {failed.fix}" if failed and failed.fix else ""


def explanation(
    bd: Bd,
    runner: "Runner | None",
    bead_id: str,
    dispatch: DispatchSettings,
    reap: ReapSettings,
    now: datetime,
) -> Explanation:
    """Read one bead and everything that decides about it. Raises BdError, also for an unknown id."""
    calls = bd.ready(limit=0), bd.kv_list()
    try:
        bead = _read(bd, bead_id)
        services = replace(check_services(runner), limited=limited(bd, runner, dispatch, now))
        ready, store = calls[0].result(), calls[1].result()
    finally:
        for call in calls:
            call.kill()
    lanes = as_seen(bd, lambda moment: runner.recent_runs(moment) if runner else (), now)
    ids = {other.id for other in ready.beads}
    found = verdict(bead, bead.id in ids, bd.assignee, dispatch, now, lanes)
    [found] = with_jobs(bd, runner, [found], dispatch, now)
    queue = [v.bead.id for v in judge(ready.beads, ids, bd.assignee, dispatch, now, lanes) if v.eligible]
    running = None
    if bead.status == "in_progress":
        running = with_event(runner, weigh(bead, job_evidence(runner, [bead], services)[0], reap, now))
    place = queue.index(bead.id) + 1 if found.eligible and bead.id in queue else None
    blocked = bead.status == "open" and bead.record.all_runs and open_blockers(bead)
    asked = next(asking([bead], bd.labelled(LABEL).result().beads), None) if blocked else None
    return Explanation(
        now,
        found,
        with_switches(services, store, now, bd.lane),
        place,
        len(queue),
        running,
        dispatch.max_attempts,
        queue[place - 2] if place and place > 1 else "",
        asked[1] if asked else None,
    )


def _since(moment: datetime | None, now: datetime) -> str:
    return f" {format_age(now - moment)} ago" if moment else ""


def _read(bd: Bd, bead_id: str) -> Bead:
    return with_dependencies(bd, (read_bead(bd, bead_id),), {})[0]


def read_bead(bd: Bd, bead_id: str) -> Bead:
    """Read one bead, without its dependencies. Raises NoSuchBead, or BdFailed for one that cannot be read."""
    found = bd.read([bead_id]).result()
    if found.malformed:
        words = f"{clean(bead_id, 60)} cannot be read: {found.malformed[0]}"
        raise BdFailed(words, hint=f"`bd show {bead_id} --json` shows it")
    if not found.beads:
        raise NoSuchBead(f"no bead {clean(bead_id, 60)} in this database", hint="`bd list` shows what there is")
    return found.beads[0]


def story(explained: Explanation) -> list[tuple[str, str]]:
    """Return what bdauto's metadata tells of the bead, as pairs of a word and a value."""
    bead, most = explained.bead, explained.max_attempts
    history = history_of(bead)
    moments = (("claimed at", bead.record.claimed_at), ("not before", bead.record.retry_at))
    ended, seconds, cost_usd, _ = _sums(bead)
    took = f" in {format_duration(timedelta(seconds=seconds))}" if seconds is not None else ""
    cost = f", {format_cost(cost_usd)}" if cost_usd is not None else ""
    told = [
        ("attempts", f"{bead.record.attempts} of {most}" if bead.record.attempts else ""),
        ("failures in a row", str(bead.record.failures) if bead.record.failures else ""),
        ("job", bead.record.job),
        ("host", bead.record.host),
        ("jobs folder", bead.jobs_folder),
        *((word, format_time(moment) if moment else "") for word, moment in moments),
        ("last run", what_came_of(history, history.last) if history.last and not explained.running else ""),
        ("runs that ended", f"{len(ended)}{took}{cost}" if ended else ""),
        ("last error", bead.record.error),
        ("quarantined", bead.record.quarantined),
    ]
    return [(word, value) for word, value in told if value]


def _sums(bead: Bead) -> tuple[list[Run], int | None, float | None, int | None]:
    """Return the runs that ended, and the sums of their known seconds, costs and turns. None: none is known."""
    ended = [run for run in bead.record.all_runs if run.ended_at]
    seconds = [run.seconds for run in ended if run.seconds is not None]
    costs = [run.cost_usd for run in ended if run.cost_usd is not None]
    turns = [run.turns for run in ended if run.turns is not None]
    return (
        ended,
        sum(seconds) if seconds else None,
        round(sum(costs), 4) if costs else None,
        sum(turns) if turns else None,
    )


def as_json(explained: Explanation) -> dict[str, Any]:
    """Return the explanation as docs/operating.md describes it."""
    bead, running = explained.bead, explained.running
    ended, seconds, cost_usd, turns = _sums(bead)
    history = history_of(bead)
    last = history.last
    ended_at = ended[-1].ended_at if ended else None
    return {
        "id": bead.id,
        "title": bead.title,
        "status": bead.status,
        "verdict": explained.headline,
        "turn": explained.turn or None,
        "eligible": explained.verdict.eligible,
        "reason": explained.verdict.reason or None,
        "place": explained.place,
        "queue": explained.eligible,
        "conditions": [
            {
                "name": condition.name,
                "passed": condition.passed,
                "detail": condition.detail,
                "fix": None if condition.passed else condition.fix or None,
            }
            for condition in explained.conditions
        ],
        "attempts": bead.record.attempts,
        "max_attempts": explained.max_attempts,
        "failures": bead.record.failures,
        "job": bead.record.job or None,
        "host": bead.record.host or None,
        "jobs_folder": bead.jobs_folder or None,
        "ends_by": format_time(bead.ends_by) if bead.ends_by else None,
        "job_state": running.job_state or None if running else None,
        "last_event": running.event.text if running and running.event else None,
        "claimed_at": format_time(bead.record.claimed_at) if bead.record.claimed_at else None,
        "retry_at": format_time(bead.record.retry_at) if bead.record.retry_at else None,
        "result": result_of(history.completed(last), history) if last else None,
        "ended_at": format_time(ended_at) if ended_at else None,
        "runs": len(ended),
        "seconds": seconds,
        "cost_usd": cost_usd,
        "turns": turns,
        "error": bead.record.error or None,
        "quarantined": bead.record.quarantined or None,
        "notes": bead.notes.splitlines(),
        **explained.services.as_json(),
    }
