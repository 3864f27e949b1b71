"""Questions to a person: beads with the label `human` that an agent files and that block its own.

Their text is written by agents and people, so it is bounded, cleaned and quoted line by line.
"""

import re
from collections.abc import Iterable, Sequence

from bdauto.common.sanitize import clean_lines, without_secrets
from bdauto.domain.bead import ID_PATTERN, Bead
from bdauto.domain.eligibility import BLOCKING, FINISHED

LABEL = "human"
"""The label of beads that need a person, as for `bd human list`."""
MOST_QUESTIONS = 3
"""Answered questions that a prompt quotes, the last ones."""
QUESTION_LINES, ANSWER_LINES = 10, 30
"""Lines of a question, and of its answer, that a prompt quotes: the first ones."""
LINE_LIMIT = 300
"""Characters of a quoted line."""
TEXT_LIMIT = 240
"""Characters of a question on one line."""


def blockers(bead: Bead) -> list[str]:
    """Return the ids of the beads that block this one, open or not. Those of other trackers are left out."""
    ids = (other.depends_on_id for other in bead.dependencies or () if other.type in BLOCKING)
    return [bead_id for bead_id in ids if re.match(ID_PATTERN, bead_id)]


def questions(beads: Iterable[Bead]) -> list[Bead]:
    """Return the questions among these beads, the oldest first."""
    return sorted((bead for bead in beads if LABEL in (bead.labels or ())), key=lambda bead: (bead.created_at, bead.id))


def is_open(question: Bead) -> bool:
    """True: nobody has answered the question."""
    return question.status not in FINISHED


def in_words(question: Bead) -> str:
    """Return a question on one line, for people."""
    text = f"{question.title}: {question.description}" if question.description.strip() else question.title
    return f"{question.id}: {without_secrets(text, TEXT_LIMIT)}"


def how_to_answer(question: Bead) -> str:
    """Return the command by which a person answers, which works on each kind of database."""
    return f'bd close {question.id} --reason "the answer"'


def quote_answers(answered: Sequence[tuple[Bead, Sequence[str]]]) -> str:
    """Return the paragraphs of a prompt about closed questions, each with the texts of its comments."""
    lines: list[str] = []
    for question, comments in answered[-MOST_QUESTIONS:]:
        lines += [f"{question.id} was asked on this bead, and a person has answered it. The question:", ""]
        lines += _quoted(QUESTION_LINES, question.title, question.description)
        lines += ["", "The answer:", "", *_quoted(ANSWER_LINES, question.close_reason, *comments, question.notes), ""]
    return "\n".join(lines[:-1])


def _quoted(most: int, *texts: str) -> list[str]:
    lines = [line for text in texts for line in clean_lines(text).splitlines() if line.strip()]
    return [f"> {without_secrets(line, LINE_LIMIT)}" for line in lines[:most]] or ["> (nothing)"]
