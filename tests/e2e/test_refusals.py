"""What bdauto does not understand it refuses: one line on stderr that says what and where, exit 3, 4 or 5, and nothing
written, nothing posted. bd drifts, hangs and dies here; BeadBoard and the agent service answer nonsense."""

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bdauto.bd.command import PAGE
from bdauto.bd.process import Process
from bdauto.sandbox import FakeReply, Sandbox
from bdauto.sandbox.real_bd import RealBd
from tests.support.cli import (
    REAL_FLAVOURS,
    claimed,
    create_many,
    dispatch,
    metadata,
    posted,
    reap,
    run,
    running,
    started,
    status,
    tell,
    wait_minutes,
    written,
)
from tests.support.patience import duration, seconds
from tests.support.real_bd import Workspaces, harmful

SHORT = duration(2)
"""A time limit that something healthy keeps, and that a test can wait for."""
ALWAYS = -1
"""The times of a fault in a read: on a slow machine a read ahead may be too old to be used, and is made again."""
NONE: dict[str, Any] = {}
BEAD = {"id": "x-1", "title": "t", "status": "open", "priority": 1, "created_at": "2026-04-18T22:35:46Z"}
BEAD |= {"updated_at": "2026-04-18T22:35:46Z", "acceptance_criteria": "yes", "assignee": "agent"}
LISTS = {
    "garbage": ("Segmentation fault", "byte 0"),
    "nothing": ("", "truncated"),
    "an object": ('{"issues": []}', "list of issues"),
    "numbers": ("[1, 2]", "entry 0"),
    "another type": (json.dumps([BEAD | {"priority": "high"}]), "$.priority"),
    "another shape": (json.dumps([{"issue": BEAD}]), "entry 0"),
}
MALFORMED = {
    "no such month": {"updated_at": "2026-13-18T22:35:46Z"},
    "no offset": {"updated_at": "2026-04-18T22:35:46"},
    "an id for an argv": {"id": "--force"},
    "an id for SQL": {"id": "x'; DROP TABLE issues; --"},
    "labels": {"labels": "a,b"},
}


def untouched(sandbox: Sandbox, bead: str, before: dict[str, Any]) -> bool:
    """Whether nothing was written to the bead and nothing was posted."""
    return sandbox.show(bead) == before and posted(sandbox) == []


@pytest.mark.parametrize(
    ("command", "verb", "name"),
    [*(("dispatch", "ready", name) for name in LISTS), ("reap", "list", "garbage"), ("reap", "list", "another shape")],
)
def test_a_list_that_drifted(sandbox: Sandbox, command: str, verb: str, name: str) -> None:
    """None of it can be read: exit 3, with the field or the byte."""
    bead = claimed(sandbox, 60) if command == "reap" else sandbox.create()
    before = sandbox.show(bead)
    text, words = LISTS[name]
    sandbox.fault(verb, "replace", times=ALWAYS, text=text, code=0)
    done = run(sandbox, command)
    assert done.code == 3, done
    assert f"bd {verb}" in done.complaint
    assert words in done.complaint
    assert "bd version" in done.complaint
    assert untouched(sandbox, bead, before)


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("half", NONE, "bd ready: Input data was truncated"),
        ("exit", {"text": "Error: no such database\n"}, "bd ready failed (exit 1): Error: no such database"),
        ("exit", {"text": "\x1b[31mbad\x1b[0m\n\u202e" + "x" * 5000, "code": 2}, "bd ready failed (exit 2): [31mbad"),
        ("exit", {"text": ""}, "bd ready failed (exit 1) with no output"),
        ("die", NONE, "bd ready was killed by signal 9"),
        ("conflict", NONE, "bd ready failed"),
    ],
)
def test_bd_fails(sandbox: Sandbox, kind: Any, more: dict[str, Any], words: str) -> None:
    """Its words, cut and made harmless, on one line."""
    bead = sandbox.create()
    before = sandbox.show(bead)
    sandbox.fault("ready", kind, times=ALWAYS, **more)
    done = dispatch(sandbox)
    assert (done.code, done.json["outcome"]) == (3, "failed")
    assert words in done.complaint
    assert len(done.complaint) < 500
    assert "\x1b" not in done.err
    assert untouched(sandbox, bead, before)


