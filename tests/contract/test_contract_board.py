"""What BeadBoard and the agent service answer, as bdauto relies on it: the sandbox's are held to that here."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bdauto.sandbox import FakeReply, Sandbox


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """A client that goes past proxies and does not follow redirects."""
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


def dispatch(http: httpx.Client, sandbox: Sandbox, bead: str) -> httpx.Response:
    """Ask BeadBoard to dispatch a bead."""
    return http.post(f"{sandbox.url}/api/agent-dispatch", json={"taskId": bead})


def answered(response: httpx.Response) -> tuple[int, Any]:
    """Status and JSON."""
    return response.status_code, response.json()


def busy(http: httpx.Client, sandbox: Sandbox) -> Any:
    """What BeadBoard says of the agent."""
    status, answer = answered(http.get(f"{sandbox.url}/api/agent-status"))
    assert (status, set(answer)) == (200, {"busy"})
    return answer["busy"]


def health(http: httpx.Client, sandbox: Sandbox) -> Any:
    """The agent service's health."""
    return http.get(f"{sandbox.agent_url}/health").json()


def job(http: httpx.Client, sandbox: Sandbox, name: str, token: str | None = None) -> httpx.Response:
    """Ask the agent service for a job."""
    headers = {"Authorization": f"Bearer {token or sandbox.token}"}
    return http.get(f"{sandbox.agent_url}/jobs/{name}", headers=headers)


def test_a_dispatch(sandbox: Sandbox, http: httpx.Client) -> None:
    bead = sandbox.create()
    assert busy(http, sandbox) is False
    status, answer = answered(dispatch(http, sandbox, bead))
    assert (status, set(answer)) == (200, {"job_id"})
    name = answer["job_id"]
    assert busy(http, sandbox) is True
    assert health(http, sandbox) == {"status": "ok", "busy": True, "active": 1, "queued": 0, "capacity": 1}
    assert job(http, sandbox, name).json()["status"] == "running"
    assert sandbox.notes(bead) == [f"claimed by agent {name}"]
    assert sandbox.show(bead)["status"] == "open"  # the claim is bdauto's to make
    sandbox.board.progress(name, "half way")
    sandbox.board.finish(name)
    assert job(http, sandbox, name).json()["status"] == "completed"
    assert (sandbox.show(bead)["status"], sandbox.notes(bead)[-1]) == ("closed", "half way")
    assert busy(http, sandbox) is False
    assert [(post.task, post.status, post.job) for post in sandbox.posts] == [(bead, 200, name)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "Invalid JSON body."),
        (b"{}", "taskId is required."),
        (b'{"taskId": "sb-none"}', "Bead sb-none not found."),
    ],
)
def test_refusals(sandbox: Sandbox, http: httpx.Client, content: bytes, said: str) -> None:
    response = http.post(f"{sandbox.url}/api/agent-dispatch", content=content)
    assert answered(response) == (400, {"error": said})


@pytest.mark.parametrize("acceptance", ["", " \n "])
def test_a_bead_without_acceptance_criteria(sandbox: Sandbox, http: httpx.Client, acceptance: str) -> None:
    bead = sandbox.create(acceptance=acceptance)
    said = f"Bead {bead} is missing acceptance criteria."
    assert answered(dispatch(http, sandbox, bead)) == (400, {"error": said})
    assert sandbox.board.jobs == {}


def test_at_capacity(sandbox: Sandbox, http: httpx.Client) -> None:
    dispatch(http, sandbox, sandbox.create())
    assert answered(dispatch(http, sandbox, sandbox.create())) == (409, {"error": "Agent is busy"})


