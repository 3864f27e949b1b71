"""An agent command on this machine, through the command line: dispatch, logs, cancel, reap."""

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bdauto.agents.answers import NotStarted
from bdauto.agents.local.jobs import Jobs
from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.prompt_settings import parse_command
from bdauto.sandbox import Sandbox
from tests.support.cli import (
    BDAUTO,
    FLAVOURS,
    REAL_FLAVOURS,
    Done,
    dispatch,
    finish,
    make_world,
    metadata,
    posted,
    run,
    start,
    status,
    tell,
    wait_minutes,
)
from tests.support.fakes import bead as make_bead
from tests.support.patience import seconds
from tests.support.running_loop import Start

RECORDED = 'until $BD show $BEAD_ID --json | grep -q "dispatched: job=$BDAUTO_JOB"; do sleep 0.1; done'
"""Waits until bdauto has recorded the job: of two notes that bd writes at once it may refuse or lose one."""
CLOSES = f"""
{RECORDED}
$BD note $BEAD_ID "claimed by agent $BDAUTO_JOB"
echo "working on $BEAD_ID"
$BD close $BEAD_ID --reason "all done"
"""
HANGS = 'echo "working on $BEAD_ID"; sleep 300'


class Machine:
    """A sandbox or a real workspace, and an agent that is a shell script."""

    def __init__(self, world: Sandbox) -> None:
        self.world = world
        self.jobs = Jobs(world.folder / "jobs")
        self.agent = world.folder / "agent"
        self.does(CLOSES)

    def does(self, script: str) -> None:
        """Write the agent's script; `$BD` is bd."""
        self.agent.write_text(f"#!/bin/sh\nBD={self.world.bd_path}\n{script}\n")
        self.agent.chmod(stat.S_IRWXU)

    def run(self, *words: str, command: str = "", **env: str) -> Done:
        told: dict[str, Any] = {"BEADBOARD_URL": "", "BDAUTO_AGENT_JOBS": str(self.jobs.path), **env}
        if words[0] in ("dispatch", "run") or command:
            told["BDAUTO_AGENT_COMMAND"] = command or str(self.agent)
        return run(self.world, *words, **told)

    def dispatch(self, *words: str, **env: str) -> Done:
        return self.run("dispatch", "--json", *words, **env)

    def job(self, bead: str) -> str:
        return str(metadata(self.world, bead)["job"])

    def ended(self) -> None:
        """Wait until no job runs."""
        until(lambda: not self.jobs.running())


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + seconds(30)
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


@pytest.fixture(params=[*FLAVOURS, *REAL_FLAVOURS])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with make_world(request, request.param) as world:
        made = Machine(world)
        yield made
        for job in made.jobs.running():
            made.jobs.stop(job, "the test's end")
        made.ended()


def test_a_bead_is_dispatched_worked_on_and_closed(machine: Machine) -> None:
    bead = machine.world.create("Fix it")
    done = machine.dispatch()
    assert done.outcomes == {bead: "dispatched"}
    machine.ended()
    assert status(machine.world, bead) == "closed"
    job = machine.job(bead)
    notes = "\n".join(machine.world.notes(bead))
    assert f"dispatched: job={job}" in notes
    assert f"claimed by agent {job}" in notes
    assert metadata(machine.world, bead)["attempt"] == job
    assert metadata(machine.world, bead)["host"] == os.uname().nodename
    logs = machine.run("logs", bead)
    assert (logs.code, f"working on {bead}\n" in logs.out) == (0, True)
    assert f"job={job} state=completed" in logs.err
    assert posted(machine.world) == []


def test_the_built_in_prompt_reaches_the_agent(machine: Machine) -> None:
    machine.does("cat; $BD close $BEAD_ID --reason x")
    bead = machine.world.create("Fix $(it)", acceptance="it `works`")
    machine.dispatch()
    machine.ended()
    output = machine.run("logs", bead).out
    assert "Title: Fix $(it)\n" in output
    assert "it `works`" in output


def test_a_dry_run_starts_nothing_and_shows_the_prompt(machine: Machine) -> None:
    bead = machine.world.create("Fix it")
    done = machine.dispatch("--dry-run", "-v", "--log-format", "text")
    assert done.outcomes == {bead: "dispatched"}
    assert "\nTitle: Fix it\n" in done.err
    assert not machine.jobs.ids()
    assert status(machine.world, bead) == "open"


