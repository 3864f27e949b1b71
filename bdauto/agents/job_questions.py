"""Asks the agent service about jobs: several at a time, for a bounded time. Jobs that waited longest come first.

An answer, even a failure, concerns only the job in question. The questions stop when the service refuses the token, or
when one gets no answer while no other is answered either.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from bdauto.agents.runner_status import STATE_LIMIT, state_after
from bdauto.agents.service_output import job_end
from bdauto.common.errors import ServiceDown, ServiceError, TokenRefused
from bdauto.common.sanitize import clean
from bdauto.domain.bead import Bead
from bdauto.domain.reaping import FORGOTTEN, NOT_ASKED, JobEvidence
from bdauto.domain.record import Run
from bdauto.domain.values import format_duration

AT_ONCE = 4
"""Questions at a time. The answer to each may take some megabytes of memory."""
BUDGET = timedelta(minutes=1)
"""Seconds after which no further question is asked. The reaper may ask twice in a sweep."""
REMEMBERED = timedelta(days=1)
"""How long the time of a question about a job is remembered."""
Word = Mapping[str, Any] | ServiceError | None
"""The service's record of a job, None if it does not know the job, or the error in place of an answer."""


class _Question(msgspec.Struct, frozen=True):
    deadline: float
    answered: int
    """How many answers had arrived when this question was asked."""


class JobQuestions:
    """Asks about jobs with `ask`, which may raise ServiceError, and remembers when each job was asked about.

    Each question has its own thread. Signals can bound a request only in the main thread, so a question that takes
    longer than `timeout` is abandoned. It counts towards AT_ONCE until it ends. With `at_once` 0 there are no threads.
    """

    def __init__(
        self,
        ask: Callable[[str], Mapping[str, Any] | None],
        timeout: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        at_once: int = AT_ONCE,
    ) -> None:
        self._ask = ask
        self._timeout = timeout
        self._monotonic = monotonic
        self._rng = rng or random.Random()  # noqa: S311 - nothing to guess
        self._at_once = at_once
        self._asked: dict[str, float] = {}
        self._open: set[object] = set()

    def words(self, jobs: Collection[str]) -> dict[str, Word]:
        """Return the answer about each of these jobs that could be asked about in time."""
        waiting, words = deque(self._in_turn(jobs)), dict[str, Word]()
        pending: dict[str, _Question] = {}
        answers = SimpleQueue[tuple[str, Word | Exception]]()
        until, answered = self._monotonic() + BUDGET.total_seconds(), 0
        silent: ServiceError | None = None
        while True:
            room = max(self._at_once, 1) - max(len(pending), len(self._open))
            for _ in range(min(room, len(waiting)) if not silent and self._monotonic() < until else 0):
                job = waiting.popleft()
                pending[job] = _Question(self._monotonic() + self._timeout.total_seconds(), answered)
                self._begin(job, answers)
            if not pending:
                return words | (dict.fromkeys(waiting, silent) if silent else {})
            job, word = self._next(answers, pending)
            question = pending.pop(job, None)
            if question:  # else it came too late
                words[job] = word
                self._asked[job] = self._monotonic()
                answered += not _silent(word)
                alone = _silent(word) and answered == question.answered
                if isinstance(word, ServiceError) and (isinstance(word, TokenRefused) or alone):
                    silent = silent or word

    def _in_turn(self, jobs: Collection[str]) -> list[str]:
        """Return the jobs, starting with those not asked about for the longest time. The order is otherwise random.

        A one-shot command remembers nothing, and the random order gives each job its turn.
        """
        since = self._monotonic() - REMEMBERED.total_seconds()
        self._asked = {job: at for job, at in self._asked.items() if at > since}
        order = list(dict.fromkeys(jobs))
        self._rng.shuffle(order)
        return sorted(order, key=lambda job: self._asked.get(job, float("-inf")))

    def _begin(self, job: str, answers: "SimpleQueue[tuple[str, Word | Exception]]") -> None:
        question = object()

        def work() -> None:
            word: Word | Exception
            try:
                word = self._ask(job)
            except Exception as error:  # a defect is raised where the answer is waited for
                word = error
            finally:
                self._open.discard(question)
            answers.put((job, word))

        self._open.add(question)
        if self._at_once:
            threading.Thread(target=work, name=f"bdauto-job-{job}", daemon=True).start()
        else:
            work()

    def _next(
        self, answers: "SimpleQueue[tuple[str, Word | Exception]]", pending: Mapping[str, _Question]
    ) -> tuple[str, Word]:
        """Wait for an answer. If none comes in time, return the oldest question as unanswered."""
        job = min(pending, key=lambda job: pending[job].deadline)
        try:
            job, word = answers.get(timeout=max(pending[job].deadline - self._monotonic(), 0))
        except Empty:
            words = f"the agent service: no answer about job {clean(job)} within {format_duration(self._timeout)}"
            return job, ServiceDown(words, hint="check that it runs there", silent=True)
        if isinstance(word, Exception) and not isinstance(word, ServiceError):
            raise word
        return job, word


def services_evidence(
    words: Mapping[str, Word], beads: Collection[Bead], runs_nothing: Callable[[], bool]
) -> tuple[JobEvidence, ServiceError | None]:
    """Return what the agent service's answers say of the jobs of beads, and why some are not known, or None.

    `runs_nothing` asks whether the service runs nothing at all. It is called only if a claim without a job depends on
    that, and the service answers.
    """
    states: dict[str, str] = {}
    ends: dict[str, Run] = {}
    for bead in beads:
        if bead.record.job:
            word = words.get(bead.record.job)
            states[bead.id] = _state(word) if bead.record.job in words else NOT_ASKED
            if isinstance(word, Mapping) and (end := job_end(word, datetime.now(UTC))):
                ends[bead.id] = end
    failed = [word for word in words.values() if isinstance(word, ServiceError)]
    empty = False
    unknown = any(_silent(error) or isinstance(error, TokenRefused) for error in failed)
    if not unknown and any(bead.record.attempt and not bead.record.job for bead in beads):
        empty = runs_nothing()
    return JobEvidence(states, empty, ends), _trouble(failed, [*states.values()].count(NOT_ASKED))


def _trouble(failed: Collection[ServiceError], unasked: int) -> ServiceError | None:
    """Return one error for all jobs without an answer: an error of the service itself before one of a single job."""
    if failed:
        return min(failed, key=lambda error: (not isinstance(error, TokenRefused), not _silent(error)))
    if unasked:
        words = f"the agent service is slow: {unasked} jobs were not asked about within {format_duration(BUDGET)}"
        return ServiceDown(words, hint="find out why it is slow; the next sweep may ask about them first")
    return None


def _silent(word: Word) -> bool:
    return isinstance(word, ServiceDown) and word.silent


def _state(word: Word) -> str:
    if word is None:
        return FORGOTTEN
    if isinstance(word, ServiceError):
        return state_after(word)
    return clean(str(word["status"]), STATE_LIMIT)
