"""A stand-in for the `bd` binary, 1.0.3: the verbs that bdauto, its tests and its demo use, on a SQLite database.

Answers, errors, streams and exit codes are those of the real bd, which `tests/contract` checks. `install` writes the
executable. `run` does one call inside this process. `main` is what the executable runs.
"""

# Paths are strings: pathlib alone would take a tenth of the start.
# ruff: noqa: PTH100, PTH101, PTH109, PTH120, PTH123

import io
import os
import sys
from collections.abc import Mapping, Sequence

from bdauto.sandbox.fake_bd.call import VERSION, BdResult, FakeBdError, FakeCall, dumps
from bdauto.sandbox.fake_bd.events import history
from bdauto.sandbox.fake_bd.faults import Control, Fault, happen
from bdauto.sandbox.fake_bd.flags import UsageError, find_verb, help_of, parse
from bdauto.sandbox.fake_bd.reads import READS
from bdauto.sandbox.fake_bd.writes import WRITES

CONTROL = "bd-control.db"
HANDLERS = READS | WRITES | {"history": history}
CONFLICT = (
    "Error 1213 (40001): serialization failure: this transaction conflicts with a committed transaction"
    " from another client, try restarting transaction."
)


def _failure(call: FakeCall, problem: FakeBdError) -> BdResult:
    text = f"Error: {problem}\n"
    if call.json and not problem.plain:
        text = dumps({"error": str(problem)})
        if problem.stdout:
            return BdResult(1, call.out + text, call.err)
    return BdResult(1, call.out, call.err + text)


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    lose_writes: bool = False,
    version: str = VERSION,
) -> BdResult:
    """Do one call of bd in this process. `env` and `cwd` are the surroundings it sees."""
    try:
        call = FakeCall(parse(argv), env, cwd, lose_writes=lose_writes, version=version)
    except UsageError as problem:
        return BdResult(1, "", f"Error: {problem}\n")
    try:
        if "help" in call.flags:
            return BdResult(0, help_of(call.flags.verb, guards=call.modern), "")
        if call.flags.verb not in ("version", "where", "init"):
            call.warn_of_folder()
            call.check_readonly()
        HANDLERS[call.flags.verb](call)
        call.touch()
        call.grow()
    except FakeBdError as problem:
        return _failure(call, problem)
    finally:
        call.close()
    return BdResult(call.code if call.failed else 0, call.out, call.err)


def _conflict(argv: Sequence[str]) -> BdResult:
    """Dolt's serialization failure, as each verb reports it."""
    flags = parse(argv)
    if flags.verb == "update":
        return BdResult(1, "", f"Error updating {flags.words[0]}: dolt commit: {CONFLICT}\n")
    text = (
        f"exec error: {CONFLICT}"
        if flags.verb == "sql"
        else f"updating {' '.join(flags.words[:1])}: dolt commit: {CONFLICT}"
    )
    return BdResult(1, dumps({"error": text}), "") if "json" in flags else BdResult(1, "", f"Error: {text}\n")


def _faulty(argv: Sequence[str], fault: Fault, version: str) -> BdResult:
    """One call with a fault."""
    if fault.when == "before" and fault.kind in ("hang", "die", "pause", "slow"):
        happen(fault)
    if fault.when == "before" and fault.kind == "exit":
        return BdResult(fault.code, "", fault.text)
    if fault.when == "before" and fault.kind == "conflict":
        return _conflict(argv)
    answer = run(argv, env=os.environ, cwd=os.getcwd(), lose_writes=fault.kind == "lost", version=version)
    if fault.kind == "replace":
        return BdResult(fault.code, fault.text, answer.err)
    if fault.kind == "half":
        return BdResult(0, answer.out[: len(answer.out) // 2], answer.err)
    if fault.when == "after":
        happen(fault)
        if fault.kind == "exit":
            return BdResult(fault.code, "", fault.text)
        if fault.kind == "conflict":
            return _conflict(argv)
    return answer


def main(control: str) -> None:
    """The executable: one call, with the faults that the control file orders."""
    argv = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    actor = argv[argv.index("--actor") + 1] if "--actor" in argv[:-1] else os.environ.get("BEADS_ACTOR", "")
    state = Control(control)
    fault = state.begin(find_verb(argv), actor, argv)
    version = state.get("version", VERSION)
    state.close()
    answer = _faulty(argv, fault, version) if fault else run(argv, env=os.environ, cwd=os.getcwd(), version=version)
    sys.stderr.write(answer.err)
    sys.stdout.write(answer.out)
    sys.exit(answer.code)


def install(directory: str) -> str:
    """Write the executable `bd` and its control file into `directory`. Return the executable's path.

    The interpreter starts isolated and without `site`, which halves its start.
    """
    from shlex import quote

    state = Control(f"{directory}/{CONTROL}")
    state.create()
    state.close()
    root = os.path.abspath(f"{os.path.dirname(__file__)}/../../..")
    start = f"from bdauto.sandbox.fake_bd.main import main; main({f'{directory}/{CONTROL}'!r})"
    code = f"import sys; sys.path.append({root!r}); {start}"
    with open(f"{directory}/bd", "w", encoding="utf-8") as launcher:
        launcher.write(f'#!/bin/sh\nexec {quote(sys.executable)} -I -S -c {quote(code)} "$@"\n')
    os.chmod(launcher.name, 0o755)  # noqa: S103
    return launcher.name
