"""The words of an agent command: placeholders are replaced in them, and no text of a bead becomes code or an option."""

import re
from collections.abc import Sequence
from pathlib import PurePath

from bdauto.agents.prompt import substitute
from bdauto.common.errors import UsageError

IN_WORDS = re.compile(r"\{(id|job|prompt)\}")
WHOLE = re.compile(r"(?:-{0,2}\w[\w.-]*=)?\{prompt\}")
"""A word that may hold a prompt: nothing else, or the value of an option or a variable."""
INTERPRETERS = re.compile(
    r"(?:(?:ba|da|z|k|mk|fi|a|c|tc|xon)?sh|busybox|i?python|pypy|perl|ruby|php|lua|node|nodejs|deno|bun|pwsh|powershell"
    r"|Rscript|julia|osascript|env|su|runuser|script|nix-shell)[\d.-]*t?(?:\.exe)?"
)
"""Programs that run the value of an option in CODE as code. A version may follow the name."""
VALUED = re.compile(r"[-+]\w*[oOXW]|--(?:rcfile|init-file)")
"""Options of INTERPRETERS that take the next word as their value, such as `-o` in `bash -euo pipefail`."""
WORD_FIRST = {"flock", "runuser", "script", "sg", "su"}
"""Programs that take one word, such as a user, before the option that gives a command to a shell."""
CODE = re.compile(r"-\w*[ceEprSC]|-Command|--(?:command|eval|execute|print|run|split-string)")
JOINERS = {
    "adb", "autossh", "clush", "concurrently", "dbclient", "entr", "gmake", "hyperfine", "just", "make", "nodemon",
    "parallel", "pdsh", "plink", "pssh", "rsh", "ssh", "tmux", "watch", "watchexec", "wsl", "wsl.exe",
}  # fmt: skip
"""Programs that join their words and give them to a shell, or that expand them, as make does."""


def fill(words: Sequence[str], bead_id: str, job: str, prompt: str) -> list[str]:
    """Replace the placeholders in a command's words. No text of a bead can turn a word into an option."""
    values = {"id": bead_id, "job": job, "prompt": prompt}
    filled = [substitute(IN_WORDS, word, values) for word in words]
    return [
        f" {new}" if new.startswith("-") and not old.startswith("-") else new
        for old, new in zip(words, filled, strict=True)
    ]


def wants_stdin(words: Sequence[str]) -> bool:
    """Return whether the prompt goes to the command's standard input: it does where no word holds it."""
    return not any("{prompt}" in word for word in words)


def check_words(option: str, words: Sequence[str]) -> None:
    """Raise UsageError if a command would run its prompt as code. Anybody who can write a bead can write the prompt.

    No list of programs is complete. Standard input is always safe.
    """
    for place, word in enumerate(words):
        if "{prompt}" in word and _is_code(word, words[:place]):
            raise UsageError(
                f"{option}: in word {place + 1} a bead's text would be run as code",
                hint="leave {prompt} out: the prompt is then the agent's standard input",
            )


def _is_code(word: str, before: Sequence[str]) -> bool:
    names = [PurePath(one).name for one in before]
    if not WHOLE.fullmatch(word) or JOINERS.intersection(names):
        return True
    options = [word.partition("=")[0]]
    while names and (names[-1].startswith(("-", "+")) or any(map(VALUED.fullmatch, names[-2:-1]))):
        options.append(names.pop())
    if not any(map(CODE.fullmatch, options)):
        return False
    programs = [name for name in names if not name.startswith("-")]
    return any(map(INTERPRETERS.fullmatch, names[-1:])) or not WORD_FIRST.isdisjoint(programs[-2:-1])
