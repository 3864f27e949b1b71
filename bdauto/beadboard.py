"""BeadBoard, and the agent service behind it where it is configured: the one place that speaks HTTP.

Every request is bounded: one deadline for all of it, 1 MiB of answer, no redirects, no reuse of connections (a reused
one can die between the request and the answer, which would leave the outcome of a POST unknown).
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Annotated, TypeVar
from urllib.parse import quote

import msgspec

sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # httpx's own command line: a third of its import

import httpx

from bdauto.answers import Answer, AtCapacity, Misconfigured, NotStarted, Refused, Started, Unknown
from bdauto.errors import ServiceDown, ServiceDrift, UsageError
from bdauto.models import UNREADABLE
from bdauto.settings import Secret, ServiceSettings, checked_url, format_duration, redact
from bdauto.text import clean

BODY_LIMIT = 1 << 20
T = TypeVar("T")


class Capacity(msgspec.Struct, frozen=True):
    """How many beads the services would take; when they do not count, 1 stands for "at least one".

    `active`, `queued` and `total` are the agent service's own numbers, where it counts.
    """

    free: int
    counted: bool = False
    active: int = 0
    queued: int = 0
    total: int = 0


class _Status(msgspec.Struct, frozen=True):
    busy: bool


class _Health(msgspec.Struct, frozen=True):
    busy: bool
    active: Annotated[int, msgspec.Meta(ge=0)] | None = None
    queued: Annotated[int, msgspec.Meta(ge=0)] | None = None
    capacity: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Job(msgspec.Struct, frozen=True):
    status: str


class _Dispatched(msgspec.Struct, frozen=True):
    job_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,100}\Z")]


class Reply(msgspec.Struct, frozen=True):
    """An HTTP answer, read to the end and within bounds; `date` is the server's clock as it sent it."""

    status: int
    body: bytes
    date: str = ""


