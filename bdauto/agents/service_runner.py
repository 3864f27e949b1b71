"""What the kinds of agents have in common whose jobs run in the agent service."""

from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self
from urllib.parse import quote

import msgspec

from bdauto.agents.answers import Answer, AtCapacity, Misconfigured, NotStarted, Refused, Started, Unknown
from bdauto.agents.http import HttpClient, NotSentError, Reply, RequestError, Transport
from bdauto.agents.job_questions import JobQuestions, services_evidence
from bdauto.agents.runner import JobOutput, Runner
from bdauto.agents.runner_status import AGENT, Capacity, Part, RunnerStatus
from bdauto.agents.service_output import ServiceOutput, recorded_jobs
from bdauto.agents.service_settings import read_token
from bdauto.common import log
from bdauto.common.errors import BdautoError, ServiceDrift, ServiceError, TokenRefused, UsageError
from bdauto.common.sanitize import clean
from bdauto.domain.bead import MALFORMED, Bead
from bdauto.domain.reaping import JobEvidence
from bdauto.domain.record_values import JOB_PATTERN
from bdauto.domain.values import redact

if TYPE_CHECKING:
    from bdauto.agents.service_settings import AgentServiceSettings

KEPT = 1 << 20
"""Bytes to keep of each text in a job's record that is larger than BODY_LIMIT: it holds all output."""
KEPT_LOG = 1 << 24
"""The same, when the output is to be shown to a person."""
CANNOT_CANCEL = "it ends its jobs by itself, after its own time limit; `bd update {id} -s blocked` keeps it from others"
SERVICE = "the agent service"


class _Health(msgspec.Struct, frozen=True):
    busy: bool
    active: Annotated[int, msgspec.Meta(ge=0)] | None = None
    queued: Annotated[int, msgspec.Meta(ge=0)] | None = None
    capacity: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Job(msgspec.Struct, frozen=True):
    status: str


class _Dispatched(msgspec.Struct, frozen=True):
    job_id: Annotated[str, msgspec.Meta(pattern=JOB_PATTERN)]


