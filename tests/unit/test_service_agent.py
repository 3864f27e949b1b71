"""The agent service without BeadBoard: what is posted, what its answers mean, and what is refused before a claim."""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from bdauto.agents import kinds
from bdauto.agents.answers import Answer, AtCapacity, Misconfigured, NotStarted, Refused, Started, Unknown
from bdauto.agents.kinds import AgentSettings
from bdauto.agents.prompt import FIELD_BYTES
from bdauto.agents.runner import CheckContext
from bdauto.agents.service.checks import checks
from bdauto.agents.service.runner import LONGEST_PROMPT, ServiceAgent
from bdauto.agents.service.settings import ServiceAgentSettings
from bdauto.common.errors import UsageError
from bdauto.domain.settings import Secret
from tests.support.fakes import AGENT, NOW, TOKEN, Reply, Wire, bead


class Service:
    """The agent service, with one answer to every POST."""

    def __init__(self, answer: Reply | None = None) -> None:
        self.answer = answer or httpx.Response(202, json={"job_id": "j-1", "status": "queued"})
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.method == "GET":
            known = {"/health": {"busy": False, "active": 1, "queued": 0, "capacity": 4}}.get(request.url.path)
            return httpx.Response(200 if known else 404, stream=Wire(msgspec.json.encode(known or {})))
        if isinstance(self.answer, Exception):
            raise self.answer
        return httpx.Response(self.answer.status_code, stream=Wire(self.answer.content))

    def agent(self, **settings: Any) -> ServiceAgent:
        plain: dict[str, Any] = {"agent_url": f"{AGENT}/", "agent_token": Secret(TOKEN)}
        return ServiceAgent(ServiceAgentSettings(**(plain | settings)), httpx.MockTransport(self))


def test_a_bead_is_posted_once_with_its_prompt_and_limits() -> None:
    web = Service()
    agent = web.agent(agent_name="runner", max_cost_per_run=2.5)
    assert agent.start(bead("x-1", title="Do $(it)", description="- one"), "w1") == Started("j-1")
    [request] = web.requests
    assert (request.method, str(request.url)) == ("POST", f"{AGENT}/execute")
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    body = msgspec.json.decode(request.content)
    prompt = body.pop("prompt")
    assert body == {"agent": "runner", "max_budget_usd": 2.5, "timeout_seconds": 2700}
    assert "Title: Do $(it)" in prompt
    assert 'bd note x-1 "claimed by agent $(basename "$PWD")"' in prompt


def test_without_a_limit_on_costs_the_service_has_its_own() -> None:
    web = Service()
    web.agent().start(bead("x-1"), "w1")
    assert "max_budget_usd" not in msgspec.json.decode(web.requests[0].content)


def test_a_limit_on_costs_is_held_by_the_service_and_not_by_beadboard() -> None:
    alone = AgentSettings(agent_url="http://a", max_cost_per_run=2.5)
    assert kinds.complete(alone).max_cost_per_run == 2.5
    with pytest.raises(UsageError, match="--max-cost-per-run cannot be held"):
        kinds.complete(AgentSettings(agent_url="http://a", beadboard_url="http://b", max_cost_per_run=2.5))


def http(status: int, /, **body: object) -> httpx.Response:
    return httpx.Response(status, json=body)


ANSWERS: list[tuple[str, Reply, type[Answer]]] = [
    ("202", http(202, job_id="j-1"), Started),
    ("202 without a job", http(202, status="queued"), Unknown),
    ("202 with a hostile job", http(202, job_id="a\nb'; --"), Unknown),
    ("202 as HTML", httpx.Response(202, text="<html>"), Unknown),
    ("204", httpx.Response(204), Unknown),
    ("401", http(401, detail="Invalid token"), Misconfigured),
    ("404", http(404, detail="Not Found"), Misconfigured),
    ("422", http(422, detail=[{"loc": ["body", "agent"]}]), Misconfigured),
    ("redirect", httpx.Response(307), Misconfigured),
    ("400", http(400, detail="no"), Refused),
    ("an older version is busy", http(409, detail="Agent is busy"), AtCapacity),
    ("queue full", http(429, detail="Queue full"), AtCapacity),
    ("500", httpx.Response(500, text="Internal Server Error"), Unknown),
    ("502", httpx.Response(502), NotStarted),
    ("503", httpx.Response(503), NotStarted),
    ("504", httpx.Response(504), Unknown),
    ("no connection", httpx.ConnectError("refused"), NotStarted),
    ("no answer", httpx.ReadTimeout("late"), Unknown),
    ("broken off", httpx.RemoteProtocolError("Server disconnected"), Unknown),
    ("megabytes", httpx.Response(202, content=b" " * (1 << 21)), Unknown),
]


