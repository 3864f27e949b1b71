"""What `bdauto run` shows on a terminal: a line for each event, with the bead's title, and a last line that is kept up.

It takes the events of the log. Where stderr is no terminal there is none of this, and rich is not imported.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bdauto.common import log
from bdauto.common.sanitize import clean
from bdauto.diagnostics.snapshot import Snapshot
from bdauto.diagnostics.wording import money
from bdauto.domain.figures import Figures
from bdauto.domain.values import format_age, format_duration

SHORTEST, LONGEST = 24, 100
"""Characters of a title, by the width of the terminal."""
BESIDE = 48
"""Columns that are left for what is beside a title."""
WORDS_LIMIT = 300
NARROW = 60
"""On a terminal with fewer columns, lines have no time."""
LISTED = 10
"""Jobs that are named at the end."""

Line = tuple[str, str, str]
"""A symbol, its style, and words, in which `{}` stands for what the event says."""
BEADS: Mapping[str, Line] = {
    "dispatched": ("●", "cyan", "started"),
    "would-dispatch": ("○", "cyan", "would be started"),
    "adopted": ("●", "cyan", "is worked on by a job that somebody else started"),
    "would-adopt": ("○", "cyan", "is worked on by a job that somebody else started"),
    "reverted": ("●", "cyan", "is claimed again: {}"),
    "blocked": ("✗", "bold red", "{}; it is blocked"),
    "quarantined": ("✗", "bold red", "quarantined: {}"),
    "requeued": ("↻", "yellow", "{}; it is open again"),
    "released": ("↻", "yellow", "{}; it is open again"),
    "would-reap": ("○", "yellow", "would be reaped: {}"),
    "asks": ("?", "bold yellow", "asks: {}"),
    "stopping": ("■", "yellow", "is being stopped: {}"),
    "refused": ("!", "yellow", "refused: {}"),
    "not_visible": ("!", "yellow", "not visible yet: {}"),
    "unavailable": ("!", "yellow", "not started: {}"),
    "misconfigured": ("!", "bold red", "not started: {}"),
    "unknown": ("!", "bold red", "nobody knows whether it was started: {}"),
    "failed": ("!", "bold red", "{}"),
    "unclear": ("!", "yellow", "{}"),
}
"""The events about a bead that are shown."""
OTHERS: Mapping[str, Line] = {
    "outage": ("!", "bold red", "{target} is down: {error}"),
    "recovered": ("✓", "green", "{target} works again"),
    "paused": ("‖", "yellow", "{detail}"),
    "resumed": ("▶", "green", "resumed"),
    "limited": ("‖", "yellow", "limited: {detail}"),
    "starved": ("!", "bold red", "starved: there is work and room, but nothing is dispatched. {detail}"),
    "breaker-open": ("!", "bold red", "{detail}"),
    "breaker-half-open": ("●", "yellow", "{bead} tries whether the agent works again"),
    "breaker-closed": ("✓", "green", "the agent works again"),
    "listening": ("◆", "cyan", "http://{address}/"),
}
"""The other events that are shown. Beyond these, warnings and errors are shown as they are in the log."""
SAID = ("target", "error", "detail", "address", "bead")
"""The fields that their words may name."""
SETTLED = frozenset({"blocked", "requeued", "released"})
"""Events of which the end of the job says more than their detail."""
ENDED = frozenset({"result", "blocked", "requeued", "released", "asks", "quarantined"})
PLAIN = str.maketrans("●○✗✓↻■‖▶◆·…", "*ox+~=|>#-.")
"""What stands for the symbols where the locale has none of them."""


class Screen(logging.Handler):
    """Shows events on a terminal. `running` are the ids and titles of the beads with a job, as far as is known.

    `next_look` returns the seconds until bdauto looks at the tracker again.
    """

    def __init__(self, console: Console, *, verbose: bool, now: Callable[[], datetime] = datetime.now) -> None:
        super().__init__()
        self.running: dict[str, str] = {}
        self.next_look: Callable[[], float] | None = None
        self._console = console
        self._verbose = verbose
        self._now = now
        self._titles: dict[str, str] = {}
        self._ends: dict[str, tuple[str, str]] = {}
        """How the jobs of beads ended, and their cost, until a sweep says what becomes of the bead."""
        self._queues: dict[str, tuple[Mapping[str, int], Figures]] = {}
        self._log = log.Formatter(log.LogFormat.text)
        self._unicode = console.encoding.lower().startswith("utf")
        self._live: Live | None = None
        self._lane = ""
        """The lane of the event that is shown, "" where there is one lane."""

    def __enter__(self) -> "Screen":
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self._last_line,
                refresh_per_second=1,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def emit(self, record: logging.LogRecord) -> None:
        """Show an event. A failure is told by `logging` and stops nothing."""
        try:
            text = self._text(record.getMessage(), getattr(record, "fields", {}), getattr(record, "aside", {}), record)
            if text is not None:
                self._console.print(text)
        except Exception:  # what is shown decides nothing
            self.handleError(record)

    def show_queue(self, lane: str, found: Snapshot, today: Figures) -> None:
        """Take note of a lane's queue and of what its runs of today came to."""
        self._queues[lane] = found.counts, today

    def goodbye(self, beads: Collection[str]) -> None:
        """Say which jobs go on, and what can be done about them."""
        self.__exit__()
        self._console.print(self._line("■", "bold", Text("stopped" + ("; these jobs go on:" if beads else ""))))
        for bead in sorted(beads)[:LISTED]:
            self._console.print(self._plain(Text.assemble("  ", (clean(bead), "cyan"), "  ", self._title(bead))))
        if len(beads) > LISTED:
            self._console.print(self._plain(Text(f"  … and {len(beads) - LISTED} more: bdauto runs --running")))
        for bead in sorted(beads)[:1]:
            for command, does in ((f"bdauto logs -f {bead}", "follows it"), (f"bdauto cancel {bead}", "ends it")):
                self._console.print(Text.assemble((f"  {command}", "bold"), (f"  {does}", "dim")))

    def _text(
        self, name: str, fields: Mapping[str, Any], aside: Mapping[str, Any], record: logging.LogRecord
    ) -> Text | None:
        bead = str(fields.get("bead", ""))
        if bead and "title_" in aside:
            self._titles[bead] = aside["title_"]
        self._lane = clean(str(fields.get("lane", "")))
        self._follow(name, bead, has_job=bool(fields.get("job")))
        if name == "start" and not self._verbose:
            version, assignee = fields.get("version"), fields.get("assignee", "agent")
            lane = f"lane {clean(str(fields['lane']))} of " if "lane" in fields else ""
            words = f"{lane}bdauto {version} takes the beads of {assignee}. Ctrl-C ends it."
            return self._line(" ", "", Text(words, "dim"))
        if name == "result" and bead:
            return self._result(bead, fields, str(aside.get("how_", "")))
        if name in BEADS and bead:
            return self._of_bead(name, bead, str(fields.get("detail", "")))
        if name in OTHERS:
            symbol, style, words = OTHERS[name]
            known = {name: clean(str(fields.get(name, "")), WORDS_LIMIT) for name in SAID}
            return self._line(symbol, style, Text(words.format_map(known).strip(), style))
        if record.levelno >= logging.WARNING or self._verbose:
            return self._plain(Text(self._log.format(record), "yellow" if record.levelno >= logging.WARNING else "dim"))
        return None

    def _of_bead(self, name: str, bead: str, detail: str) -> Text:
        symbol, style, words = BEADS[name]
        how, cost = self._ends.pop(bead, ("", ""))
        if how and name in SETTLED:
            symbol, style, detail = "✗", "bold red", how
        said = words.replace("{}", clean(detail, WORDS_LIMIT)) if detail else words.replace("{}", "").strip(" :;")
        return self._line(symbol, style, self._about(bead, said + cost, style))

    def _result(self, bead: str, fields: Mapping[str, Any], how: str) -> Text | None:
        """Show how a job ended. What a sweep says of its bead afterwards is shown with it."""
        seconds, cost, status = fields.get("seconds"), fields.get("cost_usd"), fields.get("status")
        took = f" after {format_duration(timedelta(seconds=seconds))}" if seconds is not None else ""
        paid = f", {money(cost)}" if cost is not None else ""
        if status == "closed":
            return self._line("✓", "bold green", self._about(bead, f"closed{took}{paid}", "green"))
        if status in ("in_progress", "open"):
            self._ends[bead] = how, paid
            return None
        why = "blocked by its agent" if status == "blocked" else f"its job ended, and the bead is {status}"
        return self._line("?", "bold yellow", self._about(bead, f"{fields.get('result')}{took}{paid}: {why}", "yellow"))

    def _follow(self, name: str, bead: str, *, has_job: bool) -> None:
        """Keep up which beads have a job."""
        if name in ("dispatched", "adopted", "kept") and has_job:
            self.running[bead] = self._titles.get(bead, "")
        elif name in ENDED:
            self.running.pop(bead, None)

    def _about(self, bead: str, words: str, style: str) -> Text:
        lane = f" ({self._lane})" if self._lane else ""
        return Text.assemble((clean(bead), "cyan"), (lane, "dim"), " ", self._title(bead), " ", (words, style))

    def _title(self, bead: str) -> Text:
        """Return a bead's title. A mark behind one that runs from right to left keeps what follows in its place."""
        limit = min(max(self._console.width - BESIDE, SHORTEST), LONGEST)
        title = clean(self._titles.get(bead, ""), limit)
        turned = any(unicodedata.bidirectional(c) in ("R", "AL") for c in title)
        return Text(title + ("\u200e" if turned else ""))

    def _line(self, symbol: str, style: str, words: Text) -> Text:
        moment = () if self._console.width < NARROW else ((f"{self._now():%H:%M:%S} ", "dim"),)
        return self._plain(Text.assemble(*moment, (symbol, style), " ", words))

    def _plain(self, text: Text) -> Text:
        """Return the text as the terminal's locale can show it."""
        if not self._unicode:
            text.plain = text.plain.translate(PLAIN)
        return text

    def _last_line(self) -> Text:
        parts = [f"{len(self.running)} running"]
        queues = [*self._queues.values()]
        counts = sum((Counter(found) for found, _ in queues), Counter[str]())
        closed, cost = sum(today.closed for _, today in queues), sum(today.cost_usd or 0 for _, today in queues)
        stuck = counts["blocked"] + counts["quarantined"]
        parts += [f"{counts[state]} {state}" for state in ("eligible", "waiting") if counts[state]]
        parts += [f"{stuck} blocked"] if stuck else []
        parts += [f"{closed} closed today"] if closed else []
        parts += [f"{money(cost)} today"] if cost else []
        if self.next_look:
            left = self.next_look()
            parts.append(f"next look in {format_age(timedelta(seconds=left))}" if left >= 1 else "looking")
        return self._plain(Text(" · ".join(parts), "dim", no_wrap=True, overflow="ellipsis"))