def test_the_index_of_the_users_checkout_is_left_alone(machine: Machine) -> None:
    """bd 1.0.3 stages its export after a write: a commit that the user is about to make would have it in it."""
    bead, git = machine.world.create(), ["git", "-C", str(machine.world.db.parent)]
    for folder in (machine.world.folder, machine.world.db.parent):
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
    export, state = machine.world.db / "issues.jsonl", machine.world.db / "export-state.json"
    exports = export.exists()
    for file in (export, state):  # or bd waits a minute
        file.unlink(missing_ok=True)
    subprocess.run([*git, "read-tree", "--empty"], check=True)
    assert machine.dispatch().outcomes == {bead: "dispatched"}
    machine.ended()
    assert machine.run("reap", "--json").code == 0
    assert export.exists() == exports
    assert subprocess.run([*git, "ls-files", "--stage"], capture_output=True, check=True).stdout == b""


def test_slots_bound_the_jobs(machine: Machine) -> None:
    machine.does(HANGS)
    beads = [machine.world.create() for _ in range(3)]
    done = machine.dispatch("--max", "5", "--agent-slots", "2")
    assert sorted(done.outcomes.values()) == ["dispatched", "dispatched"]
    assert machine.dispatch("--agent-slots", "2").json["outcome"] == "busy"
    assert sorted(status(machine.world, bead) for bead in beads) == ["in_progress", "in_progress", "open"]
    assert len(machine.jobs.running()) == 2


def test_cancel_blocks_the_bead_and_ends_its_job(machine: Machine) -> None:
    machine.does(HANGS)
    bead = machine.world.create()
    machine.dispatch()
    job = machine.job(bead)
    done = machine.run("cancel", bead, "--json", BEADS_ACTOR="ada")
    assert done.code == 0
    assert done.json == {
        "schema_version": 1,
        "command": "cancel",
        "id": bead,
        "job": job,
        "state": "cancelled",
        "jobs": {job: "cancelled"},
        "blocked": True,
        "deleted": False,
    }
    assert status(machine.world, bead) == "blocked"
    assert machine.world.notes(bead)[-1] == f"cancelled by ada: job={job}"
    assert metadata(machine.world, bead)["quarantined"] == "cancelled by ada"
    assert not machine.jobs.running()
    again = machine.run("cancel", bead)
    assert again.code == 2
    assert "nothing to cancel" in again.complaint
    tell(machine.world, "update", bead, "-s", "open")
    machine.does(CLOSES)
    assert machine.dispatch().outcomes == {bead: "dispatched"}
    machine.ended()
    assert status(machine.world, bead) == "closed"
    assert "working on" in machine.run("logs", bead, "--attempt", "1").out
    assert machine.run("logs", bead, "--attempt", "3").code == 2


def test_cancel_between_claim_and_start_prevents_the_start(sandbox: Sandbox) -> None:
    """The dispatcher waits for the lock under which jobs are started, and has it once `cancel` is through."""
    machine, bead = Machine(sandbox), sandbox.create()
    folder = machine.jobs.make_place()
    tell(sandbox, "update", bead, "-s", "in_progress", "--set-metadata", "bdauto.attempt=feedbeef")
    tell(sandbox, "update", bead, "--set-metadata", f"bdauto.jobs_folder={folder}")
    done = machine.run("cancel", bead)
    assert (done.code, "no job of it runs; the bead is blocked" in done.out) == (0, True)
    settings = LocalAgentSettings(agent_command=parse_command(str(machine.agent)), agent_jobs=machine.jobs.path)
    agent = LocalAgent(settings, sandbox.folder / ".beads", "agent", {})
    assert agent.start(make_bead(id=bead), "feedbeef") == NotStarted("its claim was cancelled")
    assert machine.jobs.ids() == []


def test_an_agent_that_worked_in_another_folder_loses_no_cost(machine: Machine) -> None:
    """A `reap` of its own is not told of --agent-dir."""
    home = machine.world.folder / "home of the agent"
    home.mkdir()
    machine.does(
        f'{RECORDED}; $BD update "$BEAD_ID" --unset-metadata bdauto.attempt --unset-metadata bdauto.result '
        '--unset-metadata bdauto.job >&2; $BD close "$BEAD_ID" --reason x >&2; echo \'{"total_cost_usd": 5.5}\''
    )
    bead = machine.world.create()
    assert machine.dispatch("--agent-dir", str(home)).outcomes == {bead: "dispatched"}
    machine.ended()
    machine.run("reap")
    [ran] = json.loads(str(metadata(machine.world, bead)["runs"]))
    assert ran["cost"] == 5.5


