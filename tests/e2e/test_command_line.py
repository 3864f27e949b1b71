"""What bdauto is given and what it leaves: options, output, signals, private copies, secrets, hostile text, imports."""

import json
import re
import signal
import subprocess
import sys
import unicodedata
from datetime import datetime
from pathlib import Path

import pytest

from bdauto.sandbox import FakeReply, Sandbox
from tests.support.cli import (
    dispatch,
    environ_of,
    finish,
    metadata,
    posted,
    reap,
    run,
    running,
    start,
    status,
)

HOSTILE = (
    "\x1b]0;owned\x07\x1b[31m red \x9b2J \u202egnp.exe\u2066 [bold]rich[/bold] [/nope] \ufeff "
    "'; DROP TABLE issues; -- `id` $(id) \\ \" 💥"
)
CLEANED = "]0;owned[31m red 2J gnp.exe [bold]rich[/bold] [/nope] '; DROP TABLE issues; -- `id` $(id) \\ \" 💥"


def harmless(text: str) -> bool:
    """Whether nothing in it can steer a terminal: no control or format characters but the ends of lines."""
    return all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in text)


def test_json_is_one_object(sandbox: Sandbox) -> None:
    """The contract: these keys, these types, and nothing else on stdout."""
    bead = sandbox.create()
    done = dispatch(sandbox)
    assert done.json == {
        "schema_version": 1,
        "command": "dispatch",
        "dry_run": False,
        "outcome": "dispatched",
        "detail": None,
        "error": None,
        "malformed": [],
        "beads": [{"id": bead, "outcome": "dispatched", "job": sandbox.board.job_of(bead).id, "detail": None}],
    }
    assert done.out.endswith("}\n")
    assert set(reap(sandbox).json) == set(done.json)


def test_json_of_a_failure(sandbox: Sandbox) -> None:
    """The object is there all the same, and its error is the line on stderr."""
    sandbox.create()
    sandbox.board.reply_next("status", FakeReply(500))
    done = dispatch(sandbox)
    assert (done.code, done.json["outcome"]) == (4, "failed")
    assert done.complaint == f"bdauto: {done.json['error']}"


def test_the_log_begins_and_ends(sandbox: Sandbox) -> None:
    """One line with version and settings, one a decision, one with counts and seconds."""
    bead = sandbox.create()
    first, decision, last = dispatch(sandbox, "--max", "3").events
    assert (first["event"], first["command"], first["max_beads"]) == ("start", "dispatch", "3")
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", first["version"])
    assert (decision["event"], decision["bead"]) == ("dispatched", bead)
    assert (last["event"], last["outcome"], last["dispatched"]) == ("end", "dispatched", "1")
    assert float(last["seconds"]) > 0


def test_the_log_as_json(sandbox: Sandbox) -> None:
    """One object a line; the complaint stays a line for people."""
    sandbox.create()
    done = run(sandbox, "dispatch", "-v", BDAUTO_LOG_FORMAT="json")
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert lines[0]["event"] == "start"
    assert lines[-1]["event"] == "end"
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    assert "debug" in {line["level"] for line in lines}


