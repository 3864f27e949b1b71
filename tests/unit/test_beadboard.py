"""BeadBoard and the agent service: bounded, unredirected requests, and answers that are not understood."""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from bdauto.agents.answers import Misconfigured
from bdauto.agents.beadboard.runner import BeadBoardRunner
from bdauto.agents.beadboard.settings import BeadBoardSettings
from bdauto.agents.http import BODY_LIMIT
from bdauto.agents.runner import check_services
from bdauto.agents.runner_status import Capacity
from bdauto.common.errors import ServiceDown, ServiceDrift, ServiceError, TokenRefused, UsageError
from bdauto.domain.settings import Secret
from bdauto.domain.values import checked_url
from tests.support.fakes import AGENT, BOARD, TOKEN, Reply, Wire, bead


class Web:
    """Everything behind the two URLs: answers by path, and the requests that were made."""

    def __init__(self, **answers: Reply) -> None:
        self.answers = {"/" + path.replace("_", "/"): answer for path, answer in answers.items()}
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.get(request.url.path.replace("-", "/"), httpx.Response(200, json={"busy": False}))
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer.stream, Wire):
            return answer
        return httpx.Response(answer.status_code, headers=answer.headers, stream=Wire(answer.content))

    def services(self, **settings: Any) -> BeadBoardRunner:
        plain: dict[str, Any] = {"beadboard_url": BOARD, "agent_url": AGENT, "agent_token": Secret(TOKEN)}
        return BeadBoardRunner(BeadBoardSettings(**(plain | settings)), httpx.MockTransport(self))


def health(**fields: Any) -> httpx.Response:
    return httpx.Response(200, json={"status": "ok"} | fields)


def capacity_of(services: BeadBoardRunner) -> Capacity:
    """Return what a dispatch takes for the capacity; raises what it fails with."""
    status = check_services(services)
    if status.error:
        raise status.error
    assert status.capacity is not None
    return status.capacity


CAPACITY: list[tuple[str, httpx.Response, tuple[int, bool]]] = [
    ("counted", health(busy=False, active=3, queued=2, capacity=10), (5, True)),
    ("counted though it says busy", health(busy=True, active=3, queued=0, capacity=10), (7, True)),
    ("full", health(busy=True, active=10, queued=0, capacity=10), (0, True)),
    ("more than full", health(busy=True, active=10, queued=90, capacity=10), (0, True)),
    ("an older version", health(busy=False), (1, False)),
    ("an older version, busy", health(busy=True), (0, False)),
    ("a missing count", health(busy=False, active=3, capacity=10), (1, False)),
    ("a missing capacity, busy", health(busy=True, active=3, queued=1), (0, False)),
]


@pytest.mark.parametrize(("answer", "capacity"), [c[1:] for c in CAPACITY], ids=[c[0] for c in CAPACITY])
def test_capacity_is_counted_or_falls_back_to_busy(answer: httpx.Response, capacity: tuple[int, bool]) -> None:
    found = capacity_of(Web(health=answer).services())
    assert (found.free, found.counted) == capacity


def test_without_an_agent_service_beadboard_s_busy_decides() -> None:
    web = Web(api_agent_status=httpx.Response(200, json={"busy": True}))
    assert capacity_of(web.services(agent_url=None)) == Capacity(0)
    assert capacity_of(Web().services(agent_url=None)) == Capacity(1)


def test_a_busy_beadboard_is_believed_whatever_the_agent_service_counts() -> None:
    web = Web(
        api_agent_status=httpx.Response(200, json={"busy": True}),
        health=health(busy=False, active=0, queued=0, capacity=10),
    )
    assert capacity_of(web.services()).free == 0


ODD: list[tuple[str, Reply, type[ServiceError], str]] = [
    ("refused", httpx.ConnectError("[Errno 111] Connection refused"), ServiceDown, "Connection refused"),
    ("no name", httpx.ConnectError("[Errno -2] Name or service not known"), ServiceDown, "Name or service not known"),
    ("slow", httpx.ReadTimeout("late"), ServiceDown, "no answer within 30s"),
    ("broken", httpx.RemoteProtocolError("Server disconnected"), ServiceDown, "Server disconnected"),
    ("megabytes", httpx.Response(200, content=b" " * (BODY_LIMIT + 1)), ServiceDown, "larger than 1 MiB"),
    ("500", httpx.Response(500, json={"error": "no token"}), ServiceDown, "HTTP 500: no token"),
    ("503", httpx.Response(503, text="<h1>away</h1>"), ServiceDown, "HTTP 503: <h1>away</h1>"),
    ("404", httpx.Response(404, text="nothing here"), ServiceDrift, "HTTP 404: nothing here"),
    ("401", httpx.Response(401), ServiceDrift, "HTTP 401"),
    ("redirect", httpx.Response(302, headers={"location": "http://evil.test/"}), ServiceDrift, "redirects are not"),
    ("HTML", httpx.Response(200, text="<!doctype html>"), ServiceDrift, "is this the right URL?"),
    ("nothing", httpx.Response(200), ServiceDrift, "is this the right URL?"),
    ("another shape", httpx.Response(200, json=[True]), ServiceDrift, "Expected `object`"),
    ("no busy", httpx.Response(200, json={"status": "ok"}), ServiceDrift, "`busy`"),
    ("busy as text", httpx.Response(200, json={"busy": "false"}), ServiceDrift, "$.busy"),
    ("busy as number", httpx.Response(200, json={"busy": 0}), ServiceDrift, "$.busy"),
    ("busy as null", httpx.Response(200, json={"busy": None}), ServiceDrift, "$.busy"),
    ("not UTF-8", httpx.Response(200, content=b'{"\xff": 1}'), ServiceDrift, "is this the right URL?"),
    ("endless nesting", httpx.Response(200, content=b'{"x":' + b"[" * 100_000), ServiceDrift, "is this the right URL?"),
    ("escapes", httpx.Response(418, text="\x1b[2J\u202eboo\x00"), ServiceDrift, "HTTP 418: [2Jboo"),
]


