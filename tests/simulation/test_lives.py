"""Lives of single jobs, and chains of attempts: each rule of stopping and resuming is kept, and each defect found."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from bdauto.agents.cli_adapters.table import Adapter
from bdauto.agents.local import sessions
from bdauto.controllers import reconciler
from bdauto.domain import reconcile, resume
from bdauto.domain.agent_end import Why
from bdauto.domain.edits import author
from bdauto.domain.reconcile import Decision, decide
from tests.simulation.chains import attempts
from tests.simulation.lives import AGENT, live

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


def test_no_job_is_stopped_without_a_reason_or_goes_on_in_spite_of_one() -> None:
    assert [(life.seed, life.violation) for life in map(live, range(1_000)) if life.violation] == []


def test_no_session_is_resumed_against_the_rules() -> None:
    assert [(chain.seed, chain.violation) for chain in map(attempts, range(50)) if chain.violation] == []


@pytest.mark.parametrize("name", LIVES)
def test_a_defect_of_stopping_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*LIVES[name])
    assert any(live(seed).violation for seed in range(1_000))


@pytest.mark.parametrize("name", CHAINS)
def test_a_defect_of_resuming_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*CHAINS[name])
    assert any(attempts(seed).violation for seed in range(100))
