"""Which runs a reader asks for: the query of `/runs` and of `/api/runs`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode

from bdauto.diagnostics.run_list import ListedRun, State
from bdauto.domain.results import detail

SINCE = {"1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
"""The times to choose from. They are few, since each is read from the tracker for itself."""
TEXT_LIMIT = 100
"""Characters of a text that is searched for."""


@dataclass(frozen=True)
class RunQuery:
    """The runs of the last `since` in this `state`, "" for all. `q` is in the id, title, agent or last words."""

    state: str = ""
    since: str = "7d"
    q: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "RunQuery":
        """Read a query. What it does not know counts as not given."""
        state, since = query.get("state", ""), query.get("since", "")
        return cls(
            state if state in {*State} else "",
            since if since in SINCE else "7d",
            query.get("q", "").strip()[:TEXT_LIMIT],
        )

    @property
    def span(self) -> timedelta:
        """The time that is asked for."""
        return SINCE[self.since]

    def wants(self, one: ListedRun) -> bool:
        """Return whether a run is among those asked for."""
        texts = (one.bead, one.title or "", one.run.agent or "", detail(one.run), one.how)
        return self.state in ("", one.state) and self.q.lower() in "\n".join(texts).lower()

    def link(self, **other: str) -> str:
        """Return the address of the page with these parts replaced."""
        parts = {"state": self.state, "since": self.since, "q": self.q} | other
        return f"/runs?{urlencode({name: value for name, value in parts.items() if value})}"