class ServiceRunner(Runner):
    """Knows about jobs in the agent service, where it is configured. A subclass starts them with `_post`."""

    target: ClassVar[str] = SERVICE
    """What takes the POST."""
    hint: ClassVar[str] = "check --agent-url, --agent-name and the token"
    """What to check if it would refuse any bead because of the configuration."""
    refused_hint: ClassVar[str] = "see the log of the agent service"
    """What to check if it refuses all beads as they are."""
    started: ClassVar[frozenset[int]] = frozenset({200})
    """The HTTP status of an answer with the id of a job."""
    busy_status: ClassVar[frozenset[int]] = frozenset({409})
    """The HTTP status if the service takes no further job."""
    uncertain: ClassVar[frozenset[int]] = frozenset({504})
    """The HTTP status, besides a success without a job, after which a job may have started."""

    def __init__(self, settings: "AgentServiceSettings", transport: Transport | None = None) -> None:
        """Take the settings. `transport` replaces the network. Raises UsageError for what can never work."""
        self.settings = settings
        self.questions = JobQuestions(self.job, settings.timeout)
        self.http = HttpClient(
            settings.timeout,
            *self._urls(),
            token=settings.agent_token,
            ended=lambda: self.call_ended(),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def _urls(self) -> list[str | None]:
        return [self.settings.agent_url]

    def service_part(self) -> Part:
        """Ask the agent service how it is."""
        if not self.settings.agent_url:
            return service_part(configured=False)
        try:
            return service_part(self.agent_capacity())
        except BdautoError as error:
            return service_part(error=error)

    def agent_capacity(self) -> Capacity:
        """Return the agent service's `capacity - active - queued`, or its `busy` where it does not count."""
        url = join(self.settings.agent_url, "/health")
        health = self.http.get(SERVICE, url).decode(_Health, f"{SERVICE} {redact(url)}")
        if health.capacity is None or health.active is None or health.queued is None:
            return Capacity(0 if health.busy else 1)
        free = max(health.capacity - health.active - health.queued, 0)
        return Capacity(free, True, health.active, health.queued, health.capacity)

    def read_token(self) -> bool:
        """Read the agent service's token from its file again. Return True if it changed.

        An unreadable or empty file leaves the token as it is, because somebody may be writing it.
        """
        if self.settings.agent_token_file is None:
            return False
        before = self.http.token
        try:
            self.http.token = read_token(self.settings.agent_token_file) or before
        except UsageError as error:
            log.warning("token-unreadable", error=error)
        return self.http.token != before

    def job_state(self, job: str) -> str | None:
        """Return the state of a job, None if the agent service does not know it. Raises as `job` does."""
        found = self.job(job)
        return str(found["status"]) if found else None

    def job(self, job: str, *, keep: int = KEPT) -> dict[str, Any] | None:
        """Return the agent service's record of a job, which always has a `status`. None if it does not know the job.

        A record larger than BODY_LIMIT is reduced to the members that JobReader wants, and each text to its end, at
        least `keep` bytes. Raises ServiceDown with `silent` if there is no answer, and TokenRefused if the token is
        refused and reading it anew does not help. Any other ServiceError concerns this job alone.
        """
        url, token = join(self.settings.agent_url, f"/jobs/{quote(job, safe='')}"), self.http.token
        reply = self.http.get(SERVICE, url, authorized=True, keep=keep)
        if reply.status == 401:
            self.read_token()
            if self.http.token != token:
                reply = self.http.get(SERVICE, url, authorized=True, keep=keep)
        what = f"{SERVICE} {redact(url)}"
        if reply.status in (401, 403):
            raise TokenRefused(f"{what}: {reply.describe()}", hint="check --agent-token-file or API_BEARER_TOKEN")
        if reply.status == 404:
            return None
        reply.decode(_Job, what)
        return reply.decode(dict[str, Any], what)

    @property
    def knows_jobs(self) -> bool:
        """Whether the agent service is configured."""
        return bool(self.settings.agent_url)

    @property
    def longest_call(self) -> timedelta:
        """The time limit of a request."""
        return self.settings.timeout

    def evidence(
        self, beads: Collection[Bead], status: RunnerStatus | None = None
    ) -> tuple[JobEvidence, ServiceError | None]:
        """Ask the agent service about the jobs of beads in progress."""
        if not self.settings.agent_url:
            return JobEvidence(), None
        self.read_token()
        words = self.questions.words([bead.record.job for bead in beads if bead.record.job])
        return services_evidence(words, beads, lambda: (status or RunnerStatus((self.service_part(),))).runs_nothing)

    def jobs_of(self, bead: Bead) -> list[str]:
        """Return the ids of the bead's jobs, as the bead names them."""
        return recorded_jobs(bead)

    def output(self, job: str) -> JobOutput:
        """Return the output of a job."""
        return ServiceOutput(lambda: self.job(job, keep=KEPT_LOG))

    def check_cancel(self, bead: Bead) -> None:
        """Raise: no job can be ended there."""
        raise ServiceDrift(f"{SERVICE} cannot end the job of {bead.id}", hint=CANNOT_CANCEL.format(id=bead.id))

    def _post(self, url: str, body: object, *, authorized: bool = False) -> Answer:
        """POST once, and return what the answer means (docs/decisions.md)."""
        try:
            return self.meaning(self.http.post(url, body, authorized=authorized))
        except NotSentError as error:
            return NotStarted(f"cannot connect to {self.target}: {error}")
        except RequestError as error:
            return Unknown(str(error))

    def meaning(self, reply: Reply) -> Answer:
        """Return what the answer to a POST means."""
        if reply.status in self.started:
            try:
                return Started(msgspec.json.decode(reply.body, type=_Dispatched).job_id)
            except MALFORMED as error:
                return Unknown(f"HTTP {reply.status} without a job id: {clean(str(error))}")
        words = reply.describe()
        if reply.status < 300 or reply.status in self.uncertain:
            return Unknown(words)
        if reply.status in self.busy_status:
            return AtCapacity()
        if reply.status == 400:
            return Refused(words, self.target, self.refused_hint, self._unseen(words))
        return NotStarted(words) if reply.status > 500 else Misconfigured(words, self.target, self.hint)

    def _unseen(self, words: str) -> bool:
        """Return True if the words may mean that the service has not seen the bead yet."""
        return False


def service_part(
    capacity: Capacity | None = None, error: BdautoError | None = None, *, configured: bool = True
) -> Part:
    """Return the agent service as a part of the runner."""
    text = ""
    if capacity:
        text = "up, not busy" if capacity.free else "up, busy"
    if capacity and capacity.counted:
        counts = f"{capacity.active} of {capacity.total} running, {capacity.queued} queued, {capacity.free} free"
        text = f"up, {counts}"
    return Part(AGENT, "agent service", capacity, error, text, configured=configured)


def join(base: str | None, path: str) -> str:
    """Return the URL of a path. Raises UsageError if the service is not configured."""
    if not base:
        raise UsageError("the URL of the service is not set", hint="give --agent-url or BDAUTO_AGENT_URL")
    return base.rstrip("/") + path
