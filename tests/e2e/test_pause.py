"""`bdauto pause` and `bdauto resume`, for every dispatcher and reaper of a tracker; and one-shot metrics."""

import getpass
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from bdauto.sandbox import FakeReply, Sandbox
from tests.support.cli import claimed, dispatch, reap, run, status, tell, written
from tests.support.receiver import Receiver

KEY = "bdauto.paused"


def switch(sandbox: Sandbox) -> dict[str, Any]:
    """The switch as it stands in the tracker."""
    value: dict[str, Any] = json.loads(json.loads(sandbox.run("kv", "list", "--json").out)[KEY])
    return value


def test_a_pause_holds_for_both_jobs_until_it_is_resumed(world: Sandbox) -> None:
    bead, stalled = world.create(), claimed(world, 60, job="gone")
    done = run(world, "pause", "database migration", BEADS_ACTOR="ann")
    assert (done.code, done.out) == (0, "paused by ann: database migration\n")
    for report in (dispatch(world), reap(world)):
        assert (report.code, report.json["outcome"]) == (0, "paused")
        assert report.json["detail"] == "paused by ann: database migration"
    assert (status(world, bead), status(world, stalled)) == ("open", "in_progress")
    assert world.posts == []
    assert dispatch(world, "--ignore-pause").outcomes == {bead: "dispatched"}
    done = run(world, "resume")
    assert done.code == 0
    assert done.out == "resumed; it was paused by ann: database migration\n"
    assert reap(world).outcomes[stalled] == "blocked"


def test_what_stands_in_the_tracker(either: Sandbox) -> None:
    done = run(either, "pause", "two\nlines \x1b[31m", "--for", "2h", "--json")
    assert done.code == 0
    found = switch(either)
    assert found == {key: done.json[key] for key in ("reason", "by", "since", "until")}
    assert found["reason"] == "two lines [31m"
    assert found["by"] == getpass.getuser()
    since, until = (datetime.fromisoformat(found[key]) for key in ("since", "until"))
    assert until - since == timedelta(hours=2)
    assert abs(datetime.now(UTC) - since) < timedelta(minutes=1)
    assert (done.json["schema_version"], done.json["command"], done.json["outcome"]) == (1, "pause", "paused")


def test_an_expired_pause_does_not_hold(sandbox: Sandbox) -> None:
    bead = sandbox.create()
    past = {"reason": "old", "by": "ann", "since": "2020-01-01T00:00:00Z", "until": "2020-01-01T01:00:00Z"}
    tell(sandbox, "kv", "set", KEY, json.dumps(past))
    assert dispatch(sandbox).outcomes == {bead: "dispatched"}
    assert run(sandbox, "resume").out == "not paused\n"


def test_resume_without_a_pause_writes_nothing(sandbox: Sandbox) -> None:
    before = written(sandbox)
    done = run(sandbox, "resume", "--json")
    assert (done.code, done.json) == (0, {"schema_version": 1, "command": "resume", "outcome": "not_paused"})
    assert written(sandbox) == before


def test_a_later_pause_replaces_an_earlier_one(sandbox: Sandbox) -> None:
    run(sandbox, "pause", "one", "--for", "1h")
    run(sandbox, "pause", "two")
    assert switch(sandbox)["reason"] == "two"
    assert switch(sandbox)["until"] is None


def test_a_pause_that_was_not_written_is_an_error(sandbox: Sandbox) -> None:
    sandbox.fault("sql", "lost", times=-1)
    done = run(sandbox, "pause", "why")
    assert done.code == 3
    assert done.out == ""


def test_a_bd_that_must_not_write_is_not_asked_to(sandbox: Sandbox) -> None:
    sandbox.set_version("1.0.4")
    done = run(sandbox, "pause", "why")
    assert done.code == 3
    assert "1.0.4" in done.complaint
    assert written(sandbox) == []


def test_a_duration_that_is_none_is_a_usage_error(sandbox: Sandbox) -> None:
    for text in ("2", "soon", "0s", "-1h"):
        assert run(sandbox, "pause", "--for", text).code == 2


