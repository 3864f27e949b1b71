"""Asking the agent service about jobs: what speaks of one job alone, several at a time, and the time it takes."""

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest

from bdauto.agents.beadboard.runner import BeadBoardRunner
from bdauto.agents.beadboard.settings import BeadBoardSettings
from bdauto.agents.job_questions import AT_ONCE, BUDGET, JobQuestions
from bdauto.common.errors import ServiceDown, ServiceDrift
from bdauto.domain.bead import Bead
from bdauto.domain.reaping import FORGOTTEN, NO_ANSWER, NOT_ASKED, TOKEN_REFUSED
from bdauto.domain.settings import Secret
from tests.support.fakes import AGENT, TOKEN, Board, Clock, Reply, bead

JOBS = [f"j-{number:02}" for number in range(1, 15)]
RUNNING = {"status": "running"}
Ask = Callable[[str], Mapping[str, Any] | None]


def beads(jobs: list[str]) -> list[Bead]:
    return [bead(f"x-{job}", metadata={"bdauto.job": job}) for job in jobs]


OF_ONE: list[tuple[str, Reply]] = [
    ("500", httpx.Response(500, text="Internal Server Error")),
    ("502", httpx.Response(502)),
    ("503", httpx.Response(503)),
    ("422", httpx.Response(422, json={"detail": []})),
    ("400", httpx.Response(400)),
    ("302", httpx.Response(302, headers={"location": "/login"})),
    ("garbage", httpx.Response(200, text="<html>")),
    ("no state", httpx.Response(200, json={"status": None})),
    ("half of it", httpx.Response(200, content=b'{"status": "completed", "output": [')),
]


@pytest.mark.parametrize("answer", [answer for _, answer in OF_ONE], ids=[name for name, _ in OF_ONE])
@pytest.mark.parametrize("place", [0, 13])
def test_an_answer_speaks_of_its_job_alone(answer: Reply, place: int) -> None:
    board = Board(jobs=dict.fromkeys(JOBS, "running") | {JOBS[place]: answer})
    evidence, error = board.services(agent=True)().evidence(beads(JOBS))
    expected = dict.fromkeys((f"x-{job}" for job in JOBS), "running") | {f"x-{JOBS[place]}": NO_ANSWER}
    assert evidence.states == expected
    assert error is not None
    assert JOBS[place] in str(error)
    assert len(board.requests) == len(JOBS)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (httpx.ConnectError("refused"), NO_ANSWER),
        (httpx.ReadTimeout("slow"), NO_ANSWER),
        (httpx.Response(401), TOKEN_REFUSED),
        (httpx.Response(403), TOKEN_REFUSED),
    ],
)
def test_a_service_that_does_not_answer_is_not_asked_about_each_job(answer: Reply, word: str) -> None:
    board = Board(jobs=dict.fromkeys(JOBS, answer))
    evidence, error = board.services(agent=True)().evidence(
        [*beads(JOBS), bead("x-0", metadata={"bdauto.attempt": "a"})]
    )
    assert set(evidence.states.values()) == {word}
    assert error is not None
    assert len(board.requests) <= AT_ONCE, "nor about its capacity"


def questions(ask: Ask, seconds: float = 15) -> JobQuestions:
    return JobQuestions(ask, timedelta(seconds=seconds))


def one_by_one(ask: Ask, clock: Clock) -> JobQuestions:
    runtime = clock.runtime()
    return JobQuestions(ask, timedelta(seconds=15), runtime.monotonic, runtime.rng, at_once=0)


def test_jobs_are_asked_about_several_at_a_time_and_no_more() -> None:
    together, most, open_now = threading.Barrier(AT_ONCE, timeout=10), [0], set[str]()

    def ask(job: str) -> Mapping[str, Any]:
        open_now.add(job)
        most[0] = max(most[0], len(open_now))
        together.wait()
        open_now.discard(job)
        return RUNNING

    jobs = JOBS[: 3 * AT_ONCE]
    assert questions(ask).words(jobs) == dict.fromkeys(jobs, RUNNING)
    assert most == [AT_ONCE]


def test_a_job_about_which_no_answer_comes_holds_up_no_other() -> None:
    """It speaks of the service only where no other answer comes meanwhile."""
    end = threading.Event()

    def ask(job: str) -> Mapping[str, Any]:
        if job == "j-03":
            end.wait(10)
        return RUNNING

    asked = questions(ask, 0.3)
    words = asked.words(JOBS)
    silent = words.pop("j-03")
    assert words == dict.fromkeys([job for job in JOBS if job != "j-03"], RUNNING)
    assert isinstance(silent, ServiceDown)
    assert silent.silent
    assert asked.words(["j-04"]) == {"j-04": RUNNING}, "beside the one that was left behind"
    end.set()


def test_those_left_behind_are_bounded() -> None:
    end, begun = threading.Event(), list[str]()

    def ask(job: str) -> Mapping[str, Any]:
        begun.append(job)
        end.wait(10)
        return RUNNING

    asked = questions(ask, 0.05)
    assert all(isinstance(word, ServiceDown) for word in asked.words(JOBS).values())
    assert asked.words(JOBS) == {}
    assert len(begun) == AT_ONCE
    end.set()


def test_a_sweep_asks_for_a_minute_and_the_rest_comes_first_in_the_next() -> None:
    clock, order = Clock(), list[str]()

    def ask(job: str) -> Mapping[str, Any]:
        clock.sleep(12)
        order.append(job)
        return RUNNING

    asked = one_by_one(ask, clock)
    assert len(asked.words(JOBS)) == BUDGET.total_seconds() / 12
    asked.words(JOBS)
    asked.words(JOBS)
    assert sorted(order[:14]) == JOBS, "in three sweeps each has its turn"
    assert order[14:] == order[:1]


def test_a_command_that_asks_once_asks_in_an_order_of_chance() -> None:
    def first_of(seed: int) -> str:
        order = list[str]()
        JobQuestions(order.append, timedelta(1), rng=Clock().runtime(seed).rng, at_once=0).words(JOBS)
        return order[0]

    assert len({first_of(seed) for seed in range(20)}) > 5


def test_a_bead_whose_job_there_was_no_time_to_ask_about_is_said_to_be() -> None:
    clock, services = Clock(), BeadBoardRunner(BeadBoardSettings(agent_url=AGENT, agent_token=Secret(TOKEN)))

    def ask(_job: str) -> None:
        clock.sleep(50)

    services.questions = one_by_one(ask, clock)
    evidence, error = services.evidence(beads(JOBS[:3]))
    assert sorted(evidence.states.values()) == sorted([FORGOTTEN, FORGOTTEN, NOT_ASKED])
    assert str(error).startswith("the agent service is slow: 1 jobs were not asked about within 1m")


def test_a_defect_is_raised_where_the_answer_is_waited_for() -> None:
    def ask(_job: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        questions(ask).words(JOBS)


def test_what_speaks_of_the_service_is_said_before_the_rest() -> None:
    board = Board(jobs={"j-01": httpx.Response(500), "j-02": httpx.Response(401), "j-03": httpx.Response(422)})
    _, error = board.services(agent=True)().evidence(beads(JOBS[:3]))
    assert isinstance(error, ServiceDrift)
    assert "HTTP 401" in str(error)
