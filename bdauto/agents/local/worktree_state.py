"""What git knows of a bead's worktree, and what would be lost with it. Reads only. A part of `worktree_program`."""

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence

UNDER_WAY = (
    *("rebase-merge", "rebase-apply", "sequencer", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "BISECT_LOG"),
    *("locked", "index.lock"),
)
"""Files in a worktree's git folder: an operation under way, a lock of git or of a person."""
OWN_REFS = ("refs/bisect", "refs/worktree", "refs/rewritten")
"""Refs that each worktree has of its own. All others, refs/stash too, belong to the repository and stay."""
GITLINK = "160000"
"""The mode of a submodule in git's index."""
EXACT = ("core.fsmonitor=false", "core.ignoreCase=false", "core.trustctime=true", "core.checkStat=default")
"""Settings with which `git status` overlooks no file. The repository or its user may have others."""
PATCH = (
    *("--no-ext-diff", "--no-textconv", "--no-renames", "--no-color", "--binary", "--full-index", "--unified=3"),
    *("--submodule=short", "--src-prefix=a/", "--dst-prefix=b/"),
)
"""Options with which a patch shows each byte that it changes, whatever the user has configured."""
MOST_PATHS = 1000
"""With more changed files than this, all of them are compared: a command line has an end."""
START = "bdauto-start"
"""The file in a worktree's git folder with the commit that its branch began at, if that was new."""
GENERATED = "bdauto-generated"
"""The file in a worktree's git folder that lists the files that --agent-prepare made: size and time of each."""
SEALED = "bdauto-sealed"
"""The file in a worktree's git folder with the commit that is checked, and then landed."""
CACHE_TAG = b"Signature: 8a477f597d28d172789f06886806bc55"
"""How the file CACHEDIR.TAG begins in a folder of generated files (https://bford.info/cachedir/)."""


class Refused(Exception):
    """Raised with the reason when nothing is done."""


