"""Landing what agents did, on a real repository with a bare remote: checked work alone, one at a time, at most once."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_local_agent import RECORDED, Machine, until
from tests.e2e.test_worktrees import Place, Repository, call
from tests.support.cli import FLAVOURS, REAL_FLAVOURS, forget_backoff, make_world, metadata, status, tell
from tests.support.jobs import supervisor_of
from tests.support.patience import seconds

PUSH = ("git", "push", "-q", "origin", "HEAD:main")
WAIT = 30.0


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with a remote, and the worktree of x-1, in which there is a commit."""
    made = Repository(tmp_path)
    made.remote()
    made.tree = made.of("x-1", "origin/main")
    call(made.tree.words("prepare"))
    made.do("echo work > work; git add work; $git commit -qm work")
    return made


def landed(repository: Repository) -> list[str]:
    """The subjects of what the remote has, the newest first."""
    return repository.git("log", "--format=%s", "main", at=repository.root.parent / "remote.git").splitlines()


def test_what_was_sealed_lands_and_the_worktree_is_removed(repository: Repository) -> None:
    call(repository.tree.words("seal"))
    call(repository.tree.words("land", command=PUSH, wait=WAIT))
    assert landed(repository) == ["work", "first"]
    assert call(repository.tree.words("remove")) == ""
    assert (repository.tree.path.exists(), repository.branches()) == (False, [])


NOT_COMMITTED = {
    "a new file": "touch new",
    "a change": "echo more >> work",
    "a staged change": "echo more >> work; git add work",
    "a merge under way": "git checkout -q -b o main; $git commit -q --allow-empty -m o; git checkout -q -; "
    "$git merge -q --no-commit --no-ff o",
    "an edit that git assumes away": "git update-index --assume-unchanged file; echo two > file",
    "a file and status hides it": "git config status.showUntrackedFiles no; touch new",
    "no commit": "git checkout -q --orphan other; git rm -rfq .",
}


@pytest.mark.parametrize("script", NOT_COMMITTED.values(), ids=NOT_COMMITTED.keys())
def test_work_that_is_not_committed_is_not_checked(repository: Repository, script: str) -> None:
    """It would be checked, and something else would land."""
    repository.do(script)
    call(repository.tree.words("seal"), code=1)
    call(repository.tree.words("land", command=PUSH, wait=WAIT), code=1)
    assert landed(repository) == ["first"]


def test_ignored_and_prepared_files_need_no_commit(repository: Repository) -> None:
    tree = repository.of("x-2", "origin/main", "touch prepared built.o")
    call(tree.words("prepare"))
    (tree.path / "also.o").touch()
    call(tree.words("seal"))
    (tree.path / "prepared").write_text("work")
    assert "'prepared' is in no commit" in call(tree.words("seal"), code=1)


@pytest.mark.parametrize("script", ["$git commit -q --allow-empty -m later", "git checkout -q --detach main", "true"])
def test_only_the_commit_that_was_checked_lands(repository: Repository, script: str) -> None:
    """A process that the agent left behind may go on working."""
    if script != "true":
        call(repository.tree.words("seal"))
    repository.do(script)
    assert (
        "nothing was landed" in call(repository.tree.words("land", command=PUSH, wait=WAIT), code=1) or script == "true"
    )
    assert landed(repository) == ["first"]


@pytest.mark.parametrize("script", ["echo mended > work", "rm work", "echo mended > work; git add work"])
def test_work_that_its_check_has_changed_does_not_land(repository: Repository, script: str) -> None:
    """What has passed is not what would land. Files that git does not know may be what a check has built."""
    call(repository.tree.words("seal"))
    repository.do(f"touch built; {script}")
    assert "nothing was landed" in call(repository.tree.words("land", command=PUSH, wait=WAIT), code=1)
    assert landed(repository) == ["first"]
    repository.do("git reset -q --hard")
    call(repository.tree.words("land", command=PUSH, wait=WAIT))
    assert landed(repository) == ["work", "first"]