def test_another_jobs_folder_knows_nothing_of_a_claim(machine: Machine) -> None:
    """As cron has it without the shell's XDG_STATE_HOME: it took the job for one that was never started."""
    machine.does("echo '{\"total_cost_usd\": 5.5}'")
    bead = machine.world.create()
    machine.dispatch()
    machine.ended()
    other = {"BDAUTO_AGENT_JOBS": str(machine.world.folder / "others")}
    who = f"host {os.uname().nodename} (jobs folder {metadata(machine.world, bead)['jobs_folder']})"
    assert machine.run("reap", "--json", command="true", **other).outcomes == {bead: "kept"}
    wait_minutes(machine.world, bead, 31)
    assert machine.run("reap", "--json", command="true", **other).outcomes == {bead: "kept"}
    assert f"only {who} can be asked" in machine.run("explain", bead, "--json", **other).json["verdict"]
    assert f"only {who} can be asked" in machine.run("logs", bead, **other).complaint
    done = machine.run("cancel", bead, **other)
    assert (done.code, f"was claimed by {who}" in done.complaint) == (4, True)
    assert status(machine.world, bead) == "in_progress"
    machine.run("reap")
    [ran] = json.loads(str(metadata(machine.world, bead)["runs"]))
    assert (metadata(machine.world, bead)["result"], ran["result"], ran["cost"]) == ("completed", "completed", 5.5)


def test_a_bead_that_its_agent_opens_gets_no_second_agent(machine: Machine) -> None:
    machine.does(f'{RECORDED}; $BD update "$BEAD_ID" -s open --unset-metadata bdauto.retry_at; sleep 300')
    bead = machine.world.create()
    machine.dispatch("--agent-slots", "3")
    until(lambda: status(machine.world, bead) == "open")
    job = machine.job(bead)
    done = machine.dispatch("--agent-slots", "3")
    assert (done.code, done.outcomes, machine.jobs.ids()) == (0, {bead: "reverted"}, [job])
    assert (status(machine.world, bead), machine.job(bead)) == ("in_progress", job)
    wait_minutes(machine.world, bead, 300)
    assert machine.run("reap", "--json").outcomes == {bead: "kept"}
    assert machine.run("cancel", bead).code == 0
    assert not machine.jobs.running()


def test_a_linked_worktree_is_the_same_tracker(machine: Machine) -> None:
    """The agent runs where it was dispatched, and the main checkout knows of its job and its failed check."""
    machine.does('pwd; $BD close "$BEAD_ID" --reason x')
    bead, main = machine.world.create(), machine.world.db.parent
    if not (main / ".git").exists():
        subprocess.run(["git", "init", "-q", str(main)], check=True)
    git = ["git", "-C", str(main), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "--no-verify", "-m", "x"], check=True)
    tree = machine.world.folder / "linked"
    subprocess.run([*git, "worktree", "add", "-q", str(tree)], check=True, capture_output=True)
    env: dict[str, Any] = {"BDAUTO_DB": "", "BEADBOARD_URL": "", "BDAUTO_AGENT_JOBS": str(machine.jobs.path)}
    agent: dict[str, Any] = {"BDAUTO_AGENT_COMMAND": str(machine.agent), "BDAUTO_AGENT_CHECK": "false"}
    there = ("sh", "-c", f'cd {tree} && exec "$@"', "sh")
    done = finish(start(machine.world, "dispatch", "--json", inside=there, **env, **agent), machine.world)
    assert done.outcomes == {bead: "dispatched"}, done
    machine.ended()
    assert machine.run("logs", bead).out.splitlines()[0] == str(tree)
    assert machine.run("reap", "--json").outcomes == {bead: "requeued"}


def test_status_and_explain_find_this_machine_s_jobs_without_being_told(machine: Machine) -> None:
    bead = machine.world.create()
    assert "not configured" in machine.run("status").out
    machine.does(HANGS)
    machine.dispatch()
    seen = machine.run("status").out
    assert "this machine  1 running\n" in seen
    assert "BeadBoard" not in seen
    assert "agent service" not in seen
    assert machine.run("explain", bead, "--json").json["job_state"] == "running"