def test_for_people(sandbox: Sandbox) -> None:
    """A few lines, without colour where there is no terminal."""
    bead = sandbox.create()
    done = run(sandbox, "dispatch", "--dry-run")
    head, row = done.out.splitlines()
    assert head == "dispatch: dispatched (dry run: nothing was written)"
    assert row.split()[0] == bead
    assert harmless(done.out)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["dispatch", "--max", "0"], "--max"),
        (["dispatch", "--timeout", "30"], "--timeout '30' is not a duration: write it as 500ms, 90s, 30m, 1h30m or 2d"),
        (["dispatch", "--bd-timeout", "0s"], "--bd-timeout"),
        (["dispatch", "--beadboard-url", "ftp://x"], "not a URL"),
        (["dispatch", "--beadboard-url", ""], "--beadboard-url or BEADBOARD_URL"),
        (["dispatch", "--db", "/no/such/folder"], "--db"),
        (["dispatch", "--metadata", "/no/such/file"], "--metadata"),
        (["dispatch", "--assignee", "a' OR '1'='1"], "--assignee"),
        (["dispatch", "--actor", "-rf /"], "--actor"),
        (["dispatch", "--agent-url", "http://x", "--agent-token-file", "/no/such/file"], "--agent-token-file"),
        (["dispatch", "--nonsense"], "--nonsense"),
        (["reap", "--threshold", "half an hour"], "1h30m"),
        (["reap", "--grace", "-5m"], "duration"),
        (["reap", "--on-stall", "shrug"], "shrug"),
        (["reap", "--max-reap", "-1"], "--max-reap"),
        (["nonsense"], "nonsense"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_usage(sandbox: Sandbox, args: list[str], words: str) -> None:
    """Exit 2, one line that names the option; nothing read that matters, nothing written, nothing posted."""
    bead = sandbox.create()
    done = run(sandbox, *args, BDAUTO_DB="" if "--metadata" in args else str(sandbox.db))
    assert done.code == 2, done
    assert words in done.complaint
    assert not done.out.removeprefix("dispatch: failed\n")
    assert (status(sandbox, bead), posted(sandbox)) == ("open", [])


def test_a_flag_wins_over_the_environment(sandbox: Sandbox) -> None:
    """And the environment over the default."""
    sandbox.board.capacity = 9
    for _ in range(4):
        sandbox.create()
    assert len(dispatch(sandbox, "-n", BDAUTO_MAX="3").outcomes) == 3
    assert len(dispatch(sandbox, "-n", "--max", "2", BDAUTO_MAX="3").outcomes) == 2


def test_another_assignee_and_actor(sandbox: Sandbox) -> None:
    """Whose beads, and as whom bd is called."""
    bead, _ = sandbox.create(assignee="robot"), sandbox.create()
    assert dispatch(sandbox, "--assignee", "robot", BEADS_ACTOR="me").outcomes == {bead: "dispatched"}
    assert {call.actor for call in sandbox.calls} == {"me"}
    reap(sandbox)
    assert sandbox.calls[-1].actor == "beads-reaper"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interrupted(sandbox: Sandbox, tmp_path: Path, number: signal.Signals) -> None:
    """Exit 130, bd gone, the private folder gone, nothing written."""
    bead = sandbox.create()
    pause = sandbox.pause("ready")
    metadata_file = str(sandbox.db / "metadata.json")
    process = start(sandbox, "dispatch", BDAUTO_DB="", BDAUTO_METADATA=metadata_file, TMPDIR=str(tmp_path))
    pause.wait()
    assert list(tmp_path.iterdir())
    process.send_signal(number)
    done = finish(process, sandbox)
    assert done.code == 130
    assert running([call.pid for call in sandbox.calls]) == []
    assert list(tmp_path.iterdir()) == []
    assert (status(sandbox, bead), posted(sandbox)) == ("open", [])


def test_a_private_copy_of_metadata(sandbox: Sandbox, tmp_path: Path) -> None:
    """0600 in a 0700 folder, without bd's export, nothing beside FILE, gone at the end."""
    source, temporary = tmp_path / "etc", tmp_path / "tmp"
    source.mkdir()
    temporary.mkdir()
    (source / "metadata.json").write_bytes((sandbox.db / "metadata.json").read_bytes())
    source.chmod(0o555)
    bead = sandbox.create()
    pause = sandbox.pause("sql")
    process = start(
        sandbox, "dispatch", "--json", "--metadata", str(source / "metadata.json"), BDAUTO_DB="", TMPDIR=str(temporary)
    )
    pause.wait()
    call = sandbox.calls[-1]
    used = Path(call.argv[call.argv.index("--db") + 1])
    assert temporary in used.parents
    assert used.stat().st_mode & 0o777 == 0o700
    assert (used / "metadata.json").stat().st_mode & 0o777 == 0o600
    assert "BD_EXPORT_AUTO=false" in environ_of(call.pid).splitlines()
    pause.release()
    assert finish(process, sandbox).outcomes == {bead: "dispatched"}
    assert [path.name for path in source.iterdir()] == ["metadata.json"]
    assert list(temporary.iterdir()) == []


def test_the_mode_is_asked_of_the_right_folder() -> None:
    """bd 1.0.2's `where` does not heed --db, and could tell another workspace's mode: BEADS_DIR names the folder."""
    with Sandbox(topology="embedded") as sandbox:
        bead = sandbox.create()
        pause = sandbox.pause("where")
        process = start(sandbox, "dispatch", "--json")
        pause.wait()
        assert f"BEADS_DIR={sandbox.db}" in environ_of(sandbox.calls[-1].pid).splitlines()
        pause.release()
        assert finish(process, sandbox).outcomes == {bead: "dispatched"}


def test_a_users_own_folder_keeps_its_export(sandbox: Sandbox) -> None:
    """Without --metadata bd's configuration is left alone."""
    sandbox.create()
    pause = sandbox.pause("ready")
    process = start(sandbox, "dispatch")
    pause.wait()
    assert "BD_EXPORT_AUTO" not in environ_of(sandbox.calls[-1].pid)
    pause.release()
    assert finish(process, sandbox).code == 0


def test_secrets_stay_where_they_are(sandbox: Sandbox, tmp_path: Path) -> None:
    """Not in bd's environment, in an argv, in a note, in the output or the log, not even with -v."""
    token_file = tmp_path / "token"
    token_file.write_text(f"{sandbox.token}\n")
    bead = sandbox.create()
    secrets = {"BDAUTO_NOTIFY_URL": "json://user:s3cr3t@127.0.0.1:1/", "BDAUTO_PUSHGATEWAY": ""}
    pause = sandbox.pause("sql")
    process = start(sandbox, "dispatch", "-v", agent=True, **secrets)
    pause.wait()
    environment = environ_of(sandbox.calls[-1].pid)
    assert "HOME=" in environment
    assert "BEADBOARD_URL" not in environment
    assert sandbox.token not in environment
    assert "s3cr3t" not in environment
    pause.release()
    done = finish(process, sandbox)
    assert "s3cr3t" not in done.out + done.err
    done = run(sandbox, "reap", "-v", BDAUTO_AGENT_URL=sandbox.agent_url, BDAUTO_AGENT_TOKEN_FILE=str(token_file))
    assert done.code == 0
    assert "is running" in done.out
    assert sandbox.token not in str(sandbox.calls) + "\n".join(sandbox.notes(bead))


def test_hostile_beads(sandbox: Sandbox) -> None:
    """Titles, notes and errors with escapes, markup, NULs and a megabyte: shown and stored harmless."""
    bead = sandbox.create()
    huge = HOSTILE + "\0" + "x" * 1_000_000
    sandbox.edit(
        bead,
        title=huge,
        notes=HOSTILE,
        created_by=HOSTILE,
        description=huge,
        metadata=json.dumps({"bdauto.error": HOSTILE}),
    )
    sandbox.board.reply_next("dispatch", FakeReply(502, json.dumps({"error": HOSTILE * 100})))
    for done in (
        run(sandbox, "dispatch", "-v", "--trusted-creator", "me", "--dry-run"),
        run(sandbox, "dispatch", "-v"),
    ):
        assert harmless(done.out)
        assert harmless(done.err)
        assert len(done.err) < 5000
    assert status(sandbox, bead) == "open"
    note = sandbox.notes(bead)[-1]
    assert note.startswith("dispatch failed HTTP 502:")
    assert harmless(note)
    assert len(note) <= 330
    assert HOSTILE in str(sandbox.show(bead)["notes"])
    assert str(sandbox.show(bead)["title"]) == huge


def test_hostile_answers(world: Sandbox) -> None:
    """An error body reaches the real database, too, cut and cleaned; the quotes in it stay text."""
    bead = world.create()
    world.board.reply_next("dispatch", FakeReply(502, HOSTILE))
    assert dispatch(world).outcomes == {bead: "unavailable"}
    [note] = world.notes(bead)
    assert note == f"dispatch failed HTTP 502: {CLEANED}"
    assert metadata(world, bead)["error"] == note.removeprefix("dispatch failed ")


@pytest.mark.parametrize("job", [HOSTILE, "x" * 101, "a b", "", "../../etc"])
def test_hostile_jobs(sandbox: Sandbox, job: str) -> None:
    """A job id is one, or the outcome is unknown."""
    bead = sandbox.create()
    sandbox.board.reply_next("dispatch", FakeReply(200, json.dumps({"job_id": job})))
    done = dispatch(sandbox)
    assert (done.code, done.outcomes) == (4, {bead: "unknown"})
    assert harmless(done.err)
    assert "job" not in metadata(sandbox, bead)


def test_full_notes(either: Sandbox) -> None:
    """A note that does not fit is left out; the bead is dispatched and recorded."""
    bead = either.create()
    either.board.signs = False
    either.edit(bead, notes="x" * 65_530)
    assert dispatch(either).outcomes == {bead: "dispatched"}
    assert metadata(either, bead)["job"] == either.board.job_of(bead).id


SHORT = """
import sys
from datetime import timedelta
from bdauto.controllers import claims
claims.RECORD_RETRY = timedelta(seconds=1)
from bdauto.__main__ import main
main()
"""


@pytest.mark.parametrize("kind", ["die", "exit"])
def test_a_record_that_cannot_be_written(sandbox: Sandbox, kind: str) -> None:
    """bd is down after the POST, for longer than it is asked again: exit 3, bead and job in the log at error level, and
    the next cycles leave the bead alone. The time, a minute, is cut to a second here."""
    bead = sandbox.create()
    sandbox.fault("sql", kind, match="dispatched: job=", times=-1)  # type: ignore[arg-type]
    done = subprocess.run(
        [sys.executable, "-c", SHORT, "dispatch", "--json"],
        env=sandbox.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    job = sandbox.board.job_of(bead).id
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    [error] = [line for line in done.stderr.splitlines() if "level=error" in line]
    assert bead in error
    assert job in error
    assert json.loads(done.stdout)["beads"][0]["job"] == job
    sandbox.clear_faults()
    assert dispatch(sandbox).json["outcome"] == "idle"
    assert posted(sandbox) == [bead]


def test_an_idle_cycle_imports_little(sandbox: Sandbox) -> None:
    """Start-up is most of what an idle cycle costs."""
    env = sandbox.env()
    command = [sys.executable, "-X", "importtime", "-m", "bdauto"]
    for args in (["dispatch"], ["reap"]):
        done = subprocess.run([*command, *args], env=env, capture_output=True, text=True, check=True)
        modules = {
            line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
        }
        assert "msgspec" in modules
        heavy = {
            name
            for name in modules
            if name.split(".")[0] in ("httpx", "rich", "prometheus_client", "apprise", "asyncio")
        }
        assert not heavy


@pytest.mark.parametrize("command", ["dispatch", "reap"])
def test_help_names_variables_and_defaults(sandbox: Sandbox, command: str) -> None:
    """Every option that has a variable shows it."""
    done = run(sandbox, command, "--help", COLUMNS="200")
    for word in ("BDAUTO_DB", "BDAUTO_BD_TIMEOUT", "1m", "BEADS_ACTOR", "BDAUTO_ASSIGNEE", "BDAUTO_LOG_FORMAT"):
        assert word in done.out
    assert ("BEADBOARD_URL" in done.out) is (command == "dispatch")
    assert ("BDAUTO_THRESHOLD" in done.out) is (command == "reap")