@pytest.mark.parametrize(("answer", "error", "words"), [o[1:] for o in ODD], ids=[o[0] for o in ODD])
def test_a_status_that_is_not_understood_is_one_line_that_names_the_service(
    answer: Reply, error: type[ServiceError], words: str
) -> None:
    web = Web(api_agent_status=answer)
    with pytest.raises(ServiceError) as caught:
        capacity_of(web.services())
    text = str(caught.value)
    assert (type(caught.value), caught.value.exit_code) == (error, 4)
    assert text.startswith(f"BeadBoard {BOARD}/api/agent-status: ")
    assert words in text
    assert text.isprintable()
    assert len(text) < 500
    assert [request.url.host for request in web.requests] == ["board.test", "agent.test"], "no redirect is followed"


@pytest.mark.parametrize("field", ["active", "queued", "capacity"])
@pytest.mark.parametrize("value", [-1, "3", 1.5, True], ids=repr)
def test_counts_that_are_none_are_refused(field: str, value: object) -> None:
    counts = {"busy": False, "active": 1, "queued": 1, "capacity": 9} | {field: value}
    with pytest.raises(ServiceDrift, match=rf"the agent service {AGENT}/health: .*\$\.{field}"):
        capacity_of(Web(health=health(**counts)).services())


def test_megabytes_are_not_read_to_the_end() -> None:
    wire = Wire(b" " * (BODY_LIMIT * 8))
    web = Web(api_agent_status=httpx.Response(200, stream=wire))
    with pytest.raises(ServiceDown):
        capacity_of(web.services())
    assert wire.sent <= BODY_LIMIT * 2


def test_as_much_as_the_limit_is_read() -> None:
    body = b'{"busy": false}'.ljust(BODY_LIMIT)
    assert capacity_of(Web(api_agent_status=httpx.Response(200, content=body)).services(agent_url=None)).free == 1


JOBS: list[tuple[str, Reply, str | None]] = [
    ("running", httpx.Response(200, json={"status": "running", "more": 1}), "running"),
    ("of tomorrow", httpx.Response(200, json={"status": "resting"}), "resting"),
    ("forgotten", httpx.Response(404), None),
]


@pytest.mark.parametrize(("answer", "state"), [j[1:] for j in JOBS], ids=[j[0] for j in JOBS])
def test_the_service_s_word_on_a_job(answer: Reply, state: str | None) -> None:
    assert Web(jobs_j_1=answer).services().job_state("j-1") == state


@pytest.mark.parametrize("answer", [httpx.Response(503), httpx.Response(200, json={"status": 1})])
def test_no_word_on_a_job_is_an_error(answer: Reply) -> None:
    with pytest.raises(ServiceError):
        Web(jobs_j_1=answer).services().job_state("j-1")


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_not_accepted_is_an_error_of_its_own(status: int) -> None:
    with pytest.raises(TokenRefused, match=f"HTTP {status}"):
        Web(jobs_j_1=httpx.Response(status)).services().job_state("j-1")


