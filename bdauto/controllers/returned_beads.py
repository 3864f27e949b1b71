"""Beads that somebody opened after their claim: who did that decides about their attempts.

An agent that has asked a person gets its attempt back. One that gave its bead back without a question does not, and the
bead backs off. A person who opens a bead starts it afresh.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from bdauto.bd.change import NOW, Change, Moment, as_read, rewrite
from bdauto.bd.client import Bd
from bdauto.bd.edit_log import recorded_edits
from bdauto.common.clock import Runtime
from bdauto.domain.agent_end import Why
from bdauto.domain.bead import Bead
from bdauto.domain.edits import author, shown_name
from bdauto.domain.eligibility import backoff
from bdauto.domain.questions import blockers, in_words, is_open, questions, quote_answers
from bdauto.domain.record import Record, Result, Run


class Kind(StrEnum):
    """Why a bead is open that was claimed."""

    question = "question"
    agent = "agent"
    person = "person"


class Returned(msgspec.Struct, frozen=True):
    """Why a claimed bead is open, in a word and in words. `asks` is its question if nobody has answered that yet."""

    kind: Kind
    words: str
    asks: str = ""


class ReturnedBeads(msgspec.Struct, frozen=True):
    """Finds out who opened a bead. Every method may raise BdError."""

    bd: Bd
    runtime: Runtime
    max_attempts: int

    def question_of(self, bead: Bead) -> Bead | None:
        """Return the question that the bead's agent has asked since the claim, None if there is none.

        A question that it has closed itself is none: it would get its attempt back for nothing.
        """
        since = bead.record.claimed_at or bead.created_at
        found = [one for one in self._questions(bead) if is_open(one) or one.created_at >= since]
        edits = recorded_edits(self.bd, [one.id for one in found if not is_open(one)])
        own = self.bd.assignee
        asked = [one for one in found if is_open(one) or author(edits, one.id, "status", "closed") != own]
        return next((one for one in reversed(asked) if is_open(one)), asked[-1] if asked else None)

    def answered(self, bead: Bead) -> Bead:
        """Return the bead with what people have answered to its questions, for its agent's prompt."""
        if not bead.record.all_runs:
            return bead
        found = [one for one in self._questions(bead) if not is_open(one)]
        answers = quote_answers([(one, self.bd.comments(one.id)) for one in found])
        return msgspec.structs.replace(bead, answers=answers)

    def look(self, bead: Bead) -> Returned | None:
        """Say why a bead is open whose claim bdauto has not ended. None if that is not the case, or not known."""
        if bead.status != "open" or not bead.record.attempt or bead.rearmed:
            return None
        own = self.bd.assignee
        who = author(recorded_edits(self.bd, [bead.id]), bead.id, "status", "open")
        if who == own and (question := self.question_of(bead)):
            words = in_words(question)
            return Returned(Kind.question, f"its agent asks {words}", words if is_open(question) else "")
        if who == own:
            return Returned(Kind.agent, "its agent has opened it again")
        if (
            who in (None, self.bd.settings.actor) or not bead.local
        ):  # nobody knows in which name a service's agent writes
            return None
        return Returned(Kind.person, f"{shown_name(who)} has opened it")

    def settled(self, record: Record, returned: Returned, bead: Bead) -> tuple[Record, Mapping[str, Moment]]:
        """Return the record of the bead once its claim has ended, and the times to write with it.

        `record` may have the end of the bead's run already.
        """
        runs = record.all_runs
        if returned.kind is Kind.question:
            runs = tuple(_asked(run) if run.attempt == record.attempt else run for run in runs)
        after = record.with_runs(runs).released()
        if returned.kind is Kind.agent:
            wait = Moment(backoff(max(record.attempts, 1), self.runtime.rng))
            last = record.attempts >= self.max_attempts  # the next dispatch blocks it, so nothing is to be waited for
            after = after.change(attempts=record.attempts, failures=record.failures + 1)
            return after, {} if last else {"retry_at": wait}
        attempts = max(record.attempts - 1, 0) if returned.kind is Kind.question else 0
        return after.change(attempts=attempts).in_place(bead.waiting_since), {"released_at": NOW}

    def change(self, bead: Bead, returned: Returned, store: Mapping[str, str | None]) -> Change:
        """Return the change that ends the claim of a bead whose run's end is not recorded yet.

        `store` is what the key-value store must still say.
        """
        record, times = self.settled(bead.record, returned, bead)
        return rewrite(
            bead,
            record,
            times=times,
            act="settle the opened",
            mark=self.runtime.unique(),
            note=f"reaper: {returned.words}",
            if_status="open",
            if_assignee=bead.assignee,
            **as_read(bead),
            if_store=store,
        )

    def _questions(self, bead: Bead) -> list[Bead]:
        ids = blockers(bead)
        return questions(self.bd.read(sorted(set(ids))).result().beads) if ids else []


def _asked(run: Run) -> Run:
    """Return a run that has ended, or will be found to have, because its agent asks a person."""
    return msgspec.structs.replace(run, why=Why.question) if run.result in (None, Result.completed) else run