def test_a_queue(http: httpx.Client) -> None:
    with Sandbox(capacity=1, queue=1) as sandbox:
        running, waiting, refused = (sandbox.create() for _ in range(3))
        assert [dispatch(http, sandbox, bead).status_code for bead in (running, waiting, refused)] == [200, 200, 502]
        assert health(http, sandbox) == {"status": "ok", "busy": True, "active": 1, "queued": 1, "capacity": 1}
        queued = sandbox.board.job_of(waiting)
        assert job(http, sandbox, queued.id).json()["status"] == "queued"
        assert sandbox.notes(waiting) == []
        sandbox.board.end(sandbox.board.job_of(running).id, "timeout")
        assert job(http, sandbox, queued.id).json()["status"] == "running"


def test_not_configured(sandbox: Sandbox, http: httpx.Client) -> None:
    sandbox.board.configured = False
    response = dispatch(http, sandbox, sandbox.create())
    assert (response.status_code, set(response.json())) == (500, {"error"})


def test_the_agent_service_is_down(sandbox: Sandbox, http: httpx.Client) -> None:
    """BeadBoard then says *not busy*."""
    bead = sandbox.create()
    name = dispatch(http, sandbox, bead).json()["job_id"]
    sandbox.board.agent_down()
    assert busy(http, sandbox) is False
    assert dispatch(http, sandbox, sandbox.create()).status_code == 502
    with pytest.raises(httpx.ConnectError):
        health(http, sandbox)
    sandbox.board.agent_up()
    assert health(http, sandbox)["active"] == 0
    assert job(http, sandbox, name).status_code == 404  # it has forgotten its jobs


def test_jobs_need_the_token(sandbox: Sandbox, http: httpx.Client) -> None:
    name = dispatch(http, sandbox, sandbox.create()).json()["job_id"]
    assert job(http, sandbox, name, token="wrong").status_code == 401
    sandbox.board.forget(name)
    assert job(http, sandbox, name).status_code == 404


def test_an_old_agent_service(sandbox: Sandbox, http: httpx.Client) -> None:
    sandbox.board.old_health = True
    assert health(http, sandbox) == {"busy": False}


def test_an_agent_that_dies_before_its_first_note(sandbox: Sandbox, http: httpx.Client) -> None:
    sandbox.board.signs = False
    bead = sandbox.create()
    name = dispatch(http, sandbox, bead).json()["job_id"]
    sandbox.board.end(name)
    assert (job(http, sandbox, name).json()["status"], sandbox.notes(bead)) == ("failed", [])


def test_the_status_may_be_cached(sandbox: Sandbox, http: httpx.Client) -> None:
    sandbox.board.cache = 60
    assert busy(http, sandbox) is False
    dispatch(http, sandbox, sandbox.create())
    assert busy(http, sandbox) is False


def test_answers_on_demand(sandbox: Sandbox, http: httpx.Client) -> None:
    url = f"{sandbox.url}/api/agent-status"
    sandbox.board.reply_next("status", FakeReply(503, "<html>", {"Content-Type": "text/html"}), times=2)
    sandbox.board.reply_next("status", FakeReply(302, headers={"Location": "http://elsewhere.invalid/"}))
    assert [http.get(url).status_code for _ in range(4)] == [503, 503, 302, 200]


def test_a_connection_dropped_before_and_after_the_job_started(sandbox: Sandbox, http: httpx.Client) -> None:
    bead = sandbox.create()
    sandbox.board.reply_next("dispatch", FakeReply(drop="early"))
    sandbox.board.reply_next("dispatch", FakeReply(drop="late"))
    for jobs in (0, 1):
        with pytest.raises(httpx.RemoteProtocolError):
            dispatch(http, sandbox, bead)
        assert len(sandbox.board.jobs) == jobs


def test_slow_answers(sandbox: Sandbox, http: httpx.Client) -> None:
    sandbox.board.reply_next("status", FakeReply(delay=0.1))
    sandbox.board.reply_next("status", FakeReply(trickle=0.01))
    for _ in range(2):
        started = time.monotonic()
        assert busy(http, sandbox) is False
        assert time.monotonic() - started >= 0.1


def test_any_other_address(sandbox: Sandbox, http: httpx.Client) -> None:
    assert http.get(f"{sandbox.url}/api/nothing").status_code == 404