def test_a_landing_that_fails_says_why_and_keeps_all(repository: Repository) -> None:
    repository.elsewhere(repository.root.parent / "remote.git", "$git commit -q --allow-empty -m theirs")
    call(repository.tree.words("seal"))
    said = call(repository.tree.words("land", command=PUSH, wait=WAIT), code=1)
    assert ("rejected" in said, said.splitlines()[-1]) == (True, "--agent-land failed: exit status 1")
    assert (landed(repository), repository.branches()) == (["theirs", "first"], ["agent/x-1"])


def test_two_that_land_at_once_wait_for_each_other(repository: Repository, tmp_path: Path) -> None:
    """Also from linked worktrees. The second says for whom it waits."""
    linked = tmp_path / "linked and\nspaced"
    repository.git("worktree", "add", "-q", str(linked), "-b", "mine")
    trees, log = [repository.tree, repository.of("x-2", "origin/main")], tmp_path / "log"
    trees[1] = type(trees[1])(linked, trees[1].path, "agent/x-2", "origin/main")
    call(trees[1].words("prepare"))
    script = f"echo begin >> {log}; sleep 1; echo end >> {log}"
    running = []
    for tree, bead in zip(trees, ("x-1", "x-2"), strict=True):
        call(tree.words("seal"))
        environment = {**os.environ, "BEAD_ID": bead, "BDAUTO_JOB": f"job-{bead}"}
        words = tree.words("land", command=("sh", "-c", script), wait=WAIT)
        running.append(subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True))
        until(log.exists)
    said = [process.communicate(timeout=seconds(30))[0] for process in running]
    assert log.read_text().split() == ["begin", "end", "begin", "end"]
    assert said == ["", "waits until job job-x-1 of x-1 has landed\n"]


def test_one_that_lands_for_too_long_is_not_waited_for(repository: Repository, tmp_path: Path) -> None:
    call(repository.tree.words("seal"))
    first = subprocess.Popen(
        repository.tree.words("land", command=("sh", "-c", f"touch {tmp_path}/begun; sleep 60"), wait=WAIT)
    )
    until((tmp_path / "begun").exists)
    said = call(repository.tree.words("land", command=("touch", f"{tmp_path}/second"), wait=0.2), code=1)
    assert "nothing was landed: another job of this repository lands" in said
    assert not (tmp_path / "second").exists()
    first.kill()
    first.wait()


@pytest.mark.parametrize("words", [("no-such-program",), ("sh", "-c", "kill -9 $$")])
def test_a_command_that_cannot_land_is_no_landing(repository: Repository, words: tuple[str, ...]) -> None:
    call(repository.tree.words("seal"))
    assert "--agent-land" in call(repository.tree.words("land", command=words, wait=WAIT), code=1)


