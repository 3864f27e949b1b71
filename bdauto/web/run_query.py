"""Which runs a reader asks for: the query of `/runs` and of `/api/runs`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode

from bdauto.diagnostics.run_list import ListedRun
from bdauto.domain.history import RunResult

SINCE = {"1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
"""The times to choose from. They are few, since each is read from the tracker for itself."""
TEXT_LIMIT = 100
"""Characters of a text that is searched for."""


@dataclass(frozen=True)
class RunQuery:
    """The runs of the last `since` in this `result`, "" for all. `q` is in the id, title, agent or last words."""

    result: str = ""
    since: str = "7d"
    q: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "RunQuery":
        """Read a query. What it does not know counts as not given."""
        result, since = query.get("result", ""), query.get("since", "")
        return cls(
            result if result in {*RunResult} else "",
            since if since in SINCE else "7d",
            query.get("q", "").strip()[:TEXT_LIMIT],
        )

    @property
    def span(self) -> timedelta:
        """The time that is asked for."""
        return SINCE[self.since]

    def wants(self, one: ListedRun) -> bool:
        """Return whether a run is among those asked for."""
        texts = (one.bead, one.title or "", one.run.agent or "", one.why)
        return self.result in ("", one.result) and self.q.lower() in "\n".join(texts).lower()

    def link(self, **other: str) -> str:
        """Return the address of the page with these parts replaced."""
        parts = {"result": self.result, "since": self.since, "q": self.q} | other
        return f"/runs?{urlencode({name: value for name, value in parts.items() if value})}"
