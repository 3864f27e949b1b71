"""HTTP with bounds, for services that may be slow, broken or hostile. The only module that imports httpx.

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
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import FrameType
from typing import TypeVar

import msgspec

sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # httpx's own command line: a third of its import

import httpx

from bdauto.agents.job_reader import JobReader
from bdauto.common.errors import ServiceDown, ServiceDrift, UsageError
from bdauto.common.sanitize import clean, without_secrets
from bdauto.domain.bead import MALFORMED
from bdauto.domain.reaping import ALIVE
from bdauto.domain.settings import Secret
from bdauto.domain.values import checked_url, format_duration, redact

BODY_LIMIT = 1 << 20
SHORTEST_SECRET = 8
"""Bytes of a token that is looked for in answers. A shorter one is found in any text."""
T = TypeVar("T")
Transport = httpx.BaseTransport
"""What takes the place of the network in tests."""


class RequestError(Exception):
    """A request without an answer that can be used. It may have been handled."""

    silent = True
    """True: there was no answer at all."""


class NotSentError(RequestError):
    """Nothing was sent: there was no connection."""


class TooLargeError(RequestError):
    """The answer is larger than it may be."""

    silent = False


class _DeadlineError(Exception):
    """The whole request took too long."""


class Reply(msgspec.Struct, frozen=True):
    """An HTTP answer, complete and bounded. `date` is the server's Date header."""

    status: int
    body: bytes
    date: str = ""

    def decode(self, shape: type[T], what: str) -> T:
        """Return the body of a 200 as this type. Raises ServiceDrift, which names `what`."""
        if self.status != httpx.codes.OK:
            hint = "redirects are not followed: give the final URL" if 300 <= self.status < 400 else ""
            raise ServiceDrift(f"{what}: {self.describe()}", hint=hint)
        try:
            return msgspec.json.decode(self.body, type=shape)
        except MALFORMED as error:
            raise ServiceDrift(f"{what}: {clean(str(error))}", hint="is this the right URL?") from None

    def describe(self) -> str:
        """Return the answer's code, and its `error` or `detail` where it has one, else the start of its body."""
        try:
            fields = msgspec.json.decode(self.body, type=dict[str, object])
        except MALFORMED:
            fields = {}
        value = fields.get("error") or fields.get("detail")
        text = value if isinstance(value, str) else self.body[:4096].decode(errors="replace")
        return without_secrets(f"HTTP {self.status}: {text}").rstrip(": ")


class HttpClient:
    """Makes bounded requests. `token` goes with the requests that ask for it, and is hidden in every answer."""

    def __init__(
        self,
        timeout: timedelta,
        *urls: str | None,
        token: Secret | None = None,
        ended: Callable[[], None] = lambda: None,
        transport: Transport | None = None,
    ) -> None:
        """Take the URLs that will be used. `ended` is called after each request. `transport` replaces the network.

        Proxy variables and .netrc are ignored: they could send the token to another host. Raises UsageError for what
        can never work.
        """
        self.token = token
        self._timeout = timeout
        self._ended = ended
        seconds = timeout.total_seconds()
        secure = any(_usable(url).startswith("https") for url in urls if url)
        self._client = httpx.Client(
            timeout=httpx.Timeout(seconds, connect=seconds * 0.9),
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "bdauto"},
            follow_redirects=False,
            verify=secure and _certificates(),
            trust_env=False,
            transport=transport,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def post(self, url: str, json: object, *, authorized: bool = False) -> Reply:
        """POST once. Raises NotSentError if nothing was sent, else RequestError if there is no usable answer."""
        return self.request("POST", url, json=json, authorized=authorized)

    def get(self, service: str, url: str, *, authorized: bool = False, limit: int = BODY_LIMIT, keep: int = 0) -> Reply:
        """GET a URL of a service. Raises ServiceDown without an answer and for a server's error.

        The caller judges any other status. With `keep` a larger answer is a job's record, see JobReader.
        """
        try:
            reply = self.request("GET", url, authorized=authorized, limit=limit, keep=keep)
        except RequestError as error:
            words = f"{service} {redact(url)}: {error}"
            raise ServiceDown(words, hint="check that it runs there", silent=error.silent) from None
        if reply.status >= 500:
            raise ServiceDown(f"{service} {redact(url)}: {reply.describe()}")
        return reply

    def request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        authorized: bool = False,
        limit: int = BODY_LIMIT,
        keep: int = 0,
    ) -> Reply:
        """Make a request. Raises RequestError."""
        try:
            return self._request(method, url, json, authorized=authorized, limit=limit, keep=keep)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            late = isinstance(error, httpx.TimeoutException) and method == "GET"
            raise NotSentError(self._late if late else clean(str(error)) or type(error).__name__) from None
        except (httpx.TimeoutException, _DeadlineError):
            raise RequestError(self._late) from None
        except httpx.HTTPError as error:
            raise RequestError(clean(str(error)) or type(error).__name__) from None

    @property
    def _late(self) -> str:
        return f"no answer within {format_duration(self._timeout)}"

    def _request(self, method: str, url: str, json: object, *, authorized: bool, limit: int, keep: int) -> Reply:
        headers = {"authorization": f"Bearer {self.token.value}"} if self.token and authorized else {}
        seconds = self._timeout.total_seconds()
        until = time.monotonic() + seconds
        with (
            _finally(self._ended),
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
                    raise TooLargeError(f"the answer is larger than {limit >> 20} MiB")
            return Reply(response.status_code, self._without_token(body), response.headers.get("date", ""))

    def _without_token(self, body: bytes | bytearray) -> bytes:
        """Return a body without the token, which a server may echo: it would end in notes and logs."""
        token = self.token.value.encode() if self.token else b""
        return bytes(body).replace(token, b"***") if len(token) >= SHORTEST_SECRET else bytes(body)


def _shortened(start: bytes | bytearray, rest: Iterator[bytes], keep: int) -> bytes:
    """Return what JobReader keeps of a large record, as JSON. Reading stops early if the job is not over.

    A record that breaks off is accepted if its `status` came before. Raises TooLargeError for what is no JSON object,
    and what the connection raised if the status is missing.
    """
    reader = JobReader(keep)
    try:
        for chunk in itertools.chain([bytes(start)], rest):
            reader.feed(chunk)
            if reader.record().get("status") in ALIVE:
                break
    except ValueError as error:
        raise TooLargeError(f"the answer is larger than {BODY_LIMIT >> 20} MiB and {error}") from None
    except (httpx.HTTPError, _DeadlineError):
        if "status" not in reader.record():
            raise
    return msgspec.json.encode(reader.record())


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
