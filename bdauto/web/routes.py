"""From a path and its query to an answer: pages, JSON, the script, and the stream of a log."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar
from urllib.parse import parse_qsl

from bdauto.diagnostics.explanation import as_json as bead_json
from bdauto.diagnostics.looks import Looks
from bdauto.diagnostics.looks import as_json as status_json
from bdauto.diagnostics.snapshot import Snapshot
from bdauto.domain.bead import Bead
from bdauto.web.rendering import SCRIPT, content_security_policy
from bdauto.web.run_query import RunQuery
from bdauto.web.site import Html, Site

T = TypeVar("T")
HTML, JSON, EVENTS = "text/html; charset=utf-8", "application/json", "text/event-stream"
PARAMETERS = 10
"""Parameters of a query that are read."""


@dataclass(frozen=True)
class Answer:
    """An answer to a request. `chunks` has a method `close` if it is a stream."""

    status: int
    body: bytes = b""
    content_type: str = HTML
    chunks: Iterable[bytes] | None = None

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers beside type and length."""
        headers = {
            "content-security-policy": f"{content_security_policy(served=True)}; frame-ancestors 'none'",
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
            **({"retry-after": "5"} if self.status == 503 else {}),
        }
        return tuple(headers.items())


def answer(site: Callable[[], Site], path: str, query: str) -> Answer | None:
    """Return the answer to a request, or None if there is no such path."""
    try:
        asked = dict(parse_qsl(query, max_num_fields=PARAMETERS))
    except ValueError:
        return Answer(400, b"too many parameters\n", "text/plain; charset=utf-8")
    match path.split("/")[1:]:
        case [""]:
            return _html(site().front())
        case ["runs"]:
            return _html(site().runs(asked))
        case ["beads", bead] if bead:
            return _html(site().bead(bead, asked.get("job", "")))
        case ["beads", bead, "events"]:
            return _stream(site(), bead, asked.get("job", ""))
        case ["api", "status"]:
            return _api("status", site().looks(), lambda looks: status_json(looks, 0))
        case ["api", "beads"]:
            return _api("beads", site().looks(), _beads)
        case ["api", "beads", bead]:
            return _api("explain", site().explained(bead), lambda view: bead_json(view.explained))
        case ["api", "runs"]:
            runs = site().run_list(RunQuery.of(asked))
            return _api("runs", runs, lambda found: {"runs": [one.as_json() for one in found]})
        case ["page.js"]:
            return Answer(200, _script(), "text/javascript; charset=utf-8")
        case ["favicon.ico"]:
            return Answer(204)
        case _:
            return None


def _html(page: Html) -> Answer:
    return Answer(page.status, page.text.encode())


def _api(command: str, found: "T | Html", fields: Callable[[T], dict[str, object]]) -> Answer:
    if isinstance(found, Html):
        return Answer(found.status, json.dumps({"error": found.error}).encode(), JSON)
    return Answer(200, json.dumps({"schema_version": 1, "command": command, **fields(found)}).encode(), JSON)


def _beads(looks: Looks) -> dict[str, object]:
    """List the beads of the queues that are not closed, each with its status, and with its lane if there are several.

    `errors` says of a lane why it cannot be read.
    """
    errors = {name: str(seen) for name, seen in looks.items() if not isinstance(seen, Snapshot)}
    return {
        "beads": [
            {"id": bead.id, "title": bead.title, "priority": bead.priority, "status": bead.status, "list": kind}
            | ({"lane": name} if name else {})
            for name, seen in looks.items()
            if isinstance(seen, Snapshot)
            for kind, beads in _lists(seen).items()
            for bead in beads
        ],
        **({"errors": errors} if errors else {}),
    }


def _lists(snapshot: Snapshot) -> dict[str, Iterable[Bead]]:
    return {
        "queue": [found.bead for found in snapshot.queue],
        "in_progress": [one.bead for one in snapshot.running],
        "quarantined": snapshot.quarantined,
        "cancelled": snapshot.cancelled,
        "blocked": snapshot.blocked,
    }


def _stream(site: Site, bead: str, job: str) -> Answer:
    found = site.follow(bead, job)
    return _html(found) if isinstance(found, Html) else Answer(200, content_type=EVENTS, chunks=found)


@cache
def _script() -> bytes:
    return SCRIPT.read_bytes()
