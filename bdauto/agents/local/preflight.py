"""Checks before a claim whether a job could be started on this machine.

The error messages quote the system and git.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from bdauto.agents.local.jobs import NEW, private_folder
from bdauto.agents.local.supervisor import CONTROL, JOB, LOCK
from bdauto.agents.local.worktree import Worktree
from bdauto.common.errors import UsageError
from bdauto.common.sanitize import clean, without_secrets

TRIAL_BYTES = 1 << 18
"""Bytes that a prompt and the record of a job take, roughly."""
LONGEST_WORD = 1 << 17
"""Bytes of one word of a command line, its end included: MAX_ARG_STRLEN of Linux."""
PROGRAM_TIMEOUT = 120.0
"""Seconds that git may take with one worktree, and with a fetch."""
GIT_TIMEOUT = 20.0
"""Seconds that git may take for one of these questions. A hook of the repository may run in it."""
VERSION_TIMEOUT = 10.0
"""Seconds that an agent may take to say its version. Some look for updates first."""
TRIAL_BRANCH = "agent/bdauto-trial"
NAME_ANOTHER = "name another folder with --agent-jobs"


def program_version(program: str, environment: Mapping[str, str]) -> str:
    """Return the first line of what a program prints for `--version`. Raises UsageError."""
    try:
        done = subprocess.run(
            [program, "--version"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VERSION_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"`{program} --version` did not end within {VERSION_TIMEOUT:.0f}s") from None
    except OSError as error:
        raise UsageError(f"{program} cannot be run: {error.strerror}") from None
    line = without_secrets(next(iter(done.stdout[:4096].decode(errors="replace").strip().splitlines()), ""), 80)
    if done.returncode:
        raise UsageError(f"`{program} --version` ended with status {done.returncode}: {line}")
    return line


def check_utf8(option: str, texts: Sequence[str]) -> None:
    """Raise UsageError for text that is not UTF-8: a job's record could not hold it."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{option} {clean(text)!r} is not UTF-8", hint="rename it") from None


def check_folder(path: Path) -> None:
    """Raise UsageError if a folder for jobs is known to be unusable. Writes nothing, so it may miss a reason."""
    place = next((folder for folder in (path, *path.parents) if os.path.lexists(folder)), path)
    try:
        status = place.stat()
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror}", hint=NAME_ANOTHER) from None
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{place} is not a folder", hint=NAME_ANOTHER)
    if place == path and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
        words = f"others may write to {path} (mode {stat.S_IMODE(status.st_mode):04o})"
        raise UsageError(words, hint=f"chmod 700 {path}, or {NAME_ANOTHER}")
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UsageError(f"{place} cannot be written: {_why_not(place)}", hint=f"make it writable, or {NAME_ANOTHER}")


