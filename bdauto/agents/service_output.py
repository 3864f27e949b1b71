"""Jobs of the agent service, from `GET /jobs/{id}`: those of a bead, their output, and how they ended."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from bdauto.agents.cli_adapters.table import read_end
from bdauto.domain.bead import Bead
from bdauto.domain.record import RESULTS, Result, Run
from bdauto.domain.results import last_line, told_end, whole_seconds
from bdauto.domain.times import parse_time

GONE = "forgotten"
"""The state of a job that the agent service does not know: an hour after its end, or since the service's restart."""


def recorded_jobs(bead: Bead) -> list[str]:
    """Return the ids of the jobs that a bead's record names, the oldest first."""
    return [*dict.fromkeys(job for job in (*(run.job for run in bead.record.all_runs), bead.record.job) if job)]


class ServiceOutput:
    """The output of one job: see `agents.runner.JobOutput`. `ask` returns what the service says of it, or None."""

    def __init__(self, ask: Callable[[], Mapping[str, Any] | None]) -> None:
        self._ask = ask
        self._answer: Mapping[str, Any] | None = None
        self._seen: dict[str, int] = {}

    agent = ""

    def state(self) -> str:
        """Ask the service, and return the job's state."""
        self._answer = self._ask()
        return str(self._answer.get("status", "unknown")) if self._answer else GONE

    def read(self) -> Iterator[bytes]:
        """Yield what came since the last time, as of the last `state`."""
        for part in ("output", "stderr", "error"):
            text = _text((self._answer or {}).get(part))
            yield text[self._seen.get(part, 0) :].encode(errors="replace")
            self._seen[part] = max(len(text), self._seen.get(part, 0))


def job_end(job: Mapping[str, Any], now: datetime) -> Run | None:
    """Read the end of a job from the agent service's `GET /jobs/{id}`. None while it is not over.

    `started_at` and `finished_at` are used if they are plausible. An end in the future is taken as now. The zone
    of the machine that ran the agent is unknown.
    """
    status = job.get("status")
    result = RESULTS.get(status) if isinstance(status, str) else None
    if result is None:
        return None
    started, finished = _moment(job.get("started_at")), _moment(job.get("finished_at"))
    ended_at = min(finished or now, now)
    chunks = (_text(job.get(part)).encode(errors="replace") for part in ("stderr", "output"))
    said = read_end(chunks, "", ended_at, None, failed=result is Result.failed)
    seconds = whole_seconds(finished - started) if started and finished else None
    words, code = last_line(_text(job.get("error"))), job.get("exit_code")
    return told_end(result, ended_at, said, seconds=seconds, words=words, exit_code=code if type(code) is int else None)


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return parse_time(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _text(value: object) -> str:
    if isinstance(value, list):
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in value if isinstance(line, str))
    if not isinstance(value, str) or not value:
        return ""
    return value if value.endswith("\n") else f"{value}\n"
