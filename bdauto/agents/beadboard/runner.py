"""BeadBoard, and the agent service behind it where it is configured: the one place that speaks HTTP.

Every request is bounded: one deadline for all of it, 1 MiB of answer, no redirects, no reuse of connections (a reused
one can die between the request and the answer, which would leave the outcome of a POST unknown).
"""

import contextlib
import itertools
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from types import FrameType
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import msgspec

from bdauto.agents.capacity import Capacity

sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # httpx's own command line: a third of its import

import httpx

from bdauto import log
from bdauto.agents.answers import Answer, AtCapacity, Misconfigured, NotStarted, Refused, Started, Unknown
from bdauto.agents.beadboard.settings import ServiceSettings
from bdauto.agents.job_questions import JobQuestions, services_evidence
from bdauto.agents.job_reader import JobReader
from bdauto.agents.runner import JobOutput, Place
from bdauto.agents.service_output import ServiceOutput, recorded_jobs
from bdauto.agents.service_status import Agent, ServiceStatus, services_status
from bdauto.agents.token import read_token
from bdauto.domain.bead import MALFORMED, Bead
from bdauto.domain.reaping import ALIVE, FailedCheck, JobEvidence
from bdauto.domain.reconcile import RunningJob
from bdauto.domain.record import Run
from bdauto.domain.record_values import JOB_PATTERN
from bdauto.domain.results import JobEnd
from bdauto.domain.settings import Secret
from bdauto.domain.values import checked_url, format_duration, redact
from bdauto.errors import ServiceDown, ServiceDrift, ServiceError, TokenRefused, UsageError
from bdauto.sanitize import clean, hide_secrets

BODY_LIMIT = 1 << 20
KEPT = 1 << 20
"""Bytes to keep of each text in a job's record that is larger than BODY_LIMIT: it holds all output."""
KEPT_LOG = 1 << 24
"""The same, when the output is to be shown to a person."""
SHORTEST_SECRET = 8
"""Bytes of a token that is looked for in answers; a shorter one is found in any text."""
LIST_LIMIT = 1 << 26
"""Bytes of BeadBoard's list of all beads, which `bdauto doctor` alone reads."""
CANNOT_CANCEL = "it ends its jobs by itself, after its own time limit; `bd update {id} -s blocked` keeps it from others"
T = TypeVar("T")


class _Status(msgspec.Struct, frozen=True):
    busy: bool


class _Health(msgspec.Struct, frozen=True):
    busy: bool
    active: Annotated[int, msgspec.Meta(ge=0)] | None = None
    queued: Annotated[int, msgspec.Meta(ge=0)] | None = None
    capacity: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Job(msgspec.Struct, frozen=True):
    status: str


class _ListedBead(msgspec.Struct, frozen=True):
    id: str


class _Listed(msgspec.Struct, frozen=True):
    issues: list[_ListedBead]


class _Dispatched(msgspec.Struct, frozen=True):
    job_id: Annotated[str, msgspec.Meta(pattern=JOB_PATTERN)]


class Reply(msgspec.Struct, frozen=True):
    """An HTTP answer, complete and bounded. `date` is the server's Date header."""

    status: int
    body: bytes
    date: str = ""


