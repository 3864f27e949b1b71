"""Reports on stdout: a few aligned lines for people, one JSON object for programs."""

import json
import sys
from collections.abc import Mapping, Sequence

from bdauto.common.sanitize import clean
from bdauto.domain.outcome import BeadOutcome, BeadReport, Report

SCHEMA_VERSION = 1
DETAIL_LIMIT = 200


def render(report: Report, as_json: bool) -> str:
    """Return a report as text or JSON. docs/cli.md has the JSON contract."""
    return _json(report) if as_json else _text(report)


def envelope(command: str, fields: Mapping[str, object]) -> str:
    """Return the JSON object of a command that has no `Report`."""
    return json.dumps({"schema_version": SCHEMA_VERSION, "command": command, **fields})


def _json(report: Report) -> str:
    return json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "command": report.command,
            "dry_run": report.dry_run,
            "outcome": report.outcome,
            "detail": report.detail or None,
            "error": str(report.error) if report.error else None,
            "malformed": list(report.malformed),
            "beads": [_bead(bead) for bead in report.beads],
        }
    )


def _bead(bead: BeadReport) -> dict[str, str | None]:
    lane = {"lane": bead.lane} if bead.lane else {}
    return {"id": bead.id, **lane, "outcome": bead.outcome, "job": bead.job or None, "detail": bead.detail or None}


def _text(report: Report) -> str:
    dry, detail = " (dry run: nothing was written)" if report.dry_run else "", clean(report.detail, DETAIL_LIMIT)
    said = detail.startswith(report.outcome)  # as in "paused by ada"
    more = detail.removeprefix(report.outcome) if said else f": {detail}" if detail else ""
    head = f"{report.command}: {report.outcome}{dry}{more}"
    rows = [
        (
            bead.id,
            bead.lane,
            _would(report, bead) + bead.outcome.replace("_", " "),
            f"job {bead.job}" if bead.job and bead.job not in bead.detail else "",
            clean(bead.detail, DETAIL_LIMIT),
        )
        for bead in report.beads
    ]
    return "\n".join([head, *align(rows)])


def _would(report: Report, bead: BeadReport) -> str:
    return "would be " if report.dry_run and bead.outcome is not BeadOutcome.kept else ""


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align rows of text in columns, indented by two spaces and two apart. Empty columns take no space."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True) if w).rstrip() for row in rows]


def show(report: Report, as_json: bool) -> None:
    """Print a report on stdout, in colour if the terminal supports it."""
    text = render(report, as_json)
    if as_json or not sys.stdout.isatty():
        sys.stdout.write(text + "\n")
        return
    from rich.console import Console  # only a terminal pays for it
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    style = "red" if report.exit_code else "green" if report.outcome in ("dispatched", "reaped") else "dim"
    head, *rows = text.splitlines()
    console.print(Text(head, style=f"bold {style}"))
    for row in rows:
        console.print(Text(row))