class WorktreeState:
    """The worktree at `path` of the repository that `root` is in, on a branch of its own that began at `base`."""

    def __init__(self, root: str, path: str, branch: str, base: str = "") -> None:
        folder, name = os.path.split(path)
        self.root, self.path, self.branch = root, os.path.join(os.path.realpath(folder), name), branch
        self.base = base or "HEAD"
        self.common = self._common(root)

    def admin(self) -> str:
        """Return the git folder of the worktree. Raises Refused if the path holds no worktree of this repository."""
        said = ""
        try:
            found = self._absolute(self.path, git(self.path, "rev-parse", "--git-dir", quiet=True))
            # core.worktree may say otherwise
            top = self._absolute(self.path, git(self.path, "rev-parse", "--show-toplevel", quiet=True))
            if {self._tree_of(found), top} == {self.path} and self._common(self.path) == self.common:
                return found
        except subprocess.CalledProcessError as error:
            said = f" ({os.fsdecode(error.stderr).strip()})"
        words = f"{self.path} is in the way: it is not a worktree of {self.root}{said}"
        raise Refused(f"{words}; save what you need from it, and remove it")

    def describe(self) -> dict[str, object]:
        """Return the branch, its commits that the base does not have, what is in no commit, and why all is kept."""
        admin, tip = self.admin(), self.ref(f"refs/heads/{self.branch}")
        bases = self._refs(self.base, f"{self.base}@{{upstream}}")
        ahead = git(self.path, "rev-list", "--count", "HEAD", *filter(None, [tip]), "--not", *bases, "--")
        return {
            "branch": self.branch if tip else "",
            "ahead": int(ahead),
            "changes": self.changes(),
            "kept": self.unsaved(admin, self.branch) or self.changes(),
        }

    def unsaved(self, admin: str, branch: str = "") -> str:
        """Return what would be lost with the worktree's git folder, and with `branch`, or "" if nothing would be."""
        for name in UNDER_WAY:
            if os.path.lexists(os.path.join(admin, name)):
                return f"it has {name}"
        own = f"--git-dir={admin}"
        if refs := git(self.root, own, "for-each-ref", "--format=%(refname)", *OWN_REFS):
            return f"it has {refs.splitlines()[0]}"
        tip = self.ref(f"refs/heads/{branch}") if branch else ""
        try:
            head = git(self.root, own, "rev-parse", "--verify", "HEAD^{commit}", quiet=True)
            names = ["HEAD", *([f"refs/heads/{branch}"] if tip else [])]
            seen = git(self.root, own, "reflog", "show", "--format=%H", *names, "--").split()
            lost = self.not_elsewhere(admin, [*filter(None, [tip]), head, *dict.fromkeys(seen)])
        except subprocess.CalledProcessError:
            return "its commits cannot be looked up"
        return f"not merged: no other branch has its commit {lost[:12]}" if lost else _submodules(self.root, admin)

    def not_elsewhere(self, gitdir: str, commits: Sequence[str]) -> str:
        """Return a commit that is not merged, and that no branch but this one has, "" if there is none.

        The base has it, or what the base follows, or they have the same changes. The commit that the branch began at
        is no work.
        """
        stays = ["--not", f"--exclude={self.branch}", "--branches", *self._targets(), *self._refs(self._note(START))]
        own = ("--no-replace-objects", f"--git-dir={gitdir}")  # a replacement can join what nothing else joins
        left = git(self.root, *own, "rev-list", *commits, *stays, "--").split()
        for tip in commits:
            if tip in left:
                merged = self._merged(tip)
                left = [commit for commit in left if commit not in merged]
        return left[0] if left else ""

    def changes(self) -> str:
        """Return what in the worktree's files is in no commit, or "" if everything is."""
        return _changes(self.path, self._generated())

    def uncommitted(self) -> str:
        """Return what keeps the worktree's work from being landed as its HEAD, or "". Ignored files do not count."""
        admin = self.admin()
        under_way = (f"it has {name}" for name in UNDER_WAY if os.path.lexists(os.path.join(admin, name)))
        return next(under_way, "") or _changes(self.path, self._generated(), ignored=False)

    def _generated(self) -> dict[str, list[int]]:
        try:
            found = json.loads(self._note(GENERATED) or "{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _note(self, name: str) -> str:
        """Return what one of bdauto's files in the worktree's git folder says, "" if there is none."""
        for admin in self._admins():
            with contextlib.suppress(OSError), open(os.path.join(admin, name), errors="replace") as file:
                return file.read()
        return ""

    def untracked(self) -> dict[str, list[int]]:
        """Return the files that git does not track, each with its size and the time of its last change, in ns."""
        names = git(self.path, "ls-files", "--others", "-z").split("\0")
        return {name: _stamp(os.path.join(self.path, name)) for name in names if name and not name.endswith("/")}

    def ref(self, name: str) -> str:
        """Return the commit that a name stands for in `root`, or ""."""
        try:
            return git(self.root, "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}", quiet=True)
        except subprocess.CalledProcessError:
            return ""

    def _targets(self) -> list[str]:
        """Return the commits of the base and of what that follows, if they are on branches or tags that stay."""
        names = []
        for name in (self.base, f"{self.base}@{{upstream}}"):
            with contextlib.suppress(subprocess.CalledProcessError):
                names.append(git(self.root, "rev-parse", "--symbolic-full-name", name, quiet=True))
        own = f"refs/heads/{self.branch}"
        return self._refs(*(name for name in names if name.startswith("refs/") and name != own))

    def _admins(self) -> list[str]:
        folder = os.path.join(self.common, "worktrees")
        found = [os.path.join(folder, name) for name in (os.listdir(folder) if os.path.isdir(folder) else [])]
        return [admin for admin in found if self._tree_of(admin) == self.path]

    def _refs(self, *names: str) -> list[str]:
        return [*filter(None, map(self.ref, filter(None, names)))]

    def _merged(self, tip: str) -> set[str]:
        """Return the commits up to `tip` that a target lacks, if it has the same changes: picked, rebased or squashed.

        A merge among them has changes of its own. Then the target must have all changes in one commit. A
        commit without changes is passed over if there are others.
        """
        for target in self._targets():
            try:
                fork = git(self.root, "merge-base", target, tip, quiet=True)
                mine = git(self.root, "rev-list", f"{fork}..{tip}", "--").split()
                changing = git(self.root, "rev-list", "--count", "--full-history", f"{fork}..{tip}", "--", ":/")
                named = git(self.root, "log", "--format=", "--name-only", "--no-renames", "-z", f"{fork}..{tip}", "--")
                paths = {path for path in named.split("\0") if path}
                few = paths if len(paths) < MOST_PATHS else ()
                theirs = set(self._patches("log", f"{fork}..{target}", "--", *few))
                whole, each = self._patches("diff", fork, tip, "--"), self._patches("log", f"{fork}..{tip}", "--")
            except subprocess.CalledProcessError:
                continue
            picked = each and len(each) == int(changing) and theirs.issuperset(each)
            if picked or (whole and theirs.issuperset(whole)):
                return set(mine)
        return set()

    def _patches(self, verb: str, *words: str) -> list[str]:
        """Return the ids of the changes that git shows. White space counts, which `git cherry` overlooks."""
        log = ("--no-merges", "--format=commit %H") if verb == "log" else ()
        argv = ["git", "-C", self.root, "--literal-pathspecs", verb, "--patch", *log, *PATCH, *words]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as shown:
            ids = ["git", "-C", self.root, "patch-id", "--verbatim"]
            done = subprocess.run(ids, stdin=shown.stdout, stdout=subprocess.PIPE, check=True)
        if shown.returncode:
            raise subprocess.CalledProcessError(shown.returncode, argv)
        return [line.split()[0] for line in done.stdout.decode().splitlines()]

    def _tree_of(self, admin: str) -> str:
        try:
            with open(os.path.join(admin, "gitdir"), "rb") as file:
                return os.path.realpath(os.path.dirname(os.path.join(admin, os.fsdecode(file.read().rstrip(b"\n")))))
        except OSError:
            return ""

    def _common(self, path: str) -> str:
        return self._absolute(path, git(path, "rev-parse", "--git-common-dir"))

    @staticmethod
    def _absolute(path: str, answer: str) -> str:
        return os.path.realpath(os.path.join(path, answer))


def _submodules(root: str, admin: str) -> str:
    """Return what only the worktree's own clone of a submodule has, or ""."""
    modules = os.path.join(admin, "modules")
    for folder, _, files in os.walk(modules):
        if "HEAD" not in files or not os.path.isdir(os.path.join(folder, "objects")):
            continue
        name, own = os.path.relpath(folder, modules), f"--git-dir={folder}"
        try:
            lost = git(root, own, "rev-list", "--all", "--reflog", "HEAD", "--not", "--remotes", "--")
        except subprocess.CalledProcessError:
            return f"the commits of its submodule {name!r} cannot be looked up"
        if lost or any(os.path.lexists(os.path.join(folder, entry)) for entry in UNDER_WAY):
            return f"its submodule {name!r} has commits that were not pushed, or something under way"
    return ""


def _changes(path: str, generated: Mapping[str, list[int]], *, ignored: bool = True) -> str:
    """Return what in a worktree's files, or in those of a submodule, is in no commit and was not generated, or ""."""
    if found := _not_committed(path, generated, "--ignored" if ignored else "--ignored=no"):
        return found
    submodules = []
    for entry in filter(None, git(path, "ls-files", "-v", "--stage", "-z").split("\0")):
        facts, _, name = entry.partition("\t")
        tag, mode = facts.split(" ")[:2]
        file = os.path.join(path, name)
        if tag.islower():
            return f"git was told to assume {name!r} unchanged"
        if tag == "S" and os.path.lexists(file):
            return f"git was told to skip {name!r}"
        if mode == GITLINK and os.path.isdir(file) and os.listdir(file):
            if not os.path.isfile(os.path.join(file, ".git")):
                return f"the submodule {name!r} has files"
            if inner := _changes(file, {}, ignored=ignored):
                return f"in the submodule {name!r} {inner}"
            submodules.append(file)
    for folder, folders, files in os.walk(path) if ignored else ():
        folders[:] = [name for name in folders if os.path.join(folder, name) not in submodules]
        if folder != path and ".git" in (*folders, *files):  # `git status` never looks at it
            return f"{os.path.relpath(folder, path)!r} has a .git of its own"
    return ""


def _not_committed(path: str, generated: Mapping[str, list[int]], ignored: str) -> str:
    """Return a change or a file that is in no commit, unless it was generated, or ""."""
    options = ("--porcelain", ignored, "--untracked-files=all", "--ignore-submodules=none")
    exact = [word for setting in EXACT for word in ("-c", setting)]
    for entry in filter(None, git(path, *exact, "status", "-z", *options).split("\0")):
        kind, name = entry[:2], entry[3:]
        prepared = kind in ("??", "!!") and generated.get(name) == _stamp(os.path.join(path, name))
        if not prepared and (kind != "!!" or not _is_generated(path, name)):
            return f"{name!r} is in no commit"
    return ""


def _is_generated(path: str, name: str) -> bool:
    """Return whether an ignored file is Python's bytecode, or lies in a tagged cache."""
    folder = os.path.dirname(name)
    if name.endswith(".pyc") and os.path.basename(folder) == "__pycache__":
        return True
    while folder:
        try:
            with open(os.path.join(path, folder, "CACHEDIR.TAG"), "rb") as tag:
                if tag.read(len(CACHE_TAG)) == CACHE_TAG:
                    return True
        except OSError:
            pass
        folder = os.path.dirname(folder)
    return False


def _stamp(file: str) -> list[int]:
    try:
        found = os.lstat(file)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def git(path: str, *words: str, quiet: bool = False) -> str:
    """Return what git prints in a folder. Raises CalledProcessError."""
    errors = subprocess.PIPE if quiet else None
    argv = ["git", "-C", path, "--no-optional-locks", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, check=True)
    return os.fsdecode(done.stdout).removesuffix("\n")