@pytest.mark.parametrize(
    ("verb", "text"), [("kv list", "[]"), ("kv list", "no"), ("version", "{}"), ("version", '{"version": "dev"}')]
)
def test_other_answers_that_drifted(sandbox: Sandbox, verb: str, text: str) -> None:
    """The pause switch and the version are as much asked for as the beads."""
    bead = sandbox.create()
    before = sandbox.show(bead)
    sandbox.fault(verb, "replace", times=ALWAYS, text=text, code=0)
    done = dispatch(sandbox)
    assert done.code == 3
    assert f"bd {verb}" in done.complaint
    assert untouched(sandbox, bead, before)


@pytest.mark.parametrize("text", ['{"rows_affected": "1"}', '{"rows": 1}', '{"rows_affected": true}', "OK, 1 row", ""])
def test_a_claim_whose_answer_is_not_understood_is_not_posted(sandbox: Sandbox, text: str) -> None:
    """It may have been made; the reaper releases it after the grace period."""
    bead = sandbox.create()
    sandbox.fault("sql", "replace", text=text, code=0)
    done = dispatch(sandbox)
    assert done.code == 3
    assert posted(sandbox) == []
    wait_minutes(sandbox, bead, 11)
    assert reap(sandbox, agent=True).outcomes in ({}, {bead: "released"})
    assert status(sandbox, bead) == "open"


def test_a_hanging_bd_is_killed_with_its_children(either: Sandbox) -> None:
    """--bd-timeout bounds every call; its whole process group is gone when bdauto is."""
    bead = either.create()
    for verb in ("ready", "kv list", "version"):
        before = either.show(bead)
        either.fault(verb, "hang", times=ALWAYS)
        done = dispatch(either, "--bd-timeout", SHORT)
        either.clear_faults()
        assert done.code == 3
        assert f"bd {verb} did not answer within {SHORT}" in done.complaint
        assert untouched(either, bead, before)
    assert running([call.pid for call in either.calls]) == []


def test_a_paused_dispatch_does_not_wait_for_the_page_that_it_read_ahead(either: Sandbox) -> None:
    """A queue longer than a page is read on beside the look at the switch: that bd is ended, not waited for."""
    create_many(either, PAGE + 1)
    assert run(either, "pause").code == 0
    either.fault("ready", "hang", skip=1, times=ALWAYS)
    done = dispatch(either)
    assert (done.code, done.json["outcome"], posted(either)) == (0, "paused", [])
    assert running([call.pid for call in either.calls]) == []


def test_a_child_with_a_long_answer_waits_for_nobody() -> None:
    """A pipe would hold it up at 64 KiB: with the lock of an embedded database, which the next bd waits for."""
    process = Process([sys.executable, "-c", "print('x' * 1_000_000)"], {})
    assert process.child.wait(seconds(30)) == 0
    assert process.wait(1) == (0, b"x" * 1_000_000 + b"\n", b"")
    process.end()


def test_a_claim_that_hangs_is_not_posted(either: Sandbox) -> None:
    """Killed after it wrote: nobody knows, so nothing is posted, and the reaper releases it."""
    bead = either.create()
    embedded = either.topology == "embedded"
    either.fault("update" if embedded else "sql", "hang", when="after")
    done = dispatch(either, "--bd-timeout", SHORT)
    assert (done.code, posted(either)) == (3, [])
    assert running([call.pid for call in either.calls]) == []
    assert status(either, bead) == "in_progress"
    wait_minutes(either, bead, 11)
    assert reap(either, agent=True).outcomes == {bead: "released"}


def test_a_reaper_whose_write_hangs(sandbox: Sandbox) -> None:
    """Exit 3, the bead as before or settled."""
    bead = claimed(sandbox, 60, job="j1")
    sandbox.fault("sql", "hang")
    done = reap(sandbox, "--bd-timeout", SHORT)
    assert done.code in (3, 5)
    assert f"did not answer within {SHORT}" in done.err
    assert running([call.pid for call in sandbox.calls]) == []
    assert reap(sandbox).outcomes == {bead: "blocked"}


def test_bd_is_missing(sandbox: Sandbox, tmp_path: Path) -> None:
    """Not found, not executable, a folder: how to name it."""
    sandbox.create()
    text = tmp_path / "bd"
    text.write_text("not a program")
    for path in ("/no/such/bd", str(text), str(tmp_path)):
        for done in (dispatch(sandbox, "--bd", path), dispatch(sandbox, BDAUTO_BD=path), reap(sandbox, "--bd", path)):
            assert done.code == 3
            assert "cannot run" in done.complaint
            assert "--bd or BDAUTO_BD" in done.complaint
    assert posted(sandbox) == []


