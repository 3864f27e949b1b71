"""The jobs of the agent service: which a bead had, and what they wrote, as `GET /jobs/{id}` has it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bdauto.domain.bead import Bead

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


def _text(value: object) -> str:
    if isinstance(value, list):
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in value if isinstance(line, str))
    if not isinstance(value, str) or not value:
        return ""
    return value if value.endswith("\n") else f"{value}\n"
