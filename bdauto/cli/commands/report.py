"""`bdauto report`."""

import sys
from pathlib import Path
from typing import Annotated

from bdauto.cli.context import start_log
from bdauto.cli.lane_settings import PerLane
from bdauto.cli.options import ELIGIBILITY, Part, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import envelope
from bdauto.cli.validation import need
from bdauto.common.clock import Runtime
from bdauto.common.errors import UsageError
from bdauto.diagnostics.activity import as_json, gather_activity
from bdauto.domain.settings import BdSettings, DispatchSettings, ReportSettings


@with_options
def report(
    what: ReportSettings,
    lanes: Annotated[PerLane, Part(DispatchSettings, ELIGIBILITY), Part(BdSettings)],
    output: OutputSettings,
) -> None:
    """Report what became of the beads: how many were done, what they cost, how long they took, why they failed."""
    if what.html:
        if len(lanes.serves) > 1:
            raise UsageError("--html is for one lane", hint="name it with --lane")
        need("web", "--html")
        if not what.html.parent.is_dir() or what.html.is_dir():
            raise UsageError(f"--html {what.html}: name a file in a folder that exists")
    start_log(output)
    now = Runtime().now()
    found = {}
    for lane in lanes.serves:
        with lanes.opened(lane) as tracker:
            since = what.since.moment(now.astimezone())
            found[lanes.name(lane)] = activity = gather_activity(tracker, lane.dispatch, since, what.by, now)
    if output.json:
        shown = {name: as_json(one) for name, one in found.items()}
        sys.stdout.write(envelope("report", shown.get("", {"lanes": shown})) + "\n")
    elif not what.html:
        from bdauto.cli import tables
        from bdauto.cli.activity_view import activity_view

        for name, one in found.items():
            tables.show(tables.in_lane(name, activity_view(one)) if name else activity_view(one))
    if what.html:
        from bdauto.web.rendering import report_page

        write_file(what.html, report_page(activity))
        sys.stderr.write(f"{what.html} was written\n")


def write_file(path: Path, text: str) -> None:
    """Write a file such that a reader never finds half of it. Raises UsageError."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise UsageError(
            f"--html {path}: {error.strerror}", hint="name a file in a folder that can be written"
        ) from None
