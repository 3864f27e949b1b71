"""The agent service without BeadBoard: a bead's way from the POST to its end, on the sandbox and on the real bd."""

from collections.abc import Iterator

import pytest

from bdauto.sandbox import FakeReply, Sandbox
from tests.support.cli import REAL_FLAVOURS, Done, make_world, metadata, run, status, wait_minutes


@pytest.fixture(params=["server", *REAL_FLAVOURS])
def world(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox, or a real bd beside its services."""
    with make_world(request, str(request.param)) as sandbox:
        yield sandbox


def alone(sandbox: Sandbox, *args: str, **env: str) -> Done:
    """Run `bdauto` with the agent service alone."""
    return run(sandbox, *args, agent=True, BEADBOARD_URL="", **env)


def test_a_bead_is_posted_and_its_end_is_recorded(world: Sandbox) -> None:
    bead = world.create(title="Write $(it) down")
    done = alone(world, "dispatch", "--json", "--agent-name", "reviewer", "--max-cost-per-run", "0.50")
    assert done.outcomes == {bead: "dispatched"}, done
    [body] = world.board.executed
    prompt = str(body.pop("prompt"))
    assert body == {"agent": "reviewer", "max_budget_usd": 0.5, "timeout_seconds": 2700}
    assert "Title: Write $(it) down" in prompt
    assert {path for _, path in world.board.requests} == {"/health", "/execute"}, "BeadBoard is not asked"
    job = world.board.job_of(bead).id
    assert metadata(world, bead)["job"] == job
    assert alone(world, "status", "--json").json["agent"]["active"] == 1
    world.board.finish(job, "all done")
    assert alone(world, "reap", "--json").code == 0
    assert metadata(world, bead)["result"] == "completed"
    assert "all done" in alone(world, "logs", bead).out
    assert len(world.board.posts) == 1


def test_a_lost_answer_is_unknown_and_the_signed_job_is_found(world: Sandbox) -> None:
    """The POST is not repeated. The agent signs with the job's id, and the reaper records it."""
    bead = world.create()
    world.board.reply_next("execute", FakeReply(drop="late"))
    done = alone(world, "dispatch", "--json")
    assert (done.code, done.outcomes) == (4, {bead: "unknown"}), done
    assert status(world, bead) == "in_progress"
    assert alone(world, "dispatch", "--json").json["outcome"] == "idle"
    assert alone(world, "reap", "--json").code == 0
    assert metadata(world, bead)["job"] == world.board.job_of(bead).id
    assert len(world.board.posts) == 1


def test_a_full_queue_and_a_refused_token_open_the_bead_again(world: Sandbox) -> None:
    bead = world.create()
    world.board.reply_next("execute", FakeReply(429, '{"detail": "Queue full"}'))
    assert alone(world, "dispatch", "--json").outcomes == {bead: "busy"}
    done = alone(world, "dispatch", "--json", API_BEARER_TOKEN="another-token")
    assert (done.code, done.outcomes) == (4, {bead: "misconfigured"})
    assert "the agent service is misconfigured: HTTP 401: Invalid token" in done.complaint
    assert (status(world, bead), world.board.executed) == ("open", [])


def test_a_claim_that_started_nothing_is_released(world: Sandbox) -> None:
    bead = world.create()
    world.board.reply_next("execute", FakeReply(500, "Internal Server Error"))
    assert alone(world, "dispatch", "--json").outcomes == {bead: "unknown"}
    wait_minutes(world, bead, 31)
    assert alone(world, "reap", "--json").outcomes == {bead: "released"}
    assert status(world, bead) == "open"


def test_without_a_token_nothing_is_claimed(world: Sandbox) -> None:
    bead = world.create()
    done = alone(world, "dispatch", API_BEARER_TOKEN="")
    assert done.code == 2
    assert "starts nothing without its token" in done.complaint
    assert (status(world, bead), world.board.posts) == ("open", [])
    assert alone(world, "doctor", API_BEARER_TOKEN="").code == 4
    assert alone(world, "doctor").code == 0


def test_a_dry_run_shows_the_prompt_and_posts_nothing(world: Sandbox) -> None:
    world.create(title="Count the beads")
    done = alone(world, "dispatch", "--dry-run", "-v")
    assert "Count the beads" in done.err
    assert world.board.posts == []
