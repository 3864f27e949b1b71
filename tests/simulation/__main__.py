"""`python -m tests.simulation`: run many histories of each seed, or look for each mutation. `make simulate` does both.

The exit status is 1 if a promise was broken, or a mutation was not found.
"""

import argparse
import gc
import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.simulation.chains import attempts
from tests.simulation.history import History, run
from tests.simulation.lanes import dispatches
from tests.simulation.lives import live
from tests.simulation.mutations import MUTATIONS, RARE, look_for
from tests.simulation.pods import runs_jobs
from tests.simulation.shrink import explain, shrink

SPREAD = 10_000_000
"""The histories of a seed are numbered from the seed times this."""


def main() -> int:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="1", help="seeds, separated by commas")
    parser.add_argument("--number", type=int, default=2_000, help="histories of each seed")
    parser.add_argument("--history", type=int, help="run and print this one history alone")
    parser.add_argument("--mutations", action="store_true", help="look for each mutation in so many histories")
    parser.add_argument("--only", default="", help="of the mutations those whose name contains this")
    parser.add_argument(
        "--lives",
        action="store_true",
        help="run lives of jobs, chains of attempts, lanes, and Jobs in Kubernetes, instead",
    )
    options = parser.parse_args()
    gc.freeze()  # what was imported is not looked through at each collection
    if options.history is not None:
        history = run(options.history)
        print(history.story())
        return _report(history) if history.violation else 0
    if options.lives:
        return max(_lives(int(seed) * SPREAD, options.number) for seed in options.seeds.split(","))
    seeds = [int(seed) * SPREAD for seed in options.seeds.split(",")]
    if options.mutations:
        return _look_for_all([name for name in MUTATIONS if options.only in name], seeds[0], options.number)
    met: Counter[tuple[str, str]] = Counter()
    possible: set[tuple[str, str]] = set()
    failed = 0
    for seed in seeds:
        failed = max(failed, _many(seed, options.number, met, possible))
        missed = ", ".join(f"{fault} at {step}" for step, fault in sorted(possible - met.keys()))
        print(f"{len(possible)} pairs of a step and a fault, {len(met)} met; not met: {missed or 'none'}", flush=True)
    return failed


def _lives(first: int, number: int) -> int:
    """Run so many lives, and a twentieth of that each as chains, as histories of lanes, and of Jobs in Kubernetes."""
    few = range(first, first + number // 20)
    lived, chains = [live(seed) for seed in range(first, first + number)], [attempts(seed) for seed in few]
    worlds, clusters = [dispatches(seed) for seed in few], [runs_jobs(seed) for seed in few]
    kinds: Mapping[str, Sequence[Any]] = {"life": lived, "chain": chains, "lanes": worlds, "jobs": clusters}
    found = [f"{kind} {one.seed}: {one.violation}" for kind, some in kinds.items() for one in some if one.violation]
    stopped = sum(bool(one.stopped) for one in lived)
    resumed = sum(chain.resumed for chain in chains)
    starts, handed_over = sum(one.starts for one in worlds), sum(one.handed_over for one in worlds)
    pods = sum((one.counts for one in clusters), Counter[str]())
    print(f"from {first}: {number} lives, {stopped} stopped; {len(chains)} chains, {resumed} times resumed", end="; ")
    print(f"{len(worlds)} histories of lanes, {starts} beads started, {handed_over} by a fallback", end="; ")
    print(f"{len(clusters)} of Jobs in Kubernetes, {pods['jobs']} Jobs, {pods['agents']} agents", end=", ")
    print(f"{pods['fenced']} pods fenced, {pods['killed']} kills; {len(found)} violations")
    print(*found[:5], sep="\n", flush=True)
    return min(len(found), 1)


def _many(first: int, number: int, met: "Counter[tuple[str, str]]", possible: set[tuple[str, str]]) -> int:
    began, failed = time.monotonic(), 0
    counts: Counter[str] = Counter()
    for seed in range(first, first + number):
        history = run(seed)
        counts.update(history.counts)
        counts["faults"] += history.faults.total()
        met.update(history.faults)
        possible.update(history.points)
        if history.violation and failed < 5:
            failed += _report(history)
    took = time.monotonic() - began
    numbers = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    rate = number / took
    print(f"{number} histories from {first}: {failed} violations; {numbers}; {rate:.0f} a second", flush=True)
    return min(failed, 1)


def _report(history: History) -> int:
    print(explain(shrink(history)), flush=True)
    return 1


def _look_for_all(names: Sequence[str], first: int, number: int) -> int:
    """Print the table of docs/simulation.md, a row for each mutation as it is found."""
    print(f"`{shlex.join(['python', '-m', 'tests.simulation', *sys.argv[1:]])}`, {time.strftime('%Y-%m-%d')}:\n")
    print("| defect | histories | found by history | kind of promise |\n|---|---|---|---|", flush=True)
    return max(_look_for(name, first, number) for name in names)


def _look_for(name: str, first: int, number: int) -> int:
    try:
        found = look_for(name, RARE.get(name, first), number)
    except RuntimeError as error:
        print(f"| {name} | broken: {error} | | |", flush=True)
        return 1
    if found is None:
        print(f"| {name} | not in {number} | | |", flush=True)
        return 1
    histories = "kept" if name in RARE else found.histories
    print(f"| {name} | {histories} | {found.history} | {found.kind} |", flush=True)
    return 0


sys.exit(main())