@pytest.mark.parametrize(("reply", "meaning"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_what_an_answer_means(reply: Reply, meaning: type[Answer]) -> None:
    web = Service(reply)
    assert isinstance(web.agent().start(bead("x-1"), "w1"), meaning)
    assert len(web.requests) == 1, "a POST is never repeated"


def test_a_refused_token_names_the_options_and_not_the_token() -> None:
    answer = Service(http(401, detail=f"Invalid token {TOKEN}")).agent().start(bead("x-1"), "w1")
    assert isinstance(answer, Misconfigured)
    assert answer.error == "HTTP 401: Invalid token ***"
    assert (answer.service, "--agent-url" in answer.hint) == ("the agent service", True)


def test_the_token_is_read_again_before_a_post(tmp_path: Path) -> None:
    file, web = tmp_path / "token", Service()
    file.write_text("a-newer-token")
    web.agent(agent_token_file=file).start(bead("x-1"), "w1")
    assert web.requests[0].headers["authorization"] == "Bearer a-newer-token"


def test_without_a_token_no_bead_is_claimed() -> None:
    with pytest.raises(UsageError, match="starts nothing without its token; give --agent-token-file"):
        Service().agent(agent_token=None).check_start()


def test_without_a_readable_template_no_bead_is_claimed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--agent-prompt"):
        Service().agent(agent_prompt=tmp_path / "none").check_start()


def test_the_longest_bead_fits_and_a_longer_prompt_is_not_claimed(tmp_path: Path) -> None:
    """The service gives the prompt to the agent as one argument of a command."""
    long = bead("x-1", title="t" * 500, description="é" * FIELD_BYTES, acceptance_criteria="é" * FIELD_BYTES)
    assert Service().agent().problem_with(long) == ""
    template = tmp_path / "template"
    template.write_text("{id} {description}" + "x" * LONGEST_PROMPT)
    problem = Service().agent(agent_prompt=template).problem_with(long)
    assert problem.startswith("its prompt is too long: ")


def test_no_bead_s_text_begins_like_an_option(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.write_text("{title}")
    prompt = Service().agent(agent_prompt=template).prompt(bead("x-1", title="--mcp-config=/tmp/x"), "w1")
    assert prompt == " --mcp-config=/tmp/x"


def test_its_status_is_one_part_that_counts() -> None:
    found = Service().agent().status()
    assert [(part.key, part.name, part.text) for part in found.parts] == [
        ("agent", "agent service", "up, 1 of 4 running, 0 queued, 3 free")
    ]
    assert (found.free, found.as_json()["beadboard"]) == (3, None)


def test_doctor_names_the_agent_and_misses_a_token() -> None:
    found = {check.name: check for check in checks(Service().agent(), CheckContext(lambda: NOW))}
    assert found["agent"].detail == "beads-task-runner"
    found = {check.name: check for check in checks(Service().agent(agent_token=None), CheckContext(lambda: NOW))}
    assert (found["agent"].level, found["agent"].hint) == ("fail", "give --agent-token-file or API_BEARER_TOKEN")


CHOICES: list[tuple[dict[str, str], str]] = [
    ({"beadboard_url": "http://b"}, "beadboard"),
    ({"beadboard_url": "http://b", "agent_url": "http://a"}, "beadboard"),
    ({"agent_url": "http://a"}, "service"),
    ({"agent_command": "true"}, "local"),
]


@pytest.mark.parametrize(("given", "folder"), CHOICES, ids=[folder for _, folder in CHOICES])
def test_the_options_choose_one_kind(given: dict[str, str], folder: str) -> None:
    assert kinds.required(AgentSettings(**given)).folder == folder


@pytest.mark.parametrize("url", ["beadboard_url", "agent_url"])
def test_an_agent_command_and_a_service_exclude_each_other(url: str) -> None:
    with pytest.raises(UsageError, match=f"--agent-command and --{url.replace('_', '-')} exclude each other"):
        kinds.required(AgentSettings(agent_command="true", **{url: "http://x"}))


def test_without_a_kind_every_option_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        kinds.required(AgentSettings())
    for kind in kinds.KINDS:
        assert f"{kind.flag} or {kind.variable}" in str(caught.value)
