"""One dispatch of several lanes. They take turns, one bead each, so that none waits for a long queue of another."""

import random
from collections.abc import Callable, Mapping

from bdauto.domain.outcome import BeadOutcome, Report


def dispatch_in_turns(
    cycles: Mapping[str, Callable[[int], Report]], most: Mapping[str, int], rng: random.Random, *, dry_run: bool = False
) -> list[tuple[str, Report]]:
    """Dispatch up to as many beads in all as the largest of `most`, and of each lane up to its own. Return all reports.

    A cycle gets the number of beads that it may dispatch. The lanes begin in a random order: so those of a command
    that is run again and again get the same share of a few slots. A dry run changes nothing, so each lane has one turn.
    """
    left, own = max(most.values()), dict(most)
    waiting = rng.sample([*cycles], len(cycles))
    reports: list[tuple[str, Report]] = []
    while waiting and left > 0:
        lane = waiting.pop(0)
        report = cycles[lane](min(left, own[lane]) if dry_run else 1)
        reports.append((lane, report))
        done = sum(bead.outcome is BeadOutcome.dispatched for bead in report.beads)
        left, own[lane] = left - done, own[lane] - done
        if done and own[lane] > 0 and not report.error and not dry_run:
            waiting.append(lane)
    return reports
