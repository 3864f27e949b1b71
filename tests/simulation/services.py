"""BeadBoard, the agent service and its jobs, and the network before them.

The product's own client reads the answers; only its sockets are replaced. A request can be lost, late or doubled, and
an answer lost or garbled.
"""

import random
from datetime import datetime, timedelta
from typing import Any

import msgspec

from bdauto.agents.beadboard.runner import BeadBoardRunner
from bdauto.agents.beadboard.settings import BeadBoardSettings
from bdauto.agents.http import HttpClient, NotSentError, Reply, RequestError, TooLargeError
from bdauto.agents.job_questions import JobQuestions
from bdauto.domain.reaping import NO_ANSWER
from bdauto.domain.settings import Secret
from bdauto.domain.times import format_time
from tests.simulation.agents import begin_job, slots_taken
from tests.simulation.checker import ENDED, EXPORT_DELAY, age_seen, check_post
from tests.simulation.plan import GATEWAY, START
from tests.simulation.process import Process
from tests.simulation.world import Attempt, Job, World

BOARD, AGENT, TOKEN = "http://board.test", "http://agent.test", "s3cret"
TIMEOUT = 30.0
LATE = 45.0
"""A request may arrive so long after its sender gave up."""
REMEMBERED = 3600.0
"""The agent service forgets a job so long after its end."""
EXPORT = 60.0
"""BeadBoard may not see a bead that is younger."""
QUEUE = 2


def _reply(status: int, /, **fields: object) -> Reply:
    return Reply(status, msgspec.json.encode(fields))


class SimServices(BeadBoardRunner):
    """The services as one process calls them."""

    def __init__(self, process: Process, *, agent: bool) -> None:
        """Leave out the HTTP client."""
        self.settings = BeadBoardSettings(beadboard_url=BOARD, agent_url=AGENT if agent else None)
        self._process = process
        self.http = SimHttp(process)
        clock, rng = process.runtime.monotonic, random.Random(0)
        self.questions = JobQuestions(self.job, timedelta(seconds=TIMEOUT), clock, rng, at_once=0)


class SimHttp(HttpClient):
    """The network as one process sees it."""

    def __init__(self, process: Process) -> None:
        """Leave out the sockets."""
        self.token = Secret(TOKEN)
        self._process = process

    def request(
        self, method: str, url: str, *, json: Any = None, authorized: bool = False, limit: int = 0, keep: int = 0
    ) -> Reply:
        """Send a request over the simulated network."""
        process = self._process
        process.at = "POST" if method == "POST" else "GET " + "/".join(url.split("/")[3:5]).partition("/j")[0]
        process.step()
        if method == "POST":
            return self._post(json["taskId"])
        process.jobs_told[url.rpartition("/")[2]] = NO_ANSWER
        troubled, process.troubled = process.troubled, True
        sick = _sick(process.world, url)
        if sick == "too large":
            raise TooLargeError("too large")
        silent, process.service_silent = process.service_silent, True
        if process.happens("cannot connect"):
            process.tell("GET {}: cannot connect", url)
            raise NotSentError("connection refused")
        if sick == "no answer" or process.happens("request lost") or process.happens("answer lost"):
            process.tell("GET {}: no answer", url)
            process.wait(TIMEOUT)
            raise RequestError("no answer")
        reply = _reply(int(sick), error="this job") if sick else _get(process.world, url)
        process.service_silent = silent or reply.status == 401
        process.step()
        if process.happens("answer garbled"):
            process.tell("GET {}: garbage", url)
            return Reply(200, b"<html>")
        process.troubled = troubled or reply.status not in (200, 404)
        _hear(process, url, reply)
        return reply

    def _post(self, bead_id: str) -> Reply:
        """Send a POST, and note what its sender hears."""
        process, world = self._process, self._process.world
        attempt = check_post(world, process, bead_id)
        assert attempt is not None
        process.tell("POST {}", bead_id)
        world.moment("POST")
        world.count("posts")
        try:
            reply = self._transmit(bead_id, attempt)
        except NotSentError:
            attempt.heard = "cannot connect"
            process.hear(attempt, "not started")
            process.tell("POST {}: cannot connect", bead_id)
            raise
        except RequestError:
            process.hear(attempt, "unknown")
            process.tell("POST {}: no answer", bead_id)
            raise
        finally:
            process.posted_at, process.looked_at = world.scheduler.now, None
        attempt.heard, answer = f"HTTP {reply.status}", _heard(reply)
        if answer == "not found" and age_seen(world, process, attempt) > EXPORT_DELAY:
            answer = "refused"
        process.hear(attempt, answer)
        process.tell("POST {}: HTTP {} {}: {}", bead_id, reply.status, reply.body.decode(), attempt.answer)
        return reply

    def _transmit(self, bead_id: str, attempt: Attempt) -> Reply:
        process, world = self._process, self._process.world
        if process.happens("cannot connect"):
            raise NotSentError("connection refused")
        if process.happens("request lost"):
            process.wait(TIMEOUT)
            raise RequestError("no answer")
        if process.happens("request late"):
            delay = TIMEOUT + process.task.rng.uniform(-5, LATE)
            world.scheduler.later(delay, lambda: _dispatch(world, bead_id, attempt.id))
            process.wait(TIMEOUT)
            raise RequestError("no answer")
        process.step()
        reply = _dispatch(world, bead_id, attempt.id)
        if process.happens("request doubled"):
            world.tell("network", "delivers the POST of {} twice", bead_id)
            _dispatch(world, bead_id, attempt.id)
        if process.happens("answer lost"):
            process.wait(TIMEOUT)
            raise RequestError("no answer")
        process.step(2.0)
        if process.happens("answer slow"):
            process.wait(process.task.rng.uniform(2, TIMEOUT - 5))
        if process.happens("answer garbled"):
            return process.task.rng.choice(
                (Reply(200, b"<html>"), _reply(202), _reply(504, error="late"), Reply(200, b"{"))
            )
        if process.happens("gateway fails"):
            return _reply(502, error="bad gateway")
        return reply