class Services:
    """BeadBoard and the agent service, as the settings name them. Use as a context manager."""

    call_ended: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, settings: ServiceSettings, transport: httpx.BaseTransport | None = None) -> None:
        """Take the settings. `transport` replaces the network. Raises UsageError for what can never work.

        Proxy variables and .netrc are ignored: they could send the bearer token to another host.
        """
        self.settings = settings
        self._token = settings.agent_token
        urls = [_usable(url) for url in (settings.beadboard_url, settings.agent_url) if url]
        self.questions = JobQuestions(self.job, settings.timeout)
        seconds = settings.timeout.total_seconds()
        self._client = httpx.Client(
            timeout=httpx.Timeout(seconds, connect=seconds * 0.9),
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "bdauto"},
            follow_redirects=False,
            verify=any(url.startswith("https") for url in urls) and _certificates(),
            trust_env=False,
            transport=transport,
        )

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def beadboard_busy(self) -> bool:
        """Return BeadBoard's `busy`, which is false also when the agent service is down."""
        url = _join(self.settings.beadboard_url, "/api/agent-status")
        return self._decode(self._get("BeadBoard", url), _Status, f"BeadBoard {redact(url)}").busy

    def listed_beads(self) -> frozenset[str] | None:
        """Return the ids of all beads that BeadBoard lists, or None if it has no such list. Raises ServiceError."""
        url = _join(self.settings.beadboard_url, "/api/beads/read")
        reply = self._get("BeadBoard", url, limit=LIST_LIMIT)
        if reply.status == httpx.codes.NOT_FOUND:
            return None
        return frozenset(bead.id for bead in self._decode(reply, _Listed, f"BeadBoard {redact(url)}").issues)

    def agent_capacity(self) -> Capacity:
        """Return the agent service's `capacity - active - queued`, or its `busy` where it does not count."""
        url = _join(self.settings.agent_url, "/health")
        health = self._decode(self._get("the agent service", url), _Health, f"the agent service {redact(url)}")
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
        before = self._token
        try:
            self._token = read_token(self.settings.agent_token_file) or before
        except UsageError as error:
            log.warning("token-unreadable", error=error)
        return self._token != before

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
        url, token = _join(self.settings.agent_url, f"/jobs/{quote(job, safe='')}"), self._token
        reply = self._get("the agent service", url, token, keep=keep)
        if reply.status == httpx.codes.UNAUTHORIZED:
            self.read_token()
            if self._token != token:
                reply = self._get("the agent service", url, self._token, keep=keep)
        if reply.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise TokenRefused(
                f"the agent service {redact(url)}: {_http_error(reply)}",
                hint="check --agent-token-file or API_BEARER_TOKEN",
            )
        if reply.status == httpx.codes.NOT_FOUND:
            return None
        what = f"the agent service {redact(url)}"
        self._decode(reply, _Job, what)
        return self._decode(reply, dict[str, Any], what)

    @property
    def knows_jobs(self) -> bool:
        """Whether the agent service is configured."""
        return bool(self.settings.agent_url)

    @property
    def longest_call(self) -> timedelta:
        """The time limit of a request."""
        return self.settings.timeout

    def status(self) -> ServiceStatus:
        """Ask both services, as far as they are configured, how they are."""
        return services_status(self)

    def evidence(self, beads: Collection[Bead], agent: Agent | None = None) -> tuple[JobEvidence, ServiceError | None]:
        """Ask the agent service about the jobs of beads in progress."""
        return services_evidence(self, beads, agent)

    def place(self) -> Place | None:
        """Return None: the agent service can be asked from anywhere."""
        return None

    def owns(self, bead: Bead) -> bool:
        """Return whether the claim was made for a service, and not for a local agent."""
        return not bead.local

    @property
    def checking(self) -> bool:
        """False: the agent service checks nothing."""
        return False

    def recent_runs(self, since: datetime) -> tuple[Run, ...]:
        """Return no runs: the agent service has no list of jobs."""
        return ()

    def unrecorded(self) -> tuple[tuple[str, str, JobEnd], ...]:
        """Return no jobs: the agent service keeps no files on this machine."""
        return ()

    def mark_recorded(self, job: str, *, deleted: bool) -> None:
        """Do nothing."""

    def failed_checks(self) -> tuple[FailedCheck, ...]:
        """Return nothing: the agent service checks nothing."""
        return ()

    def prompt(self, bead: Bead, attempt: str) -> str:
        """Return "": BeadBoard makes the prompt."""
        return ""

    def check_start(self, *, dry_run: bool = False) -> None:
        """Do nothing: only the POST shows whether a bead can be started."""

    def problem_with(self, bead: Bead) -> str:
        """Return "": only the POST shows whether this bead can be started."""
        return ""

    def jobs_of(self, bead: Bead) -> list[str]:
        """Return the ids of the bead's jobs, as the bead names them."""
        return recorded_jobs(bead)

    def jobs_here(self, bead_id: str) -> list[str]:
        """Return no jobs: the agent service has no list of a bead's jobs. The bead itself names them."""
        return []

    def output(self, job: str) -> JobOutput:
        """Return the output of a job."""
        return ServiceOutput(lambda: self.job(job, keep=KEPT_LOG))

    def jobs_at_work(self, bead: Bead) -> list[str]:
        """Return no jobs: finding them would take a request to the agent service."""
        return []

    def running_jobs(self) -> list[RunningJob]:
        """Return no jobs: the agent service cannot stop any."""
        return []

    def stop(self, job: str, why: str) -> bool:
        """Return False: the agent service cannot stop a job."""
        return False

    def check_cancel(self, bead: Bead) -> None:
        """Raise: no job can be ended there."""
        raise ServiceDrift(f"the agent service cannot end the job of {bead.id}", hint=CANNOT_CANCEL.format(id=bead.id))

    def cancel(self, job: str, who: str) -> str:
        """Raise: no job can be ended there."""
        raise ServiceDrift(f"the agent service cannot end job {job}, which {clean(who)} asked for")

    def start(self, bead: Bead, attempt: str) -> Answer:
        """Ask BeadBoard once to start the agent on a bead, and say what the answer means (docs/decisions.md).

        BeadBoard makes the job's id, and would start the same attempt twice.
        """
        url = _join(self.settings.beadboard_url, "/api/agent-dispatch")
        try:
            reply = self._request("POST", url, json={"taskId": bead.id})
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            return NotStarted(f"cannot connect to BeadBoard: {clean(str(error))}")
        except (httpx.HTTPError, _DeadlineError, _TooLargeError) as error:
            return Unknown(self._words(error))
        return _meaning(reply)

    def get(
        self, service: str, url: str, token: Secret | None = None, *, limit: int = BODY_LIMIT, keep: int = 0
    ) -> Reply:
        """GET a URL of a service. Raises ServiceDown without an answer. The caller judges the status.

        With `keep` a larger answer is a job's record, see JobReader.
        """
        try:
            return self._request("GET", url, token=token, limit=limit, keep=keep)
        except (httpx.HTTPError, _DeadlineError, _TooLargeError) as error:
            silent, words = not isinstance(error, _TooLargeError), f"{service} {redact(url)}: {self._words(error)}"
            raise ServiceDown(words, hint="check that it runs there", silent=silent) from None

    def _get(
        self, service: str, url: str, token: Secret | None = None, *, limit: int = BODY_LIMIT, keep: int = 0
    ) -> Reply:
        reply = self.get(service, url, token, limit=limit, keep=keep)
        if reply.status >= 500:
            raise ServiceDown(f"{service} {redact(url)}: {_http_error(reply)}")
        return reply

    def _decode(self, reply: Reply, shape: type[T], what: str) -> T:
        if reply.status != httpx.codes.OK:
            hint = "redirects are not followed: give the final URL" if 300 <= reply.status < 400 else ""
            raise ServiceDrift(f"{what}: {_http_error(reply)}", hint=hint)
        try:
            return msgspec.json.decode(reply.body, type=shape)
        except MALFORMED as error:
            raise ServiceDrift(f"{what}: {clean(str(error))}", hint="is this the right URL?") from None

    def _request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        token: Secret | None = None,
        limit: int = BODY_LIMIT,
        keep: int = 0,
    ) -> Reply:
        headers = {"authorization": f"Bearer {token.value}"} if token else {}
        seconds = self.settings.timeout.total_seconds()
        until = time.monotonic() + seconds
        with (
            _finally(self.call_ended),
            _deadline(seconds),
            self._client.stream(method, url, json=json, headers=headers) as response,
        ):
            body, chunks = bytearray(), _until(until, response.iter_raw())
            for chunk in chunks:
                body += chunk
                if len(body) > limit and keep and response.status_code == httpx.codes.OK:
                    body = bytearray(_shortened(body, chunks, keep))
                    break
                if len(body) > limit:
                    raise _TooLargeError(f"the answer is larger than {limit >> 20} MiB")
            return Reply(response.status_code, self._without_token(body), response.headers.get("date", ""))

    def _without_token(self, body: bytes | bytearray) -> bytes:
        """Return a body without the token, which a server may echo: it would end in notes and logs."""
        token = self._token.value.encode() if self._token else b""
        return bytes(body).replace(token, b"***") if len(token) >= SHORTEST_SECRET else bytes(body)

    def _words(self, error: Exception) -> str:
        if isinstance(error, httpx.TimeoutException | _DeadlineError):
            return f"no answer within {format_duration(self.settings.timeout)}"
        if isinstance(error, _TooLargeError):
            return str(error)
        return clean(str(error)) or type(error).__name__