@pytest.mark.parametrize(
    ("version", "code"), [("1.0.1", 3), ("0.9.0", 3), ("1.0.2", 0), ("1.0.5", 0), ("1.3.0-dev", 0)]
)
def test_a_bd_that_is_too_old(sandbox: Sandbox, version: str, code: int) -> None:
    """1.0.2 and later."""
    bead = sandbox.create()
    sandbox.set_version(version)
    done = dispatch(sandbox)
    assert done.code == code
    assert posted(sandbox) == ([] if code else [bead])
    assert "too old" in done.complaint or not code


def test_the_harmful_version(either: Sandbox) -> None:
    """1.0.4 undoes others' changes on a server: refused there, by dispatch and by reap; embedded it may write."""
    bead, stalled = either.create(), claimed(either, 60, job="j1")
    embedded = either.topology == "embedded"
    either.set_version("1.0.4")
    for done in (reap(either), dispatch(either)):
        assert done.code == (0 if embedded else 3) or (done.code == 5 and not embedded)
        assert embedded or "1.0.5" in done.err
    assert status(either, stalled) == ("blocked" if embedded else "in_progress")
    assert posted(either) == ([bead] if embedded else [])
    assert embedded or written(either) == []


@pytest.mark.parametrize("flavour", REAL_FLAVOURS[:1])
def test_the_real_harmful_version(flavour: str, real_server: Workspaces) -> None:
    program = real_server()
    if not harmful(program.bd_path):
        pytest.skip("this bd does no harm on a server")
    with Sandbox(real=program) as world:
        bead = world.create()
        done = dispatch(world)
        assert done.code == 3
        assert "install 1.0.5 or later" in done.complaint
        assert posted(world) == []
        assert status(world, bead) == "open"


@pytest.mark.parametrize(
    "column",
    [
        {"updated_at": "9999-99-99 00:00:00"},
        {"priority": 77},
        {"id": "--force"},
    ],
    ids=str,
)
def test_a_malformed_bead_among_good_ones(sandbox: Sandbox, column: dict[str, object]) -> None:
    """Skipped, counted, named; the others are handled: exit 5."""
    bad, good = sandbox.create(priority=0), sandbox.create(priority=1)
    sandbox.edit(bad, **column)
    done = dispatch(sandbox)
    assert (done.code, done.json["outcome"], done.outcomes) == (5, "partial", {good: "dispatched"}), done
    assert len(done.json["malformed"]) == 1
    assert "1 malformed" in done.complaint
    assert posted(sandbox) == [good]


def test_a_malformed_bead_in_a_sweep(sandbox: Sandbox) -> None:
    """As in a dispatch."""
    bad, good = claimed(sandbox, 60, job="j1"), claimed(sandbox, 60, job="j2")
    sandbox.edit(bad, priority=77)
    done = reap(sandbox)
    assert (done.code, done.outcomes) == (5, {good: "blocked"})
    assert bad in done.complaint


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_beads_alone_are_no_failure_of_bd(sandbox: Sandbox, fields: dict[str, object]) -> None:
    """A page full of them: named, and the queue behind them is read."""
    good = sandbox.create(priority=3)
    page = [BEAD | {"id": f"x-{n}", "priority": 0} | fields for n in range(PAGE)]
    sandbox.fault("ready", "replace", times=2, text=json.dumps(page), code=0)  # as for ALWAYS, but not for ever
    done = dispatch(sandbox)
    assert (done.code, done.outcomes) == (5, {good: "dispatched"}), done
    assert len(done.json["malformed"]) >= 20


@pytest.fixture
def spoil(request: pytest.FixtureRequest, world: Sandbox) -> Iterator[Callable[[str], None]]:
    """Makes a bead malformed: the real bd nests its metadata 1,100 levels deep, which the stand-in cannot."""
    spoiled = []

    def make(bead: str) -> None:
        if isinstance(world.workspace, RealBd):
            spoiled.append(bead)
            tell(world, "update", bead, "--metadata", '{"a":' * 1_100 + "1" + "}" * 1_100)
        else:
            world.edit(bead, priority=77)

    yield make
    for bead in spoiled:  # the workspace is used again
        tell(world, "update", bead, "-a", "", actor="agent")  # bd 1.3 lets nobody else take it away