@pytest.mark.parametrize("command", ["run", "dispatch"])
def test_process_1_of_a_container_waits_for_its_jobs(sandbox: Sandbox, command: str) -> None:
    space = ("unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")
    if shutil.which("unshare") is None or subprocess.run([*space, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces can be made here")
    machine, bead = Machine(sandbox), sandbox.create()
    go = sandbox.folder / "go"
    machine.does(f"echo at work; until [ -e {go} ]; do sleep 0.1; done; $BD close $BEAD_ID --reason x")
    env = sandbox.env(
        BEADBOARD_URL="", BDAUTO_AGENT_JOBS=str(machine.jobs.path), BDAUTO_AGENT_COMMAND=str(machine.agent)
    )
    lines: list[str] = []
    with subprocess.Popen([*space, BDAUTO, command, "-v"], env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            lines.append(line)
            if command == "run" and "event=dispatched" in line and "event=waiting" not in "".join(lines):
                [first] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                os.kill(int(first), signal.SIGTERM)
            if "event=waiting" in line:
                go.touch()
    assert process.returncode == 0, "".join(lines)
    assert "event=waiting" in "".join(lines)
    assert "event=end" in "".join(lines)
    assert status(sandbox, bead) == "closed"


def test_relative_folders_and_links_to_the_tracker_are_as_good_as_any(machine: Machine) -> None:
    machine.does('pwd; $BD note $BEAD_ID "claimed by agent $BDAUTO_JOB"; sleep 300')
    bead, folder = machine.world.create(), machine.world.folder
    (folder / "here").mkdir()
    (folder / "link").symlink_to(machine.world.db)
    relative = {"BDAUTO_AGENT_JOBS": "jobs", "BDAUTO_AGENT_DIR": "here", "BDAUTO_DB": str(folder / "link")}
    assert machine.dispatch(**relative).outcomes == {bead: "dispatched"}
    until(lambda: f"{folder}/here\n" in machine.run("logs", bead).out)
    done = machine.run("cancel", bead)
    assert f"job {machine.job(bead)} is cancelled; the bead is blocked" in done.out


def test_logs_follow_a_job_to_its_end(machine: Machine) -> None:
    machine.does("echo one; sleep 1; echo two")
    bead = machine.world.create()
    machine.dispatch()
    assert machine.run("logs", bead, "--follow").out == "one\ntwo\n"


def test_a_bead_without_a_job_has_no_logs(machine: Machine) -> None:
    bead = machine.world.create()
    done = machine.run("logs", bead)
    assert (done.code, done.out) == (2, "")
    assert "no job of" in done.complaint


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--agent-command", "no-such-agent --x"), "--agent-command 'no-such-agent' is not a program"),
        (("--agent-check", "no-such-check --x"), "--agent-check 'no-such-check' is not a program"),
        (("--agent-dir", "/no/such/dir"), "is not a folder"),
        (("--agent-prompt", "/no/such/file"), "--agent-prompt"),
        (("--agent-worktree",), "not in a git repository"),
        (("--metadata", "{metadata}"), "--metadata does not go with"),
        (("--agent-url", "http://127.0.0.1:1"), "exclude each other"),
        (("--agent-slots", "0"), "--agent-slots"),
    ],
)
def test_what_cannot_work_is_refused_before_a_bead_is_claimed(
    sandbox: Sandbox, words: tuple[str, ...], complaint: str
) -> None:
    machine, bead = Machine(sandbox), sandbox.create()
    env: dict[str, Any] = {"BDAUTO_DB": ""} if "--metadata" in words else {}
    done = machine.dispatch(*(word.format(metadata=sandbox.db / "metadata.json") for word in words), **env)
    assert done.code == 2, done
    assert complaint in done.complaint
    assert status(sandbox, bead) == "open"
    assert not Path(machine.jobs.path).exists()


def test_hostile_things_in_a_job_s_folder_stop_no_command(machine: Machine) -> None:
    """Neither what the agent left beside its output nor an end that is a pipe ends or hangs anything."""
    machine.does(f"""{RECORDED}
        cd {machine.jobs.path}/$BDAUTO_JOB && mkdir output.7 && mkfifo output.8 && ln -s /etc/passwd output.9
        $BD close $BEAD_ID --reason x; echo done""")
    bead, other = machine.world.create("First"), machine.world.create("Second")
    machine.dispatch("--max", "2", "--agent-slots", "2")
    machine.ended()
    end = machine.jobs.path / machine.job(other) / "end.json"
    end.unlink()
    os.mkfifo(end)
    for words in (["status"], ["reap"], ["explain", bead], ["logs", other], ["doctor"]):
        done = machine.run(*words)
        assert "Traceback" not in done.err + done.out, done.err
    logs = machine.run("logs", bead)
    assert (logs.code, "done\n" in logs.out, "root:" in logs.out) == (0, True, False)
    assert metadata(machine.world, bead)["result"] == "completed"
    assert machine.dispatch().json["outcome"] == "idle"


def test_an_agent_that_deletes_its_bead_loses_no_end_and_is_no_outage(machine: Machine) -> None:
    machine.does(f"""{RECORDED}
        $BD delete $BEAD_ID --force >/dev/null
        echo '{{"type": "result", "result": "gone", "total_cost_usd": 0.42, "num_turns": 3}}'""")
    bead = machine.world.create()
    assert machine.dispatch().outcomes == {bead: "dispatched"}
    machine.ended()
    for times in (1, 0):
        done = machine.run("reap")
        said = [event for event in done.events if event["event"] == "result"]
        assert (done.code, len(said)) == (0, times), done
        if said:
            assert (said[0]["bead"], said[0]["status"], float(said[0]["cost_usd"])) == (bead, "deleted", 0.42)
    assert machine.dispatch().code == 0


def test_the_job_of_a_bead_that_its_agent_deleted_is_read_and_ended(machine: Machine) -> None:
    machine.does(f'{RECORDED}; $BD delete "$BEAD_ID" --force >/dev/null; echo after; sleep 300')
    bead = machine.world.create()
    machine.dispatch()
    [job] = machine.jobs.ids()
    until(lambda: machine.run("logs", bead).out.endswith("after\n"))
    done = machine.run("cancel", bead)
    assert (done.code, done.out) == (0, f"{bead}: job {job} is cancelled; the bead is gone\n")
    assert not machine.jobs.running()
    again = machine.run("cancel", bead)
    assert (again.code, f"no bead {bead} in this database" in again.complaint) == (3, True)
    assert machine.run("logs", bead).out.endswith("after\n")
    assert machine.run("logs", f"{bead}x").code == 3


def test_cancel_names_every_job_that_it_ends(either: Sandbox) -> None:
    """Two folders that were one: a backup of the jobs' folder, put back while another job ran."""
    machine, bead = Machine(either), either.create()
    machine.does(HANGS)
    machine.dispatch()
    [first] = machine.jobs.ids()
    (machine.jobs.path / first).rename(either.folder / "away")
    tell(either, "update", bead, "-s", "open", "--unset-metadata", "bdauto.job", "--unset-metadata", "bdauto.attempt")
    assert machine.dispatch("--agent-slots", "2").outcomes == {bead: "dispatched"}
    [second] = machine.jobs.ids()
    (either.folder / "away").rename(machine.jobs.path / first)
    done = machine.run("cancel", bead, "--json")
    assert done.json["jobs"] == {first: "cancelled", second: "cancelled"}
    assert (done.json["job"], done.json["state"]) == (second, "cancelled")


def test_run_waits_for_a_bd_that_cannot_say_where_it_is(sandbox: Sandbox, begin: Start) -> None:
    machine, bead = Machine(sandbox), sandbox.create()
    sandbox.fault("where", "exit", times=3, text="boom", code=1)
    env = {"BEADBOARD_URL": "", "BDAUTO_AGENT_JOBS": str(machine.jobs.path)}
    loop = begin(sandbox, "--agent-command", str(machine.agent), "--listen", "0", **env)
    assert "boom" in loop.wait("outage", target="bd")["error"]
    loop.wait("recovered", target="bd")
    loop.wait("dispatched", bead=bead)
    assert loop.get("/readyz")[0] == 200
    assert loop.stop().code == 0
    assert loop.named("outage", "recovered") == ["outage", "recovered"]
    machine.ended()


def test_a_job_of_an_agent_service_that_is_not_configured_is_not_said_to_have_ended(either: Sandbox) -> None:
    bead = either.create()
    dispatch(either)
    done = run(either, "cancel", bead)
    assert (done.code, status(either, bead)) == (4, "in_progress")
    assert "was handed to an agent service" in done.complaint


def test_a_bead_that_a_person_works_on_is_not_cancelled(either: Sandbox) -> None:
    bead = either.create(assignee="bob")
    tell(either, "update", bead, "-s", "in_progress", actor="bob")
    done = run(either, "cancel", bead)
    assert (done.code, status(either, bead), either.notes(bead)) == (2, "in_progress", [])
    assert f"bdauto has not claimed {bead}" in done.complaint


def test_the_agent_service_cannot_cancel(sandbox: Sandbox) -> None:
    bead = sandbox.create()
    assert run(sandbox, "dispatch", agent=True).code == 0
    done = run(sandbox, "cancel", bead, agent=True)
    assert done.code == 4
    assert "cannot end the job" in done.complaint
    assert status(sandbox, bead) == "in_progress"


def test_logs_of_the_agent_service_s_job(sandbox: Sandbox) -> None:
    bead = sandbox.create()
    assert run(sandbox, "dispatch", agent=True).code == 0
    done = run(sandbox, "logs", bead, agent=True)
    assert done.code == 0
    assert f"job={sandbox.board.job_of(bead).id} state=running" in done.err