def _shortened(start: bytes | bytearray, rest: Iterator[bytes], keep: int) -> bytes:
    """Return what JobReader keeps of a large record, as JSON. Reading stops early if the job is not over.

    A record that breaks off is accepted if its `status` came before. Raises _TooLargeError for what is no JSON object,
    and what the connection raised if the status is missing.
    """
    reader = JobReader(keep)
    try:
        for chunk in itertools.chain([bytes(start)], rest):
            reader.feed(chunk)
            if reader.record().get("status") in ALIVE:
                break
    except ValueError as error:
        raise _TooLargeError(f"the answer is larger than {BODY_LIMIT >> 20} MiB and {error}") from None
    except (httpx.HTTPError, _DeadlineError):
        if "status" not in reader.record():
            raise
    return msgspec.json.encode(reader.record())


def _meaning(reply: Reply) -> Answer:
    status = reply.status
    if status == httpx.codes.OK:
        try:
            return Started(msgspec.json.decode(reply.body, type=_Dispatched).job_id)
        except MALFORMED as error:
            return Unknown(f"HTTP 200 without a job id: {clean(str(error))}")
    words = _http_error(reply)
    if status < 300 or status == httpx.codes.GATEWAY_TIMEOUT:  # a gateway gave up waiting: the job may have started
        return Unknown(words)
    if status == httpx.codes.CONFLICT:
        return AtCapacity()
    if status == httpx.codes.BAD_REQUEST:
        return Refused(words)
    if status > httpx.codes.INTERNAL_SERVER_ERROR:
        return NotStarted(words)
    return Misconfigured(words)


