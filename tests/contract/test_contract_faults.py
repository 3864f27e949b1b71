"""What tests can tell the sandbox's bd to do wrong."""

import json
import os
import signal
import subprocess

import pytest

from bdauto.sandbox import Sandbox
from bdauto.sandbox.sandbox import When
from tests.support.patience import seconds

Done = subprocess.CompletedProcess[str]


def start(sandbox: Sandbox, *args: str) -> subprocess.Popen[str]:
    """Start a process of bd, in a group of its own."""
    argv = [str(sandbox.bd_path), "--db", str(sandbox.db), *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, env=sandbox.env(), stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def call(sandbox: Sandbox, *args: str) -> Done:
    """One call of bd."""
    process = start(sandbox, *args)
    out, err = process.communicate(timeout=seconds(30))
    return Done(args, process.returncode, out, err)


def claim(bead: str) -> tuple[str, ...]:
    """Arguments of a write."""
    return "sql", "--json", f"UPDATE issues SET status = CAST(X'{b'in_progress'.hex()}' AS CHAR) WHERE id = '{bead}'"


def test_exit_after_some_calls(sandbox: Sandbox) -> None:
    sandbox.fault("version", "exit", skip=1, times=2, text="boom\n", code=7)
    assert [call(sandbox, "version").returncode for _ in range(4)] == [0, 7, 7, 0]


def test_a_fault_may_wait_for_a_text_in_sql(sandbox: Sandbox) -> None:
    bead = sandbox.create()
    sandbox.fault("sql", "exit", match="'in_progress'", text="no\n")
    assert call(sandbox, "sql", "SELECT 1").returncode == 0
    assert call(sandbox, *claim(bead)).stderr == "no\n"
    assert call(sandbox, *claim(bead)).returncode == 0


@pytest.mark.parametrize(("when", "status"), [("before", "open"), ("after", "in_progress")])
def test_die_and_conflict_before_or_after_the_write(sandbox: Sandbox, when: When, status: str) -> None:
    bead = sandbox.create()
    sandbox.fault("sql", "conflict", when=when)
    answer = call(sandbox, *claim(bead))
    assert "Error 1213 (40001): serialization failure" in json.loads(answer.stdout)["error"]
    assert sandbox.show(bead)["status"] == status
    sandbox.fault("sql", "die", when=when)
    assert call(sandbox, *claim(bead)).returncode == -signal.SIGKILL
    assert sandbox.show(bead)["status"] == status


def test_a_write_that_is_silently_lost(sandbox: Sandbox) -> None:
    bead = sandbox.create()
    sandbox.fault("note", "lost")
    assert call(sandbox, "note", bead, "x", "--json").returncode == 0
    assert sandbox.notes(bead) == []


def test_other_answers(sandbox: Sandbox) -> None:
    whole = call(sandbox, "kv", "list", "--json").stdout
    sandbox.fault("kv list", "half")
    sandbox.fault("kv list", "replace", text="[]", code=0)
    assert call(sandbox, "kv", "list", "--json").stdout == whole[: len(whole) // 2]
    assert call(sandbox, "kv", "list", "--json").stdout == "[]"


def test_a_pause_stops_the_world(sandbox: Sandbox) -> None:
    bead = sandbox.create()
    pause = sandbox.pause("sql", when="after")
    process = start(sandbox, *claim(bead))
    pause.wait()
    assert sandbox.show(bead)["status"] == "in_progress"
    assert process.poll() is None
    pause.release()
    assert process.wait(seconds(30)) == 0
    process.communicate()


def test_a_pause_nobody_reaches(sandbox: Sandbox) -> None:
    with pytest.raises(TimeoutError):
        sandbox.pause("sql").wait(timeout=0.01)


def test_a_hang_has_a_child_and_ends_with_its_group(sandbox: Sandbox) -> None:
    sandbox.fault("version", "hang", text="waiting\n")
    process = start(sandbox, "version")
    assert process.stderr is not None
    assert process.stderr.readline() == "waiting\n"
    process.kill()
    assert process.wait(seconds(10)) == -signal.SIGKILL
    os.killpg(process.pid, signal.SIGKILL)  # which fails when nobody is left in it
    assert process.communicate(timeout=seconds(10)) == ("", "")  # which ends only when nobody holds the pipes any more


def test_versions_and_calls(sandbox: Sandbox) -> None:
    sandbox.set_version("1.0.4")
    answer = call(sandbox, "--actor", "me", "version", "--json")
    assert json.loads(answer.stdout)["version"] == "1.0.4"
    (seen,) = sandbox.calls
    assert (seen.verb, seen.actor, seen.argv[-1]) == ("version", "me", "--json")


def test_nothing_is_left_behind() -> None:
    with Sandbox() as sandbox:
        folder = sandbox.folder
        pause = sandbox.pause("version")
        process = start(sandbox, "version")
        pause.wait()
    assert process.wait(seconds(30)) == 0
    process.communicate()
    assert not folder.exists()
