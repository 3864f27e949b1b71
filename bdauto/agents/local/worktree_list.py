"""The worktrees of a repository's beads: what is in them, what became of the last job, and which can be removed."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from bdauto.agents.local.jobs import DIED, RUNNING, UNKNOWN, Jobs, read_end
from bdauto.agents.local.preflight import common_folder, run_program
from bdauto.agents.local.supervisor import AGENT
from bdauto.agents.local.worktree import Worktree, worktree_of
from bdauto.agents.local.worktree_program import BUSY, UNFINISHED


class ListedWorktree(msgspec.Struct, frozen=True, kw_only=True):
    """A bead's worktree. `branch` is "" if there is none, `ahead` the number of its commits that the base lacks.

    `changes` says what is in no commit, `result` how the last job in it ended, and `kept` why the worktree must stay,
    "" if nothing would be lost with it. Unknown values are None.
    """

    bead: str
    path: str
    branch: str = ""
    ahead: int | None = None
    changes: str | None = None
    result: str | None = None
    kept: str = ""
    removed: bool = False


def list_worktrees(
    jobs: Jobs, directory: Path, base: str, environment: Mapping[str, str], *, remove: bool = False
) -> list[ListedWorktree]:
    """Return the worktrees of the repository that a folder is in. With `remove`, remove those that can be."""
    results = dict(_results(jobs))
    found = [*_trees(jobs.path, directory, base, environment)]
    if remove and found:
        run_program(found[0].words("fetch"), environment)  # without the network the last fetch counts
    listed = [_describe(tree, environment, results.get(os.path.realpath(tree.path))) for tree in found]
    if not remove:
        return listed
    return [_removed(one, tree, jobs.path, environment) for one, tree in zip(listed, found, strict=True)]


def _trees(jobs: Path, directory: Path, base: str, environment: Mapping[str, str]) -> Iterator[Worktree]:
    """Yield the worktrees that a checkout of the same repository has made, also half-made ones."""
    own = worktree_of("x", directory, jobs, base)
    common = common_folder(own.root, environment)
    for folder in sorted((jobs / "worktrees").glob("*")):
        for bead in sorted({path.name.removeprefix(UNFINISHED) for path in folder.glob("*")}):
            tree = msgspec.structs.replace(own, path=folder / bead, branch=f"agent/{bead}")
            if not bead.startswith(".") and (folder == own.path.parent or _admin(tree.path).parent.parent == common):
                yield tree


def _admin(path: Path) -> Path:
    """Return the git folder that a worktree names."""
    try:
        return Path((path / ".git").read_text(encoding="utf-8", errors="surrogateescape")[8:].rstrip("\n")).resolve()
    except OSError:
        return path


def _results(jobs: Jobs) -> Iterator[tuple[str, str]]:
    """Yield the folder of each job's agent with how the job ended, the latest last."""
    records = [record for job in jobs.ids() if (record := jobs.record(job))]
    for record in sorted(records, key=lambda record: record.started):
        for step in record.steps:
            if step.kind == AGENT:
                yield _top(jobs.path, step.directory), _result(jobs, record.attempt)


def _top(jobs: Path, directory: str) -> str:
    """Return the worktree that a folder is in, "" if it is in none."""
    path, trees = Path(directory).resolve(), (jobs / "worktrees").resolve()
    return str(trees.joinpath(*path.relative_to(trees).parts[:2])) if path.is_relative_to(trees) else ""


def _result(jobs: Jobs, job: str) -> str:
    state, end = jobs.state(job) or DIED, read_end(jobs.path / job)
    gate = end.failed_gate if end and state not in (RUNNING, UNKNOWN) else None
    return f"{gate.kind} failed" if gate else state


def _describe(tree: Worktree, environment: Mapping[str, str], result: str | None) -> ListedWorktree:
    told, error = run_program(tree.words("describe"), environment)
    found = ListedWorktree(bead=tree.path.name, path=str(tree.path), result=result)
    try:
        facts = json.loads(told)
        found = msgspec.structs.replace(found, **{name: facts[name] for name in ("branch", "ahead", "changes", "kept")})
    except (ValueError, KeyError, TypeError):
        return msgspec.structs.replace(found, kept=error or "git does not describe it")
    return msgspec.structs.replace(found, kept=BUSY) if result in (RUNNING, UNKNOWN) else found


def _removed(one: ListedWorktree, tree: Worktree, jobs: Path, environment: Mapping[str, str]) -> ListedWorktree:
    """Remove a worktree that can be, unless a job has begun to use it meanwhile."""
    if one.kept:
        return one
    _, error = run_program(tree.words("remove", jobs=str(jobs)), environment)
    gone = not os.path.lexists(tree.path)
    return msgspec.structs.replace(one, removed=gone, kept="" if gone else error or "it has changed meanwhile")