def try_folder(path: Path) -> None:
    """Make a job's first files in the folder for jobs, and remove them. Raises UsageError if that fails."""
    check_folder(path)
    new = path / f"{NEW}{uuid.uuid4().hex}"
    try:
        private_folder(path)
        new.mkdir(mode=0o700)
        (new / JOB).write_bytes(bytes(TRIAL_BYTES))
        os.mkfifo(new / CONTROL, 0o600)
        with (new / LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        hint = f"make room or make it writable, or {NAME_ANOTHER}"
        raise UsageError(f"a job's folder cannot be made in {path}: {error.strerror}", hint=hint) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def check_repository(root: Path, environment: Mapping[str, str], base: str = "HEAD", folder: Path = Path()) -> None:
    """Raise UsageError if git could make no worktree of a repository: broken, without a commit, not writable.

    `base` is what a worktree starts from. It must have the `folder` where the agent runs.
    """
    if said := _git(root, environment, "log", "-1", "--format=%h"):
        hint = "make a first commit or mend the repository, or leave --agent-worktree out"
        raise UsageError(f"--agent-worktree: git refuses in {root}: {said}", hint=hint)
    check_base(root, environment, base)
    if said := _try_branch(root, environment, TRIAL_BRANCH, base) or _writable(root, environment):
        hint = "mend the repository, or leave --agent-worktree out"
        raise UsageError(f"--agent-worktree: git refuses in {root}: {said}", hint=hint)
    if folder != Path() and _git(root, environment, "cat-file", "-e", f"{base}:{folder}"):
        hint = "commit it, or name another with --agent-dir"
        raise UsageError(f"--agent-worktree: {folder} is not in {base} of {root}", hint=hint)


def worktree_problem(tree: Worktree, environment: Mapping[str, str]) -> str:
    """Return why git would make no worktree for this bead, or "" if no reason is known."""
    try:
        check_folder(tree.path.parent)
    except UsageError as error:
        return str(error)
    is_new = bool(_git(tree.root, environment, "show-ref", "--verify", f"refs/heads/{tree.branch}"))
    if not is_new or os.path.lexists(tree.path):
        _, said = run_program(tree.words("check"), environment)
        if said or os.path.lexists(tree.path):
            return said
    if is_new:
        said = _try_branch(tree.root, environment, tree.branch)
        return f"git refuses the branch {tree.branch}: {said}" if said else ""
    listed = _run(tree.root, environment, "worktree", "list", "--porcelain").stdout
    for entry in listed.decode(errors="replace").split("\n\n"):
        path, *facts = entry.splitlines() or [""]
        place = path.removeprefix("worktree ")
        if f"branch refs/heads/{tree.branch}" in facts and Path(place) != tree.path.resolve():
            return f"the branch {tree.branch} is checked out in {clean(place)}"
    return ""


def head_commit(directory: Path, environment: Mapping[str, str]) -> str:
    """Return the commit that is checked out in a folder, "" if there is none."""
    with contextlib.suppress(UsageError):  # no git
        done = _run(directory, environment, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        return clean(done.stdout.decode(errors="replace").strip()) if done.returncode == 0 else ""
    return ""


def branch_state(tree: Worktree, environment: Mapping[str, str]) -> str:
    """Say in words how far the branch of a bead's worktree is ahead, "" if there is none or git does not tell."""
    try:
        done = _run(tree.root, environment, "log", "--format=%h %s", f"{tree.base or 'HEAD'}..{tree.branch}", "--")
    except UsageError:
        return ""
    commits = done.stdout.decode(errors="replace").splitlines()
    if done.returncode or not commits:
        return ""
    last = without_secrets(commits[0], 200)
    return f"Your worktree is on the branch {tree.branch}. Commits on it so far: {len(commits)}, the last: “{last}”."


def common_folder(root: Path, environment: Mapping[str, str]) -> Path:
    """Return the git folder that all worktrees of a repository share. Raises UsageError."""
    answer = _run(root, environment, "rev-parse", "--git-common-dir").stdout
    return (root / os.fsdecode(answer.removesuffix(b"\n"))).resolve()


def run_program(words: Sequence[str], environment: Mapping[str, str]) -> tuple[str, str]:
    """Return what a command of a worktree prints, and the last line of its errors if it fails."""
    argv = [*words]
    try:
        done = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROGRAM_TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return "", clean(str(error)[-200:])
    said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return done.stdout.decode(errors="replace"), without_secrets(said) if done.returncode else ""


def check_base(root: Path, environment: Mapping[str, str], base: str) -> None:
    """Raise UsageError if a repository has no such commit."""
    if said := _git(root, environment, "log", "-1", "--format=%h", f"{base}^{{commit}}", "--"):
        raise UsageError(f"--agent-base: git refuses in {root}: {said}", hint="run `git fetch`, or name another")


def _writable(root: Path, environment: Mapping[str, str]) -> str:
    """Return why nothing can be written where git keeps worktrees, or ""."""
    common = common_folder(root, environment)
    for folder in (common, common / "worktrees"):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            return f"{folder}: {_why_not(folder)}"
    return ""


def _try_branch(root: Path, environment: Mapping[str, str], branch: str, base: str = "HEAD") -> str:
    """Return why git would not make a branch, or "" if it would. It prepares a ref transaction and aborts it."""
    script = f"start\ncreate refs/heads/{branch} {base}^{{commit}}\nprepare\nabort\n"
    said = _git(root, environment, "update-ref", "--stdin", script=script)
    return "" if "unknown command" in said else said  # git before 2.27


def _git(root: Path, environment: Mapping[str, str], *words: str, script: str = "") -> str:
    """Return what git said when it failed, "" when it did not."""
    done = _run(root, environment, *words, script=script)
    return _words(done) if done.returncode else ""


def _run(
    root: Path, environment: Mapping[str, str], *words: str, script: str = ""
) -> "subprocess.CompletedProcess[bytes]":
    argv = ["git", "-C", str(root), *words]
    try:
        return subprocess.run(
            argv, env=environment, input=script.encode(), capture_output=True, timeout=GIT_TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"git: {clean(str(error))}", hint="is it on PATH? Or leave --agent-worktree out") from None


def _words(done: "subprocess.CompletedProcess[bytes]") -> str:
    return clean(done.stderr.decode(errors="replace")).removeprefix("fatal: ") or f"exit {done.returncode}"


def _why_not(path: Path) -> str:
    """Return the system's message for a folder that cannot be written."""
    try:
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError as error:
        return error.strerror or str(error)
    return "Read-only file system" if read_only else "Permission denied"