def _dispatch(world: World, bead_id: str, attempt: str) -> Reply:
    """Answer a POST as BeadBoard does."""
    if world.scheduler.stopped:
        return _reply(503)
    row, plan = world.rows[bead_id], next((bead for bead in world.plan.beads if bead.id == bead_id), None)
    if "BeadBoard down" in world.spells:
        return _reply(503, error="starting")
    if "BeadBoard misconfigured" in world.spells:
        return _reply(500, error="not configured")
    if (world.now - row.bead.created_at).total_seconds() < EXPORT or "BeadBoard blind" in world.spells:
        return _reply(400, error=f"Bead {bead_id} not found.")
    if (plan and plan.refused) or not row.bead.acceptance_criteria.strip():
        return _reply(400, error=f"Bead {bead_id} is missing acceptance criteria.")
    if GATEWAY in world.spells:
        return _reply(504, error="upstream timed out")
    if "agent service down" in world.spells:
        return _reply(502, error="agent unreachable")
    if slots_taken(world) >= world.plan.capacity + QUEUE:
        return _reply(409, error="Agent is busy")
    job = begin_job(world, bead_id, attempt)
    return _reply(200, job_id=job.id)


def click(world: World, bead_id: str) -> None:
    """Dispatch a bead as BeadBoard's button does."""
    reply = _dispatch(world, bead_id, "")
    world.tell("people", "click Dispatch on {}: HTTP {}", bead_id, reply.status)


def _get(world: World, url: str) -> Reply:
    if url.startswith(BOARD):
        if "BeadBoard down" in world.spells:
            return _reply(503)
        return _reply(200, busy=slots_taken(world) >= world.plan.capacity + QUEUE)
    if "agent service down" in world.spells:
        return _reply(503)
    running = [job for job in world.jobs.values() if job.known and job.state == "running"]
    queued = [job for job in world.jobs.values() if job.known and job.state == "queued"]
    if url.endswith("/health"):
        capacity = world.plan.capacity
        busy = len(running) >= capacity
        return _reply(200, status="ok", busy=busy, active=len(running), queued=len(queued), capacity=capacity)
    if "token refused" in world.spells:
        return _reply(401, error="bad token")
    job = world.jobs.get(url.rpartition("/")[2])
    if job is None or not job.known or _forgotten(world, job):
        return _reply(404)
    ended = {} if job.state in ("queued", "running") else {"finished_at": format_time(_moment(job.ended))}
    return _reply(200, status=job.state, **ended)


def _sick(world: World, url: str) -> str:
    """Return what the service says of this job alone, "" where it says what it knows."""
    job = None if world.quiet else world.jobs.get(url.rpartition("/")[2])
    return job.sick if job and job.known and "agent service down" not in world.spells else ""


def _moment(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _forgotten(world: World, job: Job) -> bool:
    return job.state not in ("queued", "running") and world.scheduler.now - job.ended > REMEMBERED


def _hear(process: Process, url: str, reply: Reply) -> None:
    """Note what a process has been told, as the checker must know it.

    The room for further beads is what the agent service says right after BeadBoard. Asked again, for a claim without a
    job, it counts what the cycle has started already.
    """
    fields = msgspec.json.decode(reply.body, type=dict[str, Any])
    if "/api/agent-status" in url:
        process.free, process.asks_for_room = 0 if fields.get("busy") else None, True
    elif url.endswith("/health") and reply.status == 200:
        if process.asks_for_room:
            free = fields["capacity"] - fields["active"] - fields["queued"]
            process.free, process.asks_for_room = max(min(free, 0 if process.free == 0 else free), 0), False
        process.runs_nothing = fields["active"] == fields["queued"] == 0
        process.tell("hears of the agent service: {} active, {} queued", fields["active"], fields["queued"])
    elif "/jobs/" in url:
        word = {200: fields.get("status", ""), 401: "token refused", 404: "forgotten"}.get(reply.status, "no answer")
        process.jobs_told[url.rpartition("/")[2]] = word
        process.tell("hears of {}: {}", url.rpartition("/")[2], word)


def _heard(reply: Reply) -> str:
    """Return what an answer to a POST means (docs/decisions.md)."""
    if reply.status == 200:
        return "started" if b"job_id" in reply.body else "unknown"
    if reply.status == 400:
        return "not found" if b"not found" in reply.body else "refused"
    known = {409: "busy", 504: "unknown", 202: "unknown", 502: "not started", 503: "not started"}
    return known.get(reply.status, "misconfigured")


def over(job: Job) -> bool:
    """Whether the service says that a job is over."""
    return job.state in ENDED