def test_one_bead_s_content_never_decides_about_another(world: Sandbox, spoil: Callable[[str], None]) -> None:
    """A malformed bead, and values of bdauto's own metadata that make no sense."""
    deep, odd, good, dead = world.create(priority=4), world.create(priority=1), world.create(), claimed(world, 60)
    stuck = claimed(world, 60)
    spoil(deep)
    spoil(stuck)
    tell(world, "update", odd, "--set-metadata", "bdauto.retry_at=tomorrow", "--set-metadata", "bdauto.attempts=many")
    done = dispatch(world, "--max", "2")
    assert (done.code, done.outcomes) == (5, {odd: "dispatched", good: "busy"}), done
    assert deep in done.complaint
    assert sorted(event["detail"].split("=")[0] for event in done.events if event["event"] == "invalid-metadata") == [
        f"{odd}: bdauto.attempts",
        f"{odd}: bdauto.retry_at",
    ]
    assert metadata(world, odd)["attempts"] == 1
    assert "retry_at" not in metadata(world, odd)
    explained = run(world, "explain", good)
    assert explained.code == 0, explained
    assert "next" in explained.out
    shown = run(world, "explain", deep)
    assert shown.code == 3
    assert deep in shown.complaint
    looked = run(world, "status", "--json")
    assert looked.code == 0, looked
    assert [bead["id"] for bead in looked.json["queue"]] == [good]
    assert len(looked.json["malformed"]) >= 2
    swept = reap(world)
    assert (swept.code, swept.outcomes[dead]) == (5, "released"), swept
    assert stuck in str(swept.json["malformed"])


def test_what_is_only_new_is_fine(sandbox: Sandbox) -> None:
    """Unknown fields and statuses, and later versions' envelope."""
    bead = sandbox.create()
    shown = sandbox.show(bead) | {"new_field": {"a": [1]}, "dependencies": [{"type": "new", "x": 1}]}
    other = BEAD | {"status": "thinking", "priority": 0}
    page = json.dumps({"schema_version": 9, "data": [other, shown]})
    sandbox.fault("ready", "replace", times=ALWAYS, text=page, code=0)
    assert dispatch(sandbox).outcomes == {bead: "dispatched"}


SERVICE = {
    "HTML": (FakeReply(200, "<html><body>Sign in</body></html>"), "is this the right URL?"),
    "another shape": (FakeReply(200, '{"state": "idle"}'), "busy"),
    "a list": (FakeReply(200, "[false]"), "object"),
    "text for a truth value": (FakeReply(200, '{"busy": "false"}'), "$.busy"),
    "null": (FakeReply(200, '{"busy": null}'), "$.busy"),
    "half": (FakeReply(200, '{"busy": fal'), "right URL"),
    "nothing": (FakeReply(200, ""), "truncated"),
    "megabytes": (FakeReply(200, "x" * 3_000_000), "larger than 1 MiB"),
    "500": (FakeReply(500, '{"error": "no"}'), "HTTP 500: no"),
    "404": (FakeReply(404, "<html>Not Found</html>"), "HTTP 404"),
    "401": (FakeReply(401, '{"error": "who?"}'), "HTTP 401: who?"),
    "closed": (FakeReply(drop="early"), "disconnected"),
    "trickle": (FakeReply(trickle=seconds(0.4)), f"no answer within {SHORT}"),
    "silence": (FakeReply(delay=seconds(3)), f"no answer within {SHORT}"),
}


@pytest.mark.parametrize("name", SERVICE)
def test_beadboards_status_is_not_understood(sandbox: Sandbox, name: str) -> None:
    """Before the claim: exit 4, the bead untouched."""
    bead = sandbox.create()
    before = sandbox.show(bead)
    reply, words = SERVICE[name]
    sandbox.board.reply_next("status", reply)
    done = dispatch(sandbox, "--timeout", SHORT)
    assert (done.code, done.json["outcome"]) == (4, "failed")
    assert "BeadBoard" in done.complaint
    assert words in done.complaint
    assert untouched(sandbox, bead, before)
    assert written(sandbox) == []


