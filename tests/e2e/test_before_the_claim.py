"""What is knowable before a claim is known before it: nothing is claimed, charged or started. With a real git."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bdauto.sandbox import Sandbox
from tests.e2e.test_local_agent import Machine
from tests.support.cli import Done, metadata, status, tell


@pytest.fixture
def machine(sandbox: Sandbox) -> Machine:
    made = Machine(sandbox)
    git(made, "init", "-q")
    git(made, "commit", "-q", "--allow-empty", "-m", "first")
    return made


def git(machine: Machine, *words: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@x")
    subprocess.run(["git", "-C", str(machine.world.db.parent), *identity, *words], check=True, capture_output=True)


def untouched(machine: Machine, bead: str) -> bool:
    return status(machine.world, bead) == "open" and "attempts" not in metadata(machine.world, bead)


def without_commit(machine: Machine) -> None:
    shutil.rmtree(machine.world.db.parent / ".git")
    git(machine, "init", "-q")


def branch_in_the_way(machine: Machine) -> None:
    git(machine, "branch", "agent")


def broken(machine: Machine) -> None:
    (machine.world.db.parent / ".git" / "HEAD").write_text("nonsense\n")


def jobs_open_to_all(machine: Machine) -> None:
    machine.jobs.path.mkdir()
    machine.jobs.path.chmod(0o777)


def jobs_is_a_file(machine: Machine) -> None:
    machine.jobs.path.touch()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_commit, "does not have any commits yet"),
        (branch_in_the_way, "'refs/heads/agent' exists"),
        (broken, "not a git repository"),
        (jobs_open_to_all, "chmod 700"),
        (jobs_is_a_file, "is not a folder"),
    ],
)
def test_what_no_bead_can_be_started_with(machine: Machine, spoil: Callable[[Machine], None], words: str) -> None:
    bead = machine.world.create()
    spoil(machine)
    for dry_run in ((), ("--dry-run",)):
        done = machine.dispatch("--agent-worktree", *dry_run)
        assert (done.code, words in done.complaint) == (2, True), done
    assert machine.run("run", "--agent-worktree").code == 2
    assert untouched(machine, bead)
    doctor = machine.run("doctor", "--agent-worktree", command="sh", COLUMNS="1000")
    assert (doctor.code, words in doctor.out) == (2, True), doctor.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--agent-base", "origin/nope"), "bad revision 'origin/nope^{commit}'"),
        (("--agent-base", "HEAD^{tree}"), "bad revision"),
        (("--agent-base", "--upload-pack=touch x"), "is not the name of a commit"),
        (("--agent-dir", "{home}/new"), "new is not in HEAD of"),
        (("--agent-prepare", "no-such-program"), "is not a program"),
    ],
)
def test_what_a_worktree_cannot_start_with(machine: Machine, words: tuple[str, ...], said: str) -> None:
    bead = machine.world.create()
    home = machine.world.db.parent
    (home / "new").mkdir()
    done = machine.dispatch("--agent-worktree", *(word.replace("{home}", str(home)) for word in words))
    assert (done.code, said in done.complaint) == (2, True), done
    assert untouched(machine, bead)


def test_a_remote_that_cannot_be_fetched_charges_nobody(machine: Machine) -> None:
    """Nobody can know it before the claim. No early death, and the note has git's words."""
    git(machine, "remote", "add", "origin", str(machine.world.folder / "remote.git"))
    git(machine, "update-ref", "refs/remotes/origin/main", "HEAD")
    bead = machine.world.create()
    assert machine.dispatch("--agent-worktree", "--agent-base", "origin/main").outcomes == {bead: "dispatched"}
    machine.ended()
    assert machine.run("reap", "--json").outcomes == {bead: "released"}
    assert untouched(machine, bead)
    notes = "\n".join(machine.world.notes(bead))
    assert ("does not appear to be a git repository" in notes, "could not fetch origin/main" in notes) == (True, True)
    assert not machine.run("status", "--json").json.get("suspended")


def test_a_preparation_that_fails_charges_nobody(machine: Machine) -> None:
    bead = machine.world.create()
    words = ("--agent-worktree", "--agent-prepare", "sh -c 'echo the registry is down; exit 3'")
    assert machine.dispatch(*words).outcomes == {bead: "dispatched"}
    machine.ended()
    assert machine.run("reap", "--json").outcomes == {bead: "released"}
    assert untouched(machine, bead)
    assert "the registry is down | --agent-prepare failed: exit status 3" in "\n".join(machine.world.notes(bead))
    assert [*(machine.jobs.path / "worktrees").glob("*/*")] == []