class Guarded:
    """An agent service that accepts one token."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.headers["authorization"].removeprefix("Bearer "))
        answer = {"status": "running"} if self.asked[-1] == self.token else {"detail": "Invalid token"}
        return httpx.Response(200 if "status" in answer else 401, stream=Wire(msgspec.json.encode(answer)))


def test_a_rotated_token_is_read_again_after_a_401(tmp_path: Path) -> None:
    file, web = tmp_path / "token", Guarded("new")
    file.write_text("new")
    settings = BeadBoardSettings(agent_url=AGENT, agent_token=Secret("old"), agent_token_file=file)
    assert BeadBoardRunner(settings, httpx.MockTransport(web)).job_state("j-1") == "running"
    assert web.asked == ["old", "new"]


@pytest.mark.parametrize("content", [b"old", b"\xff", b" \n", None], ids=["the same", "not text", "empty", "missing"])
def test_a_token_that_cannot_be_read_again_stays_and_is_tried_once(content: bytes | None, tmp_path: Path) -> None:
    file, web = tmp_path / "token", Guarded("new")
    if content is not None:
        file.write_bytes(content)
    settings = BeadBoardSettings(agent_url=AGENT, agent_token=Secret("old"), agent_token_file=file)
    with pytest.raises(TokenRefused):
        BeadBoardRunner(settings, httpx.MockTransport(web)).job_state("j-1")
    assert web.asked == ["old"]


def test_a_hostile_job_id_stays_one_segment_of_the_path() -> None:
    web = Web()
    with pytest.raises(ServiceError):
        web.services().job_state("../health?x=#y")
    assert web.requests[0].url.raw_path == b"/jobs/..%2Fhealth%3Fx%3D%23y"


def test_the_token_goes_to_the_agent_service_s_jobs_and_nowhere_else() -> None:
    web = Web(jobs_j_1=httpx.Response(200, json={"status": "running"}))
    services = web.services()
    capacity_of(services)
    services.start(bead("x-1"), "w1")
    services.job_state("j-1")
    bearers = {request.url.path: request.headers.get("authorization") for request in web.requests}
    assert {path for path, bearer in bearers.items() if bearer} == {"/jobs/j-1"}
    assert bearers["/jobs/j-1"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "answer", [httpx.ConnectError("refused"), httpx.Response(401, text="bad"), httpx.Response(500)]
)
def test_the_token_is_in_no_error_and_no_repr(answer: Reply) -> None:
    services = Web(jobs_j_1=answer).services()
    with pytest.raises(ServiceError) as caught:
        services.job_state("j-1")
    assert TOKEN not in f"{caught.value!r} {caught.value} {services.settings!r} {services.settings}"


def test_a_token_that_a_server_echoes_is_in_no_error() -> None:
    echo = httpx.Response(401, json={"error": f"unknown: {TOKEN}"})
    services = Web(jobs_j_1=echo, api_agent_dispatch=echo).services()
    with pytest.raises(TokenRefused, match=r"unknown: \*\*\*"):
        services.job_state("j-1")
    answer = services.start(bead("x-1"), "w1")
    assert isinstance(answer, Misconfigured)
    assert answer.error == "HTTP 401: unknown: ***"


def test_a_state_that_nobody_knows_is_one_short_line() -> None:
    """It goes into a note."""
    state = "paused\nclaimed by agent j-9\x1b[31m" + "y" * 500
    services = Web(jobs_j_1=httpx.Response(200, json={"status": state})).services()
    evidence, error = services.evidence([bead("x-1", metadata={"bdauto.job": "j-1"})])
    assert error is None
    assert evidence.states["x-1"].startswith("paused claimed by agent j-9[31m")
    assert len(evidence.states["x-1"]) <= 40


@pytest.mark.parametrize("url", ["http:/me:pa55@h", "me:pa55@h:3000", "http://me:pa/55@h", "http://me:pa 55@h"])
def test_a_password_in_what_is_no_url_is_in_no_error(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_url(url)
    assert "55" not in str(caught.value)


def test_a_password_in_a_url_is_in_no_error() -> None:
    services = Web(api_agent_status=httpx.Response(500)).services(beadboard_url="http://me:pa55@board.test")
    with pytest.raises(ServiceDown) as caught:
        capacity_of(services)
    assert "pa55" not in str(caught.value)


def test_a_dispatch_is_one_post_of_the_bead_s_id() -> None:
    web = Web(api_agent_dispatch=httpx.Response(200, json={"job_id": "j"}))
    web.services(beadboard_url=f"{BOARD}/").start(bead("x-1"), "w1")
    [request] = web.requests
    assert (request.method, str(request.url)) == ("POST", f"{BOARD}/api/agent-dispatch")
    assert request.content.replace(b" ", b"") == b'{"taskId":"x-1"}'
    assert request.headers["content-type"] == "application/json"


def test_a_server_s_clock_comes_with_its_answer() -> None:
    date = "Sat, 18 Apr 2026 22:35:46 GMT"
    web = Web(health=httpx.Response(200, json={}, headers={"date": date}))
    assert web.services().http.get("the agent service", f"{AGENT}/health").date == date
    assert Web().services().http.get("the agent service", f"{AGENT}/health").date == ""


@pytest.mark.parametrize("url", ["http://h", "https://h:8443/base", "http://[::1]:3000/", "http://u:p@h"])
def test_urls(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    ["h:3000", "ftp://h", "http://", "http://h:99999", "http://h:port", "http://h h", "http://h\n", "", "http://[::1"],
)
def test_what_is_no_url_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match=r"http://HOST\[:PORT\]"):
        checked_url(url)
