"""Review an agent's work: a program of its own, which the supervisor runs in the folder where the agent ran.

Its argument is a task as JSON. It gives a second agent the bead, the criteria and the diff, passes its output on, reads
its answer, and writes what came of it into the job's folder. It ends with status 0 if every criterion is met.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bdauto.agents.cli_adapters.table import read_end, reads_of
from bdauto.agents.cli_adapters.transcript import Transcript, events
from bdauto.agents.local.review import PROMPT, RECORD, Answer, Review, lines_of, read_answer
from bdauto.agents.local.supervisor import write_file
from bdauto.common.sanitize import clean_lines
from bdauto.domain.agent_end import OF_SERVICE

DIFF_BYTES = 80_000
"""Bytes of a diff that a reviewer gets: in one argument of a command there is room for 128 KiB."""
OUTPUT_BYTES = 4 << 20
"""Bytes of the end of a reviewer's output that are read."""


class ReviewTask(msgspec.Struct, frozen=True):
    """What is reviewed, by which command. `agent` is the adapter that reads its output, "" for any other command."""

    folder: str
    words: list[str]
    agent: str
    title: str
    description: str
    criteria: list[str]


def main() -> int:
    """Review, and return the exit status."""
    task, token = msgspec.json.decode(sys.argv[1], type=ReviewTask), secrets.token_hex(8)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{task.folder}/{RECORD}")  # noqa: PTH108 - what its agent may have put there
    output, code = run(task.words, prompt(task, token, diff(os.environ.get("BEAD_BASE", ""))))
    review = judge(task, token, output, failed=code != 0)
    write_file(task.folder, RECORD, msgspec.to_builtins(review))
    print("\n".join(["", *review.lines, review.problem]))
    return 0 if review.met else 1


def prompt(task: ReviewTask, token: str, changes: str) -> str:
    """Return what the reviewer is asked."""
    criteria = "\n".join(f"{number}. {text}" for number, text in enumerate(task.criteria, 1))
    told = {"title": task.title, "description": task.description, "criteria": criteria, "diff": changes}
    return PROMPT.format(token=token, **told)


def diff(base: str) -> str:
    """Return what the work has changed since its base, files that git does not know yet included."""
    if not base:
        return "(there is no git repository, or no commit: look at the files)"
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        with contextlib.suppress(OSError):
            shutil.copyfile((_git("rev-parse", "--git-path", "index") or b"").decode().strip(), index)
        _git("add", "--all", GIT_INDEX_FILE=str(index))
        words = ("diff", "--cached", "--no-color", "--no-ext-diff", "--no-textconv", base)
        changes = _git(*words, GIT_INDEX_FILE=str(index))
    if changes is None:
        return "(git could not tell what has changed: look at the files)"
    return shown(changes, base) if changes else "(nothing has changed)"


def shown(changes: bytes, base: str) -> str:
    """Return a diff as text of at most DIFF_BYTES, without control characters."""
    whole = clean_lines(changes[:DIFF_BYTES].decode(errors="replace")).encode()
    kept = whole[:DIFF_BYTES].decode(errors="ignore")  # what replaces a byte that is no text has three
    cut = len(whole) > DIFF_BYTES or len(changes) > DIFF_BYTES
    return f"{kept}\n[… cut: run `git diff {base}` …]" if cut else kept


def _git(*words: str, **variables: str) -> bytes | None:
    """Return what git prints, None if it fails."""
    done = subprocess.run(["git", *words], env=os.environ | variables, capture_output=True, check=False)  # noqa: S607
    return None if done.returncode else done.stdout


def run(words: list[str], asked: str) -> tuple[bytes, int]:
    """Run the reviewer. Return the end of its output, which is passed on as it comes, and its exit status."""
    filled = [word.replace("{prompt}", asked) for word in words]
    output = b""
    with tempfile.TemporaryFile() as stdin:
        stdin.write(b"" if filled != words else asked.encode())
        stdin.seek(0)
        with subprocess.Popen(filled, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as reviewer:
            assert reviewer.stdout
            while data := os.read(reviewer.stdout.fileno(), 1 << 16):
                output = (output + data)[-OUTPUT_BYTES:]
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        return output, reviewer.returncode


def judge(task: ReviewTask, token: str, output: bytes, *, failed: bool) -> Review:
    """Return what came of a review with this output."""
    now = datetime.now(UTC)
    said = read_end([output], task.agent, now, None, failed=failed)
    answer, problem = read_answer(_text(task.agent, output), token, len(task.criteria))
    if answer is None and said.why:
        problem = f"the review ended with {said.why}: {said.words}"[:500]
    return Review(
        met=answer is not None and not problem and all(judgement.met for judgement in answer.criteria),
        lines=lines_of(answer, task.criteria) if isinstance(answer, Answer) else [],
        problem=problem,
        cost_usd=said.cost_usd,
        why=said.why if answer is None and said.why in OF_SERVICE else None,
        reset_at=said.reset_at,
    )


def _text(agent: str, output: bytes) -> str:
    """Return what a reviewer has said: of a known agent its messages, of any other command all that it printed."""
    return "\n".join(_said(agent, output)) if agent else output.decode(errors="replace")


def _said(agent: str, output: bytes) -> Iterator[str]:
    for event in events([output], Transcript(), reads_of(agent)):
        if event.kind in ("text", "result"):
            yield event.text


if __name__ == "__main__":
    sys.exit(main())
