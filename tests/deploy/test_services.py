"""The samples for systemd, launchd and cron are valid, and start commands that bdauto has."""

import os
import plistlib
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from tests.deploy.test_commands import parse
from tests.support.manifests import DEPLOY, tool

UNIT = DEPLOY / "systemd" / "bdauto.service"
CRON_LINE = re.compile(r"((?:\S+\s+){5})(.*)")


def cron_lines() -> list[tuple[str, str]]:
    """The schedule and the command of each line of the crontab that is not a variable or a comment."""
    lines = (DEPLOY / "cron" / "crontab").read_text().splitlines()
    found = [CRON_LINE.fullmatch(line) for line in lines if not re.match(r"#|\w+=|$", line)]
    assert all(found)
    return [(match[1].strip(), match[2]) for match in found if match]


def test_the_unit_is_one_that_systemd_accepts(tmp_path: Path) -> None:
    tool("systemd-analyze", "systemd")
    program = tmp_path / ".local" / "bin" / "bdauto"
    program.parent.mkdir(parents=True)
    (tmp_path / "project").mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(stat.S_IRWXU)
    unit = tmp_path / "bdauto.service"
    unit.write_text(UNIT.read_text().replace("%h", str(tmp_path)))
    env = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    verify = ["systemd-analyze", "verify", "--user", "--man=no", str(unit)]
    told = subprocess.run(verify, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (told.returncode, "bdauto.service" in told.stdout + told.stderr) == (0, False), told


def test_the_unit_keeps_its_jobs_and_starts_a_command_of_bdauto() -> None:
    lines = UNIT.read_text().splitlines()
    [command] = [line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=")]
    program, *arguments = shlex.split(command)
    assert program.endswith("/bdauto")
    parse(arguments)
    assert "KillMode=process" in lines
    assert not [line for line in lines if line.startswith("ProtectHome")]


def test_the_launchd_agent_is_valid_and_keeps_its_jobs() -> None:
    found = plistlib.loads((DEPLOY / "launchd" / "bdauto.plist").read_bytes())
    program, *arguments = found["ProgramArguments"]
    assert program.endswith("/bdauto")
    parse(arguments)
    assert found["AbandonProcessGroup"] is True
    assert str(Path(program).parent) in found["EnvironmentVariables"]["PATH"].split(":")


@pytest.mark.parametrize("folder", ["systemd", "launchd", "cron"])
def test_no_sample_holds_a_secret(folder: str) -> None:
    text = "".join(path.read_text() for path in (DEPLOY / folder).iterdir())
    assert not re.search(r"(?i)(api_key|token|password)\s*=", text)


def test_the_crontab_runs_what_it_says_with_the_little_that_cron_gives(tmp_path: Path) -> None:
    """cron runs each command by `/bin/sh -c`, with HOME, and the PATH of the crontab."""
    (tmp_path / "project").mkdir()
    bdauto = tmp_path / ".local" / "bin" / "bdauto"
    bdauto.parent.mkdir(parents=True)
    bdauto.write_text('#!/bin/sh\necho "$PWD: $*"\n')
    bdauto.chmod(stat.S_IRWXU)
    text = (DEPLOY / "cron" / "crontab").read_text()
    [path] = re.findall(r"^PATH=(.*)$", text, re.MULTILINE)
    assert "$" not in path, "cron expands no variable there"
    env = {"HOME": str(tmp_path), "PATH": path.replace("/home/NAME", str(tmp_path)), "SHELL": "/bin/sh"}
    for schedule, command in cron_lines():
        assert "%" not in command, "cron takes % for the end of the line"
        assert all(re.fullmatch(r"[\d*/,-]+", field) for field in schedule.split())
        subprocess.run(["/bin/sh", "-c", command], env=env, check=True, timeout=30)
    project = tmp_path / "project"
    assert (tmp_path / "bdauto.log").read_text() == f"{project}: dispatch\n{project}: reap\n"
    for _, command in cron_lines():
        parse(shlex.split(command.partition("bdauto ")[2].partition(">>")[0]))