def _http_error(reply: Reply) -> str:
    """Describe an answer: its code, and its `error` where it has one, else the start of its body."""
    try:
        value = msgspec.json.decode(reply.body, type=dict[str, object]).get("error")
    except MALFORMED:
        value = None
    text = value if isinstance(value, str) else reply.body[:4096].decode(errors="replace")
    return clean(hide_secrets(f"HTTP {reply.status}: {text}")).rstrip(": ")


def _usable(url: str) -> str:
    """Return a URL if its host can be looked up at all. Raises UsageError."""
    try:
        parsed = httpx.URL(checked_url(url))
        _ = parsed.host, parsed.raw_host.decode().encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        raise UsageError(f"{clean(redact(url), 80)!r} is not a URL: no host can be called so") from None
    return url


def _certificates() -> ssl.SSLContext:
    """Load the certificates to trust, which takes longer than a request. Raises UsageError."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        words = f"cannot set up TLS: {error.strerror or clean(str(error))}"
        raise UsageError(words, hint="check SSL_CERT_FILE, SSL_CERT_DIR and SSLKEYLOGFILE") from None


def _join(base: str | None, path: str) -> str:
    if not base:
        raise UsageError("the URL of BeadBoard is not set", hint="give --beadboard-url or BEADBOARD_URL")
    return base.rstrip("/") + path


class _DeadlineError(Exception):
    """The whole request took too long."""


class _TooLargeError(Exception):
    """The answer is larger than it may be."""


@contextlib.contextmanager
def _finally(call: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    finally:
        call()


def _until(moment: float, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield chunks up to a moment of the monotonic clock. Raises _DeadlineError."""
    for chunk in chunks:
        if time.monotonic() > moment:
            raise _DeadlineError
        yield chunk


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise _DeadlineError in the block after `seconds`, however slowly the answer comes.

    httpx bounds each single read, so a signal bounds the whole request. Signals reach only the main thread. In any
    other thread nothing is raised, and the caller must bound its own wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise _DeadlineError

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
