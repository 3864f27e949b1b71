"""Write the tables of docs/decisions.md by asking the code itself: `make docs`."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from bdauto.common.errors import BdautoError, BdError, PartlyDone, ServiceError, UsageError
from bdauto.domain.outcome import BeadOutcome
from scripts.answer_table import answers
from scripts.evidence_table import evidence
from scripts.markdown import table

PAGE = Path(__file__).parents[1] / "docs" / "decisions.md"
BLOCK = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str) -> str:
    """Return the text of docs/decisions.md with each table between its two marks written anew."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n{block[3]}", text)


OUTCOMES = {
    BeadOutcome.dispatched: ("a job runs", "in progress, with its job"),
    BeadOutcome.lost: ("somebody else changed it first", "theirs"),
    BeadOutcome.busy: ("the agent is at capacity", "open"),
    BeadOutcome.adopted: (
        "a job that bdauto did not start runs on it; nothing was posted",
        "in progress, with that job",
    ),
    BeadOutcome.reverted: (
        "bd or a person undid the claim, and its job runs; nothing was posted. Or its agent closed it before its check "
        "had passed",
        "in progress, with its job; open if no job of it is left",
    ),
    BeadOutcome.not_visible: ("BeadBoard does not know it yet", "open, tried again after a minute"),
    BeadOutcome.refused: ("BeadBoard does not take it as it is", "open, with a backoff"),
    BeadOutcome.quarantined: (
        "refused for the `--max-attempts`th time, or opened again after as many attempts",
        "blocked, with a note",
    ),
    BeadOutcome.unavailable: (
        "the service failed before it took it, or it could not be started on this machine",
        "open",
    ),
    BeadOutcome.misconfigured: ("BeadBoard would answer this to any bead", "open"),
    BeadOutcome.unknown: ("a job may run: no answer, or none that is understood", "in progress"),
    BeadOutcome.failed: ("bd failed", "as bd left it"),
    BeadOutcome.kept: (
        "in `dispatch`: a job that it names may run. In `reap`: there is no reason to settle it",
        "as it was",
    ),
    BeadOutcome.released: (
        "in `dispatch`: its claim took too long, or a pause came. In `reap`: a claim without a job, an early death, "
        "or the end of a job that bdauto did not start",
        "open",
    ),
    BeadOutcome.requeued: (
        "stalled with `--on-stall requeue`, its check failed (uncharged), or its agent opened it again without a "
        "question",
        "open, with a backoff",
    ),
    BeadOutcome.blocked: ("over or stalled, or its last attempt failed", "blocked, with a note"),
    BeadOutcome.asks: (
        "its agent needs a decision of a person",
        "open, blocked by the question, with its attempt given back",
    ),
    BeadOutcome.closed: ("its job has passed its checks", "closed, in the name of its agent"),
    BeadOutcome.stopping: (
        "somebody other than its agent changed it, so its job on this machine is asked to end",
        "as that person left it",
    ),
    BeadOutcome.unclear: (
        "it was changed or deleted, and bd does not tell by whom: its job on this machine goes on",
        "as it was left",
    ),
}


def outcomes() -> str:
    """Return the table of what can become of a bead."""
    rows = ([f"`{o}`", logging.getLevelName(o.level).lower(), *OUTCOMES[o]] for o in BeadOutcome)
    return table("| outcome | log level | meaning | the bead is |", rows)


LOOK_AT: dict[type[BdautoError], str] = {
    UsageError: "the message: it names the option, the variable or the file",
    BdError: "`bdauto doctor`",
    ServiceError: "`bdauto doctor`, and the logs of the services",
    PartlyDone: "the message: it names the beads",
}


def _document(error: type[BdautoError]) -> str:
    return (error.__doc__ or "").split("\n")[0].removesuffix(".")


def exit_statuses() -> str:
    """Return the table of exit statuses: a row for each kind of error."""
    done = "Done, or nothing to do: idle, busy, paused, suspended or limited. A bead that was lost to somebody else, "
    done += "quarantined, settled by the reaper, or given back without a POST is no error"
    rows = [["0", done, "`bdauto status --check` exits 5 for what needs a person"]]
    rows += [["1", "A defect in bdauto", "the report that it prints"]]
    rows += sorted([str(kind.exit_code), _document(kind), words] for kind, words in LOOK_AT.items())
    rows += [["130", "Interrupted before anything was changed, or by a second signal", ""]]
    return table("| status | meaning | look at |", rows)


TABLES: dict[str, Callable[[], str]] = {
    "answers": answers,
    "evidence": evidence,
    "outcomes": outcomes,
    "exit-statuses": exit_statuses,
}

if __name__ == "__main__":
    logging.disable()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