@pytest.mark.parametrize("name", ["HTML", "text for a truth value", "megabytes", "500", "closed", "silence"])
def test_the_agent_services_health_is_not_understood(sandbox: Sandbox, name: str) -> None:
    """Capacity is not guessed: exit 4, the bead untouched."""
    bead = sandbox.create()
    before = sandbox.show(bead)
    reply, words = SERVICE[name]
    sandbox.board.reply_next("health", reply)
    done = dispatch(sandbox, "--timeout", SHORT, agent=True)
    assert done.code == 4
    assert "agent service" in done.complaint
    assert words in done.complaint
    assert untouched(sandbox, bead, before)


@pytest.mark.parametrize(
    "body", [{"busy": False, "capacity": -1, "active": 0, "queued": 0}, {"busy": False, "capacity": "9"}]
)
def test_impossible_capacities(sandbox: Sandbox, body: dict[str, object]) -> None:
    """Numbers of another type or sign."""
    sandbox.create()
    sandbox.board.reply_next("health", FakeReply(200, json.dumps(body)))
    done = dispatch(sandbox, agent=True)
    assert done.code == 4
    assert "$.capacity" in done.complaint


def test_redirects_are_not_followed(sandbox: Sandbox) -> None:
    """Neither with a question nor with a bead, to whichever host."""
    bead = sandbox.create()
    with Sandbox() as other:
        for route in ("status", "health"):
            sandbox.board.reply_next(route, FakeReply(307, "", {"Location": f"{other.url}/api/agent-status"}))
            done = dispatch(sandbox, agent=True)
            assert done.code == 4
            assert "redirects are not followed" in done.complaint
        sandbox.board.reply_next("dispatch", FakeReply(307, "", {"Location": f"{other.url}/api/agent-dispatch"}))
        assert dispatch(sandbox).outcomes == {bead: "misconfigured"}
        assert other.board.requests == []
    assert status(sandbox, bead) == "open"


def test_nobody_listens(sandbox: Sandbox) -> None:
    """The address, and what to check."""
    bead = sandbox.create()
    before = sandbox.show(bead)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://user:hunter2@127.0.0.1:{taken.getsockname()[1]}"
        done = dispatch(sandbox, "--beadboard-url", url)
    assert done.code == 4
    assert "refused" in done.complaint
    assert "hunter2" not in done.out + done.err
    assert untouched(sandbox, bead, before)


def test_a_trickling_answer_to_the_post_is_unknown(sandbox: Sandbox) -> None:
    """The deadline is for the whole request; the job started."""
    bead = sandbox.create()
    sandbox.board.reply_next("dispatch", FakeReply(trickle=seconds(0.4)))
    done = dispatch(sandbox, "--timeout", SHORT)
    assert (done.code, done.outcomes) == (4, {bead: "unknown"})
    assert sandbox.board.job_of(bead).status == "running"


@pytest.mark.parametrize(
    "reply",
    [FakeReply(500, "x" * 3_000_000), FakeReply(200, "<html>"), FakeReply(401, "{}"), FakeReply(delay=seconds(3))],
)
def test_an_agent_service_without_an_answer_is_no_evidence(sandbox: Sandbox, reply: FakeReply) -> None:
    """Age alone does not condemn its bead, and the sweep says that nobody could be asked: exit 4."""
    bead, _ = started(sandbox, 29, "failed")
    sandbox.board.reply_next("job", reply)
    done = reap(sandbox, "--timeout", SHORT, agent=True)
    assert (done.code, done.outcomes) == (4, {bead: "kept"})
    assert "event=no-evidence" in done.err


def test_a_wrong_token_is_no_evidence(sandbox: Sandbox) -> None:
    """And is not shown."""
    bead, _ = started(sandbox, 29, "failed")
    done = reap(sandbox, agent=True, API_BEARER_TOKEN="wr0ng-token")
    assert done.outcomes == {bead: "kept"}
    assert "HTTP 401" in done.err
    assert "wr0ng" not in done.out + done.err


@pytest.mark.parametrize("kind", ["die", "exit", "conflict"])
def test_a_record_is_written_as_soon_as_bd_can(either: Sandbox, kind: Any) -> None:
    """The job runs, so bd is asked again."""
    bead = either.create()
    embedded = either.topology == "embedded"
    either.fault("update" if embedded else "sql", kind, times=1, match="dispatched: job=")
    done = dispatch(either)
    assert (done.code, done.outcomes) == (0, {bead: "dispatched"})
    assert metadata(either, bead)["job"] == either.board.job_of(bead).id
    assert either.notes(bead).count(f"dispatched: job={either.board.job_of(bead).id}") == 1
    assert posted(either) == [bead]
