"""Every command of README, tutorial and local-agent.md, as a new user types it: real bd, and a stand-in for the agent.

What needs an account, a network or minutes is a stand-in on PATH: the agents, docker, pipx, uv, make.
"""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bdauto.agents.cli_adapters.permissions import lacks_permission
from bdauto.agents.prompt_settings import parse_command
from bdauto.sandbox.real_bd import environment
from tests.support.manifests import DEPLOY, ROOT, markdown_commands
from tests.support.patience import seconds
from tests.support.real_bd import need

BLOCK = re.compile(r"^ *```(console|sh)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
AGENT = """#!/bin/sh
[ "$1" = --version ] && exec echo "2.1.34 (Claude Code)"
cat > /dev/null
until bd show "$BEAD_ID" --json | grep -q "dispatched: job="; do sleep 0.2; done
bd note "$BEAD_ID" "claimed by agent $BDAUTO_JOB" > /dev/null
while [ -e "$HOME/wait" ]; do sleep 0.2; done
result() {
    printf '{"type": "result", "is_error": %s, "result": "%s", ' "$1" "$2"
    echo '"session_id": "c-1", "num_turns": 3, "total_cost_usd": 0.12}'
}
if [ -e "$HOME/fail" ]; then
    result true "It does not build."
    exit 1
fi
if [ -e "$HOME/ask" ]; then
    question=$(bd create "Which colours?" -l human -d "Found two." --silent)
    bd dep add "$BEAD_ID" "$question" > /dev/null
    bd update "$BEAD_ID" --status open > /dev/null
    result false "I asked."
    exit 0
fi
bd close "$BEAD_ID" --reason done > /dev/null
result false "Wrote the haiku."
"""
REVIEWER = """#!/bin/sh
[ "$1" = --version ] && exec echo "codex-cli 0.147.0"
token=$(sed -n 's/.*"review": "\\([^"]*\\)", "criteria".*/\\1/p' | tail -1)
answer='{\\"review\\": \\"%s\\", \\"criteria\\": [{\\"number\\": 1, \\"met\\": true, \\"evidence\\": \\"seen\\"}]}'
event='{"type": "item.completed", "item": {"id": "i1", "type": "agent_message", "text": "%s"}}'
echo "$event" | sed "s|%s|$(echo "$answer" | sed 's/\\\\/&&/g')|; s|%s|$token|"
"""
DOCKER = """#!/bin/sh
while [ "$1" != my-image ]; do shift; done
shift
exec "$@"
"""
MAKE = f"""#!/bin/sh
grep -q "^$1:" {ROOT}/Makefile && [ "$1" != demo ] || exec bdauto demo
"""
PIPX = "#!/bin/sh\ncase $* in *'.[all]'*) ;; *) exit 1 ;; esac\n"
NPM = "#!/bin/sh\n[ $1 = ci ]\n"
SETTLE = "until ! bdauto runs --json | grep -q '\"ended\": null'; do sleep 0.3; done; bdauto reap > /dev/null"
"""Wait until no job runs, and record the ends."""


@dataclass
class Reader:
    """A new user with a home of their own, who types one command after the other."""

    home: Path
    folder: Path
    names: dict[str, str] = field(default_factory=dict)
    """What stands in the page for an id, and the id."""
    waiting: str = ""
    """The bead that waits for `bdauto run`, or ""."""

    @property
    def env(self) -> dict[str, str]:
        """What a shell of theirs has."""
        programs = [str(self.home / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        return environment(self.home, PATH=os.pathsep.join(programs), BEADS_ACTOR="ann")

    def has(self, name: str, text: str) -> None:
        """Put a program on their PATH."""
        program = self.home / "bin" / name
        program.write_text(text)
        program.chmod(stat.S_IRWXU)

    def types(self, command: str) -> str:
        """Run a command in the shell, and remember the folder where it ends."""
        for name, bead in self.names.items():
            command = re.sub(rf"(?<![\w-]){name}(?![\w-])", bead, command)
        if re.match("bdauto run( |$)", command):
            return self.interrupts(command.replace(":9464", ":0"))
        line = f"{command}\npwd > {self.home}/folder"
        done = subprocess.run(
            ["/bin/bash", "-e", "-c", line],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds(120),
            check=False,
        )
        assert done.returncode == 0, (command, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
        assert "Traceback" not in done.stderr, done.stderr
        if (self.home / "folder").exists():
            self.folder = Path((self.home / "folder").read_text().strip())
        return done.stdout

    def interrupts(self, command: str) -> str:
        """Start `bdauto run`, and press Ctrl-C once the end of the waiting bead's run is in the log."""
        event = f"event=result bead={self.waiting}" if self.waiting else "event=watching"
        with subprocess.Popen(
            ["/bin/bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            timer = threading.Timer(seconds(60), running.kill)
            timer.start()
            assert running.stderr
            told = ""
            for line in running.stderr:
                told += line
                if event in line:
                    running.send_signal(signal.SIGINT)
            timer.cancel()
        self.waiting = ""
        assert running.returncode == 0, (command, told)
        return told

    def creates(self, name: str, title: str = "Another one") -> None:
        """Create a bead that the page calls by this name."""
        made = self.types(f"bd create '{title}' --acceptance 'It is there.' -a agent --silent")
        self.names[name] = made.strip()


def commands(page: Path) -> Iterator[str]:
    """The commands of a page: the lines of its `sh` blocks, and those after `$ ` of its `console` blocks."""
    for kind, block in BLOCK.findall(page.read_text()):
        text = block.replace("\\\n", " ")
        if text.startswith("#!"):
            yield block
            continue
        lines = [line.strip() for line in text.splitlines()]
        yield from (line.removeprefix("$ ") for line in lines if line and (kind == "sh" or line.startswith("$ ")))


@pytest.fixture
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Reader:
    need(request, "bd")
    if shutil.which("git") is None:
        pytest.skip("git is not on PATH")
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    (home / ".gitconfig").write_text("[user]\nname = Ann\nemail = ann@example.com\n")
    made = Reader(home, tmp_path)
    for name, text in {
        "claude": AGENT,
        "codex": REVIEWER,
        "docker": DOCKER,
        "make": MAKE,
        "pipx": PIPX,
        "npm": NPM,
    }.items():
        made.has(name, text)
    return made


def new_tracker(reader: Reader) -> None:
    """Make a project with a tracker, and with a remote that has its branch `main`."""
    reader.types("mkdir work && cd work && git init && bd init --quiet")
    reader.types("git checkout -B main && git commit --allow-empty -m first && git clone --bare . ../origin.git")
    reader.types("git remote add origin $PWD/../origin.git && git fetch origin && git branch -u origin/main")


@pytest.mark.real_bd
def test_readme(reader: Reader) -> None:
    page = [*commands(ROOT / "README.md")]
    for command in page:
        if command.startswith("bdauto cancel"):
            reader.creates("ID")
            reader.types("touch ~/wait; bdauto dispatch --agent claude")
        printed = reader.types(command)
        if command.startswith("bd create"):
            reader.names["ID"] = reader.waiting = printed.split("issue: ")[1].split()[0]
        if command.startswith("bdauto run --agent claude "):
            assert '"closed"' in reader.types("bd show ID --json")
        if command.startswith("bdauto cancel"):
            reader.types("rm ~/wait")
    assert sum(command.startswith("bdauto ") for command in page) > 12


@pytest.mark.real_bd
def test_tutorial(reader: Reader) -> None:
    """With a bead that fails before step 7, one that is cancelled, and one whose agent asks before step 8."""
    before = {
        "bdauto runs --bead": f"bd update shop-n7w --acceptance 'Dark.'; touch ~/fail; bdauto dispatch; {SETTLE}",
        "bdauto cancel": "rm -f ~/fail; touch ~/wait; bdauto dispatch",
        "bd close shop-1q2": f"rm -f ~/wait; touch ~/ask; bd update shop-n7w -s open; bdauto dispatch; {SETTLE}",
    }
    created = iter(("shop-0ab", "shop-n7w"))
    for command in commands(ROOT / "docs" / "tutorial.md"):
        for start, text in before.items():
            if command.startswith(start):
                reader.types(text)
        if command.startswith("bd close shop-1q2"):
            [alert] = [line for line in json.loads(reader.types("bdauto status --json"))["alerts"] if "asks" in line]
            reader.names["shop-1q2"] = alert.split("answer: bd close ")[1].split()[0]
        printed = reader.types(command)
        if command.startswith("bd create"):
            reader.names[next(created)] = printed.split("issue: ")[1].split()[0]
        if command == "bdauto runs":
            assert printed.split()[:6] == ["bead", "began", "took", "result", "cost", "title"]
            assert "closed" in printed
        if command.startswith("bdauto runs --bead"):
            assert "does not build" in printed
    reader.types(f"rm ~/ask; bdauto dispatch; {SETTLE}")
    assert '"closed"' in reader.types("bd show shop-n7w --json")


@pytest.mark.real_bd
def test_local_agent(reader: Reader) -> None:
    new_tracker(reader)
    runs = 0
    for command in commands(ROOT / "docs" / "local-agent.md"):
        if command.startswith("#!"):
            reader.has("in-a-container", command)
            continue
        if command.startswith("bd dep add ID"):
            reader.creates("ID")
        if command.startswith("bdauto run"):
            reader.creates("RUN")
            reader.waiting, runs = reader.names["RUN"], runs + 1
        if command.startswith("bdauto cancel"):
            reader.creates("demo-6it")
            reader.types("touch ~/wait; bdauto dispatch --agent claude")
        printed = reader.types(command)
        if command.startswith("bd create"):
            reader.names["QUESTION"] = printed.split("issue: ")[1].split()[0]
        if command.startswith("bdauto run"):
            assert '"closed"' in reader.types("bd show RUN --json"), command
            reader.names["demo-6it"] = reader.names["RUN"]
        if command.startswith("bdauto cancel"):
            reader.types("rm ~/wait")
    assert runs >= 3


@pytest.mark.real_bd
def test_the_crontab(reader: Reader) -> None:
    """With the environment that cron gives, and the programs where the crontab looks for them."""
    reader.types("mkdir ~/project && cd ~/project && git init && bd init --quiet")
    reader.types("bdauto config init; echo 'agent = \"claude\"' >> ~/.config/bdauto/config.toml")
    reader.creates("ID")
    (reader.home / ".local").mkdir(exist_ok=True)
    (reader.home / ".local" / "bin").symlink_to(reader.home / "bin")
    for name in ("bd", "bdauto"):
        program = shutil.which(name, path=reader.env["PATH"])
        assert program
        (reader.home / "bin" / name).symlink_to(program)
    text = (DEPLOY / "cron" / "crontab").read_text()
    [path] = re.findall(r"^PATH=(.*)$", text, re.MULTILINE)
    env = {"HOME": str(reader.home), "PATH": path.replace("/home/NAME", str(reader.home))}
    lines = [line for line in text.splitlines() if line.startswith("*")]
    for line in lines:
        subprocess.run(["/bin/sh", "-c", line.split(maxsplit=5)[5]], env=env, check=True, timeout=seconds(60))
        reader.types(SETTLE)
    assert '"closed"' in reader.types("bd show ID --json")
    assert "outcome=dispatched" in (reader.home / "bdauto.log").read_text()


def test_no_command_of_these_pages_is_in_a_block_that_is_not_run() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "tutorial.md", ROOT / "docs" / "local-agent.md"):
        rest = BLOCK.sub("", page.read_text())
        blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```", rest, re.MULTILINE | re.DOTALL)
        assert {kind for kind, _ in blocks} <= {"json", "mermaid", "toml"}, (page.name, blocks)
        assert not re.search(r"^ *(?:\$ )?(?:bdauto|bd) [a-z]", "\n".join(text for _, text in blocks), re.MULTILINE)


def test_every_documented_agent_may_run_bd() -> None:
    """An agent that may not run bd could not even sign its bead, and nobody is there to allow it."""
    found = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for words in markdown_commands(page.read_text()):
            if "--agent-command" in words:
                command = words[words.index("--agent-command") + 1]
                found.append(command)
                assert not lacks_permission(parse_command(command).words, lambda _: ""), (page.name, command)
    assert any("claude" in command for command in found)