class Services:
    """BeadBoard and the agent service, as the settings name them. Use as a context manager."""

    def __init__(self, settings: ServiceSettings, transport: httpx.BaseTransport | None = None) -> None:
        """Take the settings; `transport` replaces the network. Raises UsageError for a URL that is none."""
        self.settings = settings
        urls = [checked_url(url) for url in (settings.beadboard_url, settings.agent_url) if url]
        seconds = settings.timeout.total_seconds()
        self._client = httpx.Client(
            timeout=httpx.Timeout(seconds, connect=seconds * 0.9),
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "bdauto"},
            follow_redirects=False,
            verify=any(url.startswith("https") for url in urls),  # loading certificates takes longer than a request
            transport=transport,
        )

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def capacity(self) -> Capacity:
        """Return what the services would take now: BeadBoard's word, and the agent service's where it is configured.

        BeadBoard is asked in either case, since it must take the POST. Raises ServiceDown or ServiceDrift.
        """
        if self.beadboard_busy():
            return Capacity(0)
        return self.agent_capacity() if self.settings.agent_url else Capacity(1)

    def beadboard_busy(self) -> bool:
        """Return BeadBoard's `busy`, which is false also when the agent service is down."""
        url = _join(self.settings.beadboard_url, "/api/agent-status")
        return self._decode(self._get("BeadBoard", url), _Status, f"BeadBoard {redact(url)}").busy

    def agent_capacity(self) -> Capacity:
        """Return the agent service's `capacity - active - queued`, or its `busy` where it does not count."""
        url = _join(self.settings.agent_url, "/health")
        health = self._decode(self._get("the agent service", url), _Health, f"the agent service {redact(url)}")
        if health.capacity is None or health.active is None or health.queued is None:
            return Capacity(0 if health.busy else 1)
        free = max(health.capacity - health.active - health.queued, 0)
        return Capacity(free, True, health.active, health.queued, health.capacity)

    def job_state(self, job: str) -> str | None:
        """Return the agent service's word on a job, None when it does not know the job; raises ServiceError."""
        url = _join(self.settings.agent_url, f"/jobs/{quote(job, safe='')}")
        reply = self._get("the agent service", url, self.settings.agent_token)
        if reply.status == httpx.codes.NOT_FOUND:
            return None
        return self._decode(reply, _Job, f"the agent service {redact(url)}").status

    def dispatch(self, bead_id: str) -> Answer:
        """Ask BeadBoard once to start the agent on a bead, and say what the answer means (docs/reliability.md)."""
        url = _join(self.settings.beadboard_url, "/api/agent-dispatch")
        try:
            reply = self._request("POST", url, json={"taskId": bead_id})
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            return NotStarted(f"cannot connect to BeadBoard: {clean(str(error))}")
        except (httpx.HTTPError, _DeadlineError, _TooLargeError) as error:
            return Unknown(self._words(error))
        return _meaning(reply)

    def get(self, service: str, url: str, token: Secret | None = None) -> Reply:
        """GET a URL of a service; raises ServiceDown when there is no answer. The status is the caller's to judge."""
        try:
            return self._request("GET", url, token=token)
        except (httpx.HTTPError, _DeadlineError, _TooLargeError) as error:
            raise ServiceDown(f"{service} {redact(url)}: {self._words(error)}; check that it runs there") from None

    def _get(self, service: str, url: str, token: Secret | None = None) -> Reply:
        reply = self.get(service, url, token)
        if reply.status >= 500:
            raise ServiceDown(f"{service} {redact(url)}: {_http_error(reply)}")
        return reply

    def _decode(self, reply: Reply, shape: type[T], what: str) -> T:
        if reply.status != httpx.codes.OK:
            hint = "; redirects are not followed: give the final URL" if 300 <= reply.status < 400 else ""
            raise ServiceDrift(f"{what}: {_http_error(reply)}{hint}")
        try:
            return msgspec.json.decode(reply.body, type=shape)
        except UNREADABLE as error:
            raise ServiceDrift(f"{what}: {clean(str(error))}; is this the right URL?") from None

    def _request(self, method: str, url: str, *, json: object = None, token: Secret | None = None) -> Reply:
        headers = {"authorization": f"Bearer {token.value}"} if token else {}
        with (
            _deadline(self.settings.timeout.total_seconds()),
            self._client.stream(method, url, json=json, headers=headers) as response,
        ):
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > BODY_LIMIT:
                    raise _TooLargeError
            return Reply(response.status_code, bytes(body), response.headers.get("date", ""))

    def _words(self, error: Exception) -> str:
        if isinstance(error, httpx.TimeoutException | _DeadlineError):
            return f"no answer within {format_duration(self.settings.timeout)}"
        if isinstance(error, _TooLargeError):
            return "the answer is larger than 1 MiB"
        return clean(str(error)) or type(error).__name__


def _meaning(reply: Reply) -> Answer:
    status = reply.status
    if status == httpx.codes.OK:
        try:
            return Started(msgspec.json.decode(reply.body, type=_Dispatched).job_id)
        except UNREADABLE as error:
            return Unknown(f"HTTP 200 without a job id: {clean(str(error))}")
    words = _http_error(reply)
    if status < 300:
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
    except UNREADABLE:
        value = None
    text = value if isinstance(value, str) else reply.body[:4096].decode(errors="replace")
    return clean(f"HTTP {reply.status}: {text}").rstrip(": ")


def _join(base: str | None, path: str) -> str:
    if not base:
        raise UsageError("the URL of BeadBoard is not set: give --beadboard-url or BEADBOARD_URL")
    return base.rstrip("/") + path


class _DeadlineError(Exception):
    """The whole request took too long."""


class _TooLargeError(Exception):
    """The answer is larger than BODY_LIMIT."""


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise _DeadlineError in the block after so many seconds, however slowly bytes trickle in.

    httpx bounds each read; only a signal bounds them all together. Off the main thread there are no signals, and
    httpx's own timeouts have to do.
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