class Project(Place):
    """A project with a bare remote, whose agents commit a file and end."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.remote, self.log = machine.world.folder / "remote.git", machine.world.folder / "landings"
        self.git("clone", "-q", "--bare", str(self.home), str(self.remote))
        if "origin" in self.git("remote").split():  # a server's project is that of the test before
            self.git("remote", "remove", "origin")
        self.git("remote", "add", "origin", str(self.remote))
        self.git("fetch", "-q", "origin")
        self.check, self.prepare = "grep -q right $BEAD_ID", "true"
        self.land = f"echo $BEAD_ID >> {self.log}; git pull -q --rebase origin main && git push -q origin HEAD:main"
        self.does("echo right > $BEAD_ID")

    def does(self, script: str) -> None:
        """What the agent does before it commits all."""
        names = " ".join(f"{word}={value}" for word, value in IDENTITY_VARIABLES.items())
        note = f'{RECORDED}; $BD note $BEAD_ID "claimed by agent $BDAUTO_JOB"'
        self.machine.does(f'export {names}; {note}; {script}; git add -A; git commit -qm "work on $BEAD_ID" || true')

    def options(self) -> list[str]:
        given = {"check": self.check, "prepare": self.prepare, "land": self.land}
        words = [word for name, script in given.items() for word in (f"--agent-{name}", f"sh -c '{script}'")]
        return ["--agent-worktree", "--agent-base", "origin/main", "--agent-slots", "2", "--max", "2", *words]

    def dispatch(self) -> dict[str, str]:
        return self.machine.dispatch(*self.options(), **IDENTITY_VARIABLES).outcomes

    def round(self) -> None:
        """Dispatch, let the jobs end, and sweep."""
        self.dispatch()
        self.machine.ended()
        self.machine.run("reap", "--json")

    def kill_when(self, true: Callable[[], object]) -> None:
        """Kill the supervisor of the job that runs, once something is so."""
        until(true)
        [job] = self.machine.jobs.running()
        os.kill(supervisor_of(self.machine.jobs.path / job), signal.SIGKILL)
        self.machine.ended()

    def pushed(self) -> list[str]:
        subjects = self.git("log", "--format=%s", "main", at=self.remote).splitlines()
        since = subjects[: subjects.index("first") + 1]  # a server's project has commits of other tests before it
        return [subject for subject in since if not subject.startswith("bd init")]

    def landings(self) -> int:
        return len(self.log.read_text().split()) if self.log.exists() else 0

    def notes(self, bead: str) -> str:
        return "\n".join(self.machine.world.notes(bead))


IDENTITY_VARIABLES = {f"GIT_{who}_{what}": "x@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture(params=[FLAVOURS[0], *REAL_FLAVOURS])
def project(request: pytest.FixtureRequest) -> Iterator[Project]:
    with make_world(request, request.param) as world:
        made = Project(Machine(world))
        yield made
        for job in made.machine.jobs.running():
            made.machine.jobs.stop(job, "the test's end")
        made.machine.ended()


def test_three_beads_land_one_after_the_other(project: Project) -> None:
    """One waits for another and finds its work. One fails its check twice."""
    world = project.machine.world
    first, second, third = (world.create(title) for title in ("First", "Second", "Third"))
    tell(world, "dep", "add", second, first)
    tries = world.folder / "tries"
    project.does(
        f"[ $BEAD_ID != {second} ] || cat {first} > {world.folder}/seen; "
        f"[ $BEAD_ID != {third} ] || (echo x >> {tries}); "
        f"if [ $BEAD_ID = {third} ] && [ $(wc -l < {tries}) -lt 3 ]; then echo wrong; else echo right; fi > $BEAD_ID"
    )
    for _ in range(6):
        project.round()
        forget_backoff(world, *(bead for bead in (first, second, third) if status(world, bead) == "open"))
    assert [status(world, bead) for bead in (first, second, third)] == ["closed"] * 3
    works = [f"work on {bead}" for bead in (first, second, third)]
    assert sorted(project.pushed()) == sorted([*works, works[2], "first"])
    assert project.pushed().index(works[1]) < project.pushed().index(works[0])
    assert (world.folder / "seen").read_text() == "right\n"
    assert project.landings() == 3
    assert project.listed() == {}
    assert project.git("branch", "--list", "agent/*") == ""


def test_a_bead_whose_landing_fails_is_blocked_and_keeps_its_branch(project: Project) -> None:
    project.land = f"echo $BEAD_ID >> {project.log}; echo the branch is protected >&2; exit 3"
    bead = project.machine.world.create()
    for _ in range(2):
        project.round()
    assert (status(project.machine.world, bead), project.landings(), project.pushed()) == ("blocked", 1, ["first"])
    assert "the branch is protected | --agent-land failed: exit status 3" in project.notes(bead)
    found = project.listed("--remove", "--agent-base", "origin/main")[bead]
    assert (found["result"], found["ahead"], found["removed"]) == ("land failed", 1, False)


@pytest.mark.parametrize("script", ["echo wrong > $BEAD_ID", "exit 1", "echo right > $BEAD_ID; git add -A; touch .git"])
def test_what_has_not_passed_does_not_land(project: Project, script: str) -> None:
    """A wrong result, an agent that failed, and work that is not committed."""
    if "touch" in script:
        project.machine.does(f"{RECORDED}; $BD note $BEAD_ID working; echo right > $BEAD_ID")
    else:
        project.does(script)
    bead = project.machine.world.create()
    project.round()
    assert (project.landings(), project.pushed()) == (0, ["first"])
    assert status(project.machine.world, bead) != "closed"
    if "touch" in script:
        assert "is in no commit: commit it, or remove it" in project.notes(bead)


@pytest.mark.parametrize("step", ["prepare", "agent", "check"])
def test_a_job_killed_before_it_lands_is_done_again_and_lands_once(project: Project, step: str) -> None:
    flag = project.machine.world.folder / "flag"
    wait = f"[ -e {flag} ] || (touch {flag}; sleep 60); "
    bead = project.machine.world.create()
    project.prepare = wait + project.prepare if step == "prepare" else project.prepare
    project.check = wait + project.check if step == "check" else project.check
    if step == "agent":
        project.does(f"{wait} echo right > $BEAD_ID")
    project.dispatch()
    project.kill_when(flag.exists)
    assert status(project.machine.world, bead) == "in_progress"
    project.machine.run("reap", "--json", "--on-stall", "requeue")
    assert (status(project.machine.world, bead), project.landings()) == ("open", 0)
    forget_backoff(project.machine.world, bead)
    project.round()
    assert (status(project.machine.world, bead), project.landings()) == ("closed", 1)


def killed(project: Project, bead: str) -> None:
    project.kill_when((project.machine.world.folder / "flag").exists)


def cancelled(project: Project, bead: str) -> None:
    until((project.machine.world.folder / "flag").exists)
    project.machine.run("cancel", bead)


def paused(project: Project, bead: str) -> None:
    until((project.machine.world.folder / "flag").exists)
    project.machine.run("pause", "--stop")
    project.machine.run("reap")
    project.machine.ended()
    project.machine.run("resume")


@pytest.mark.parametrize("end", [killed, cancelled, paused])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_landing_that_was_cut_off_is_not_repeated(
    project: Project, end: Callable[[Project, str], None], moment: str
) -> None:
    """Nobody knows whether it has landed: a person looks."""
    wait = f"touch {project.machine.world.folder}/flag; sleep 60"
    project.land = f"{wait}; {project.land}" if moment == "before" else f"{project.land}; {wait}"
    bead = project.machine.world.create()
    project.dispatch()
    end(project, bead)
    for _ in range(2):
        project.machine.run("reap", "--json", "--on-stall", "requeue")
        project.dispatch()
    assert status(project.machine.world, bead) == "blocked"
    assert project.landings() == (moment == "after")
    assert "it may or may not have landed" in project.notes(bead)
    assert metadata(project.machine.world, bead)["quarantined"]


def test_a_job_waits_until_another_has_landed(project: Project) -> None:
    """Two of one repository never land at once."""
    begun, checked = project.machine.world.folder / "begun", project.machine.world.folder / "checked"
    project.check = f"echo x >> {checked}"
    both = f"until [ $(wc -l < {checked}) = 2 ]; do sleep 0.1; done; sleep 1"
    project.land = f"echo begin >> {begun}; {both}; {project.land}; echo end >> {begun}"
    beads = [project.machine.world.create() for _ in range(2)]
    project.round()
    assert begun.read_text().split() == ["begin", "end"] * 2
    assert [status(project.machine.world, bead) for bead in beads] == ["closed"] * 2
    said = "".join(project.machine.run("logs", bead).out for bead in beads)
    assert "has landed" in said


def test_what_an_agent_that_says_it_failed_has_done_does_not_land(project: Project) -> None:
    """It may end with exit status 0, and its half of the work may pass the checks."""
    said = '{"type":"result","is_error":true,"result":"API Error: 529 overloaded"}'
    project.does(f"echo right > $BEAD_ID; echo '{said}'")
    bead = project.machine.world.create()
    project.round()
    assert (project.landings(), project.pushed()) == (0, ["first"])
    assert status(project.machine.world, bead) == "open"


def test_what_has_landed_is_closed_though_its_agent_was_silent(project: Project) -> None:
    """To start another agent on it would land it twice."""
    names = " ".join(f"{word}={value}" for word, value in IDENTITY_VARIABLES.items())
    project.machine.does(f"export {names}; echo right > $BEAD_ID; git add -A; git commit -qm work")
    bead = project.machine.world.create()
    project.round()
    assert (status(project.machine.world, bead), project.landings()) == ("closed", 1)