def test_what_concerns_one_bead_holds_up_no_other(machine: Machine) -> None:
    first, second = machine.world.create("First", priority=0), machine.world.create("Second")
    done = machine.dispatch("--agent-worktree")
    machine.ended()
    assert done.outcomes == {first: "dispatched"}
    [project] = (machine.jobs.path / "worktrees").iterdir()
    third = machine.world.create("Third", priority=0)
    (project / third).mkdir()
    (project / third / "leftover").touch()
    done = machine.dispatch("--agent-worktree", "--max", "2")
    machine.ended()
    assert done.outcomes == {third: "unavailable", second: "dispatched"}
    assert (done.code, "is in the way" in done.complaint, "open again" in done.complaint) == (5, True, False)
    assert untouched(machine, third)


UNUSABLE = {
    "its folder is gone, and git's record is locked": ("git worktree lock {tree}; mv {tree} {away}", "it has locked"),
    "its folder is gone with a commit": (
        "git -C {tree} -c user.name=x -c user.email=x@x commit -q --allow-empty -m work; mv {tree} {away}; "
        "git update-ref refs/heads/agent/{bead} HEAD",
        "no other branch has its commit",
    ),
    "git works there": ("touch .git/worktrees/{bead}/index.lock", "remove .*index.lock if no git works there"),
    "its HEAD is broken": ("echo nonsense > .git/worktrees/{bead}/HEAD", "is in the way: .*not a git repository"),
    "git has lost its link": ("rm .git/worktrees/{bead}/gitdir", "is in the way: it is not a worktree of"),
    "a link to the checkout": ("mv {tree} {away}; ln -s $PWD {tree}", "is in the way: it is not a worktree of"),
    "a repository of its own": ("rm {tree}/.git; git init -q {tree}", "is in the way: it is not a worktree of"),
    "a branch below its own": (
        "git worktree remove -f {tree}; git branch -m agent/{bead} agent/{bead}/more", "agent/.*/more' exists",
    ),
    "a lock of its branch": (
        "git worktree remove -f {tree}; git branch -D agent/{bead}; mkdir -p .git/refs/heads/agent; "
        "touch .git/refs/heads/agent/{bead}.lock", "Unable to create .*: File exists",
    ),
    "its branch is checked out": (
        "git worktree remove -f {tree}; git checkout -q agent/{bead}", "is checked out in",
    ),
    "a file in place of the project's folder": ("rm -rf {project}; touch {project}", "is not a folder"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "words"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_worktree_that_cannot_be_used_is_found_before_the_claim(machine: Machine, script: str, words: str) -> None:
    bead, home = machine.world.create(), machine.world.db.parent
    machine.does("true")
    assert machine.dispatch("--agent-worktree").outcomes == {bead: "dispatched"}
    machine.ended()
    tell(machine.world, "update", bead, "-s", "open", "--unset-metadata", "bdauto.attempt")
    [project] = (machine.jobs.path / "worktrees").iterdir()
    tree = project / bead
    git(machine, "worktree", "prune")
    git(machine, "worktree", "add", "-q", "-B", f"agent/{bead}", str(tree))
    filled = script.format(tree=tree, bead=bead, away=machine.world.folder / "away", project=project)
    subprocess.run(["sh", "-ec", filled], cwd=home, check=True, capture_output=True)
    done = machine.dispatch("--agent-worktree", "--dry-run")
    assert done.outcomes == {bead: "unavailable"}, done
    assert re.search(words, done.complaint), done.complaint


@pytest.mark.parametrize("kept", [False, True])
def test_a_hook_that_fails_charges_nobody_and_leaves_nothing(machine: Machine, kept: bool) -> None:
    hook = machine.world.db.parent / ".git" / "hooks" / "post-checkout"
    hook.write_text("#!/bin/sh\necho no room for this checkout\nexit 7\n")
    hook.chmod(0o700)
    bead = machine.world.create()
    if kept:
        git(machine, "branch", f"agent/{bead}")
    assert machine.dispatch("--agent-worktree").outcomes == {bead: "dispatched"}
    machine.ended()
    reaped: Done = machine.run("reap", "--json")
    assert reaped.outcomes == {bead: "released"}
    assert untouched(machine, bead)
    assert "no room for this checkout" in "\n".join(machine.world.notes(bead))
    assert [*(machine.jobs.path / "worktrees").glob("*/*")] == []
    branches = subprocess.check_output(["git", "-C", str(machine.world.db.parent), "branch", "--list", "agent/*"])
    assert bool(branches.strip()) == kept
    assert not machine.run("status", "--json").json.get("suspended")


def test_bytes_that_are_no_text_are_refused(machine: Machine, tmp_path: Path) -> None:
    bead, folder = machine.world.create(), os.fsdecode(b"caf\xe9")
    (tmp_path / folder).mkdir()
    (tmp_path / "prompt").write_bytes(b"caf\xe9")
    for words in (("--agent-dir", str(tmp_path / folder)), ("--agent-prompt", str(tmp_path / "prompt"))):
        done = machine.dispatch(*words)
        assert (done.code, "is not UTF-8" in done.complaint) == (2, True), done
    done = machine.run("dispatch", command=f"sh {folder}")
    assert (done.code, "is not UTF-8" in done.complaint) == (2, True), done
    assert untouched(machine, bead)