def gateway(receiver: Receiver) -> tuple[str, str]:
    return "--pushgateway", f"http://{receiver.address}"


def test_one_shot_commands_push_their_metrics(sandbox: Sandbox) -> None:
    sandbox.board.capacity = 4
    first, second, waiting = sandbox.create(), sandbox.create(), sandbox.create(acceptance="")
    with Receiver() as receiver:
        assert dispatch(sandbox, "--max", "2", *gateway(receiver), agent=True).outcomes.keys() == {first, second}
        sandbox.age(first, 60)
        assert reap(sandbox, "--max-reap", "1", *gateway(receiver)).outcomes[first] == "blocked"
        found, swept = receiver.pushed("dispatch"), receiver.pushed("reap")
    assert found["bdauto_dispatches_total[dispatched]"] == 2
    assert found["bdauto_cycle_duration_seconds_count[dispatch]"] == 1
    assert [found[f"bdauto_beads[{state}]"] for state in ("eligible", "waiting", "in_progress")] == [0, 1, 2]
    assert [found[f"bdauto_up[{target}]"] for target in ("bd", "beadboard", "agent")] == [1, 1, 1]
    assert (found["bdauto_capacity_free"], found["bdauto_paused"], found["bdauto_starved"]) == (2, 0, 0)
    assert (swept["bdauto_reaps_total[blocked]"], swept["bdauto_reaps_total[kept]"]) == (1, 1)
    assert swept["bdauto_cycle_duration_seconds_count[reap]"] == 1
    assert [swept[f"bdauto_beads[{state}]"] for state in ("in_progress", "stalled")] == [1, 0]
    assert waiting not in str(receiver.received)


def test_a_failing_command_pushes_its_metrics_and_keeps_its_exit_status(sandbox: Sandbox) -> None:
    bead = sandbox.create()
    sandbox.age(bead, 10)
    sandbox.create()
    sandbox.board.reply_next("dispatch", FakeReply(502, "down"), times=9)
    with Receiver() as receiver:
        assert dispatch(sandbox, *gateway(receiver)).code == 4
        assert receiver.pushed("dispatch")["bdauto_dispatches_total[unavailable]"] == 2
        assert "bdauto_last_success_timestamp_seconds[dispatch]" not in receiver.pushed("dispatch")
        sandbox.fault("*", "exit", text="boom", times=-1)
        assert dispatch(sandbox, *gateway(receiver)).code == 3
        assert receiver.pushed("dispatch")["bdauto_up[bd]"] == 0


def test_paused_shows_in_the_metrics(sandbox: Sandbox) -> None:
    run(sandbox, "pause", "why")
    with Receiver() as receiver:
        assert dispatch(sandbox, *gateway(receiver)).code == 0
        assert receiver.pushed("dispatch")["bdauto_paused"] == 1


def test_starved_is_old_work_and_room_and_nothing_dispatched(sandbox: Sandbox) -> None:
    for _ in range(4):
        sandbox.age(sandbox.create(), 30)
    sandbox.board.reply_next("dispatch", FakeReply(502, "down"), times=3)
    with Receiver() as receiver:
        for code, starved in ((4, 1), (0, 0)):
            assert dispatch(sandbox, *gateway(receiver)).code == code
            assert receiver.pushed("dispatch")["bdauto_starved"] == starved


def test_a_dry_run_pushes_nothing(sandbox: Sandbox) -> None:
    sandbox.create()
    with Receiver() as receiver:
        assert dispatch(sandbox, "--dry-run", *gateway(receiver)).code == 0
    assert receiver.received == []


def test_metrics_that_cannot_be_pushed_do_not_matter(sandbox: Sandbox) -> None:
    bead = sandbox.create()
    done = dispatch(
        sandbox, "--pushgateway", "http://ann:s3cret@127.0.0.1:9", "--notify-url", "json://ann:s3cret@127.0.0.1:9"
    )
    assert done.outcomes == {bead: "dispatched"}
    assert done.code == 0
    assert "s3cret" not in done.out + done.err
    assert [event["target"] for event in done.events if event["event"] == "metrics-failed"] == ["pushgateway"]
