"""Make a history that breaks a promise shorter: leave out its events as long as the same kind of promise breaks."""

from tests.simulation.history import History, run

TRIES = 400
LINES = 60


def shrink(found: History) -> History:
    """Return the history of the same seed with as few events as could be found in TRIES runs."""
    assert found.violation is not None
    kind = found.violation[0]
    best, without, tries = found, frozenset[str](), 0
    size = max(len(best.happened) // 2, 1)
    while tries < TRIES:
        start, shorter = 0, False
        while start < len(best.happened) and tries < TRIES:
            tries += 1
            candidate = without | set(best.happened[start : start + size])
            history = run(found.plan.seed, candidate)
            if history.violation and history.violation[0] == kind and len(history.happened) < len(best.happened):
                best, without, shorter = history, candidate, True
            else:
                start += size
        if size == 1 and not shorter:
            break
        size = max(size // 2, 1)
    return best


def explain(history: History) -> str:
    """Write a broken history for people: its events, and what happened to the bead that is named, line by line."""
    assert history.violation is not None
    kind, words = history.violation
    names = [bead.id for bead in history.plan.beads if f"{bead.id} " in f"{words} "] or [""]
    lines = [line for line in history.story().splitlines() if names[0] in line or "weather" in line or "killed" in line]
    lines = [line for line in lines if "reports idle" not in line][-LINES:]
    events = "\n".join(f"  {event}" for event in history.happened)
    return "\n".join(
        [
            f"seed {history.plan.seed} breaks a promise ({kind}): {words}",
            "with these events:",
            events or "  none",
            *lines,
        ]
    )
