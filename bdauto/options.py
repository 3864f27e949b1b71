"""The command line's options, each defined once: its name, variable, help text and how it is parsed."""

import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from bdauto.errors import UsageError
from bdauto.log import LogFormat
from bdauto.settings import (
    DURATION_FORMS,
    BdSettings,
    DispatchSettings,
    OnStall,
    ReapSettings,
    RunSettings,
    Secret,
    ServiceSettings,
    WatchSettings,
    checked_url,
    parse_duration,
)

_BD, _SERVICE, _QUEUE, _REAPER, _OUTPUT = "bd", "Services", "Which beads", "Reaping", "Output"
_LOOP, _WATCH = "The loop", "Metrics and notifications"

Db = Annotated[
    Path | None,
    typer.Option(
        "--db", envvar="BDAUTO_DB", metavar="DIR", help="The .beads folder. (default: bd finds it)", rich_help_panel=_BD
    ),
]
Metadata = Annotated[
    Path | None,
    typer.Option(
        envvar="BDAUTO_METADATA",
        metavar="FILE",
        help="A metadata.json to copy into a private folder that is used as --db; nothing is written beside it.",
        rich_help_panel=_BD,
    ),
]
BdPath = Annotated[
    str, typer.Option("--bd", envvar="BDAUTO_BD", metavar="PATH", help="The bd program.", rich_help_panel=_BD)
]
BdTimeout = Annotated[
    str,
    typer.Option(envvar="BDAUTO_BD_TIMEOUT", metavar="DURATION", help="Bounds each call of bd.", rich_help_panel=_BD),
]
Assignee = Annotated[
    str,
    typer.Option(
        envvar="BDAUTO_ASSIGNEE", metavar="NAME", help="Whose beads are handed to the agent.", rich_help_panel=_BD
    ),
]
Actor = Annotated[
    str,
    typer.Option(envvar="BEADS_ACTOR", metavar="NAME", help="Who the tracker says wrote.", rich_help_panel=_BD),
]
BeadBoardUrl = Annotated[
    str | None,
    typer.Option(
        "--beadboard-url", envvar="BEADBOARD_URL", metavar="URL", help="BeadBoard. Required.", rich_help_panel=_SERVICE
    ),
]
Timeout = Annotated[
    str,
    typer.Option(
        envvar="BDAUTO_TIMEOUT", metavar="DURATION", help="Bounds one whole HTTP request.", rich_help_panel=_SERVICE
    ),
]
AgentUrl = Annotated[
    str | None,
    typer.Option(
        envvar="BDAUTO_AGENT_URL",
        metavar="URL",
        help="The agent service: its capacity, and its word on jobs. (default: neither is used)",
        rich_help_panel=_SERVICE,
    ),
]
AgentTokenFile = Annotated[
    Path | None,
    typer.Option(
        envvar="BDAUTO_AGENT_TOKEN_FILE",
        metavar="FILE",
        help="Holds the agent service's bearer token. (default: the variable API_BEARER_TOKEN)",
        rich_help_panel=_SERVICE,
    ),
]
Max = Annotated[
    int, typer.Option("--max", envvar="BDAUTO_MAX", min=1, help="Beads in one cycle.", rich_help_panel=_QUEUE)
]
MaxAttempts = Annotated[
    int,
    typer.Option(
        envvar="BDAUTO_MAX_ATTEMPTS",
        min=1,
        help="Attempts before a refused bead is set aside, or a stalled one is no longer requeued.",
        rich_help_panel=_QUEUE,
    ),
]
ExcludeTypes = Annotated[
    list[str],
    typer.Option(
        "--exclude-type",
        envvar="BDAUTO_EXCLUDE_TYPES",
        metavar="TYPE",
        help="Never these types.",
        rich_help_panel=_QUEUE,
    ),
]
TrustedCreators = Annotated[
    list[str],
    typer.Option(
        "--trusted-creator",
        envvar="BDAUTO_TRUSTED_CREATORS",
        metavar="NAME",
        help="Only beads created by one of these. (default: anyone)",
        rich_help_panel=_QUEUE,
    ),
]
Labels = Annotated[
    list[str],
    typer.Option(
        "--label", envvar="BDAUTO_LABELS", metavar="LABEL", help="Only beads with all of these.", rich_help_panel=_QUEUE
    ),
]
ExcludeLabels = Annotated[
    list[str],
    typer.Option(
        "--exclude-label",
        envvar="BDAUTO_EXCLUDE_LABELS",
        metavar="LABEL",
        help="Never beads with one of these.",
        rich_help_panel=_QUEUE,
    ),
]
Threshold = Annotated[
    str,
    typer.Option(
        envvar="BDAUTO_THRESHOLD",
        metavar="DURATION",
        help="A bead without an update for longer is stalled.",
        rich_help_panel=_REAPER,
    ),
]
Grace = Annotated[
    str,
    typer.Option(
        envvar="BDAUTO_GRACE",
        metavar="DURATION",
        help="A claim without a job or a sign of the agent for longer is released.",
        rich_help_panel=_REAPER,
    ),
]
OnStallOption = Annotated[
    OnStall, typer.Option(envvar="BDAUTO_ON_STALL", help="What becomes of a stalled bead.", rich_help_panel=_REAPER)
]
MaxReap = Annotated[
    int,
    typer.Option(
        envvar="BDAUTO_MAX_REAP",
        min=1,
        help="More beads than this to settle by age in one sweep, and nothing is written.",
        rich_help_panel=_REAPER,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Settle them all the same.", rich_help_panel=_REAPER)]
Check = Annotated[
    bool,
    typer.Option(
        "--check", help="Exit with status 5 and say why when something needs a person.", rich_help_panel=_OUTPUT
    ),
]
Watch = Annotated[
    str | None,
    typer.Option(
        "--watch",
        metavar="[DURATION]",
        help="Show it again and again, every 2s unless told otherwise; ends with Ctrl-C.",
        rich_help_panel=_OUTPUT,
    ),
]
Limit = Annotated[int, typer.Option("--limit", min=0, help="Beads in each list; 0 shows all.", rich_help_panel=_OUTPUT)]
IgnorePause = Annotated[bool, typer.Option("--ignore-pause", help="Work although `bdauto pause` is in force.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Read and decide for real; write nothing, post nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_OUTPUT)]
LogFormatOption = Annotated[
    LogFormat | None,
    typer.Option(
        "--log-format",
        envvar="BDAUTO_LOG_FORMAT",
        help="The log on stderr. (default: text on a terminal, else keyvalue)",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log each step.", rich_help_panel=_OUTPUT)]

MetricsFile = Annotated[
    Path | None,
    typer.Option(
        envvar="BDAUTO_METRICS_FILE",
        metavar="FILE",
        help="Write metrics there for node_exporter's textfile collector.",
        rich_help_panel=_WATCH,
    ),
]
PushgatewayUrl = Annotated[
    str | None,
    typer.Option(
        "--pushgateway",
        envvar="BDAUTO_PUSHGATEWAY",
        metavar="URL",
        help="Push metrics to this Pushgateway.",
        rich_help_panel=_WATCH,
    ),
]
NotifyUrls = Annotated[
    list[str],
    typer.Option(
        "--notify-url",
        envvar="BDAUTO_NOTIFY_URLS",
        metavar="URL",
        help="Tell this Apprise URL what a person should know. Repeatable; in the variable, separated by spaces.",
        rich_help_panel=_WATCH,
    ),
]
DispatchEvery = Annotated[
    str,
    typer.Option(
        envvar="BDAUTO_DISPATCH_EVERY",
        metavar="DURATION",
        help="The interval between dispatch cycles; up to four times that when there is nothing to do.",
        rich_help_panel=_LOOP,
    ),
]
ReapEvery = Annotated[
    str,
    typer.Option(
        envvar="BDAUTO_REAP_EVERY",
        metavar="DURATION",
        help="The interval between the reaper's sweeps.",
        rich_help_panel=_LOOP,
    ),
]
Listen = Annotated[
    str | None,
    typer.Option(
        envvar="BDAUTO_LISTEN",
        metavar="[HOST:]PORT",
        help="Serve /healthz, /readyz and /metrics there; on 127.0.0.1 without a host. (default: off)",
        rich_help_panel=_LOOP,
    ),
]
For = Annotated[
    str | None,
    typer.Option("--for", metavar="DURATION", help="End by itself after this time. (default: until `bdauto resume`)"),
]
Reason = Annotated[str, typer.Argument(metavar="[REASON]", help="Why, for whoever wonders.", show_default=False)]

DISPATCH_EVERY, REAP_EVERY = "15s", "10m"
BD_TIMEOUT, TIMEOUT, THRESHOLD, GRACE, WATCH = "60s", "30s", "30m", "10m", "2s"
_NAME = re.compile(r"[\w.@+:/-]{1,255}")


def bd_settings(bd: str, db: Path | None, metadata: Path | None, timeout: str, assignee: str, actor: str) -> BdSettings:
    """Check the options of bd; raises UsageError."""
    if db is not None and metadata is not None:
        raise UsageError("--db and --metadata exclude each other: give one")
    if db is not None and not db.is_dir():
        raise UsageError(f"--db {db}: not a folder; name the .beads folder")
    for option, name in (("--assignee", assignee), ("--actor", actor)):
        if not _NAME.fullmatch(name):
            raise UsageError(f"{option} {name[:40]!r}: letters, digits and . _ @ + : / - only")
    return BdSettings(
        bd=bd, db=db, metadata=metadata, bd_timeout=duration("--bd-timeout", timeout), assignee=assignee, actor=actor
    )


def service_settings(
    beadboard_url: str | None,
    agent_url: str | None,
    token_file: Path | None,
    timeout: str,
    *,
    check: Callable[[str], str] = checked_url,
) -> ServiceSettings:
    """Check the options of the services and read the token; raises UsageError. `check` returns a URL that is one."""
    return ServiceSettings(
        beadboard_url=check(beadboard_url) if beadboard_url else None,
        agent_url=check(agent_url) if agent_url else None,
        agent_token=_token(token_file) if agent_url else None,
        timeout=duration("--timeout", timeout),
    )


def dispatch_settings(
    max_beads: int,
    max_attempts: int,
    exclude_types: list[str],
    trusted_creators: list[str],
    labels: list[str],
    exclude_labels: list[str],
    ignore_pause: bool = False,
    dry_run: bool = False,
) -> DispatchSettings:
    """Gather the options of dispatch."""
    return DispatchSettings(
        max_beads=max_beads,
        max_attempts=max_attempts,
        exclude_types=names(exclude_types),
        trusted_creators=names(trusted_creators),
        labels=names(labels),
        exclude_labels=names(exclude_labels),
        ignore_pause=ignore_pause,
        dry_run=dry_run,
    )


def reap_settings(
    threshold: str,
    grace: str,
    on_stall: OnStall,
    max_attempts: int,
    max_reap: int,
    force: bool = False,
    ignore_pause: bool = False,
    dry_run: bool = False,
) -> ReapSettings:
    """Gather the options of reap; raises UsageError."""
    return ReapSettings(
        threshold=duration("--threshold", threshold),
        grace=duration("--grace", grace),
        on_stall=on_stall,
        max_attempts=max_attempts,
        max_reap=max_reap,
        force=force,
        ignore_pause=ignore_pause,
        dry_run=dry_run,
    )


def run_settings(dispatch_every: str, reap_every: str, listen: str | None) -> RunSettings:
    """Gather the options of the loop; raises UsageError."""
    return RunSettings(
        dispatch_every=duration("--dispatch-every", dispatch_every),
        reap_every=duration("--reap-every", reap_every),
        listen=listen_address(listen) if listen else None,
    )


def listen_address(text: str) -> tuple[str, int]:
    """Parse `PORT`, `:PORT`, `HOST:PORT` or `[HOST]:PORT`; without a host, loopback. Raises UsageError."""
    match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[\w.-]*):)?([0-9]{1,5})", text.strip(), re.ASCII)
    if not match or int(match[2]) > 65_535:
        raise UsageError(f"--listen {text[:60]!r} is not an address: write it as [HOST:]PORT, e.g. 127.0.0.1:9464")
    return ((match[1] or "").strip("[]") or "127.0.0.1", int(match[2]))


def watch_settings(metrics_file: Path | None, pushgateway: str | None, notify_urls: list[str]) -> WatchSettings:
    """Check who is to be told what, and that the extras this takes are installed; raises UsageError."""
    if metrics_file:
        need("prometheus_client", "metrics", "--metrics-file")
        if not metrics_file.parent.is_dir() or metrics_file.is_dir():
            raise UsageError(f"--metrics-file {metrics_file}: name a file in a folder that exists")
    if pushgateway:
        need("prometheus_client", "metrics", "--pushgateway")
        if not re.fullmatch(r"(https?://)?[^\s/?#]+(/[^\s?#]*)?", pushgateway):
            raise UsageError("--pushgateway is not a URL: write it as http://HOST:PORT")
    urls = tuple(Secret(url) for url in notify_urls)
    if urls:
        need("apprise", "notify", "--notify-url")
        if not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", url.value) for url in urls):
            raise UsageError("--notify-url is not a URL: write it as SERVICE://…, as Apprise wants it")
    return WatchSettings(
        metrics_file=metrics_file, pushgateway=Secret(pushgateway) if pushgateway else None, notify_urls=urls
    )


def need(module: str, extra: str, option: str) -> None:
    """Raise UsageError when an optional library is not installed."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise UsageError(f"{option} needs {module}: pip install 'bdauto[{extra}]'")


def duration(option: str, text: str) -> timedelta:
    """Parse an option's duration; raises UsageError that names the option and the accepted forms."""
    try:
        return parse_duration(text)
    except UsageError:
        raise UsageError(f"{option} {text[:40]!r} is not a duration: write it as {DURATION_FORMS}") from None


def names(values: list[str]) -> tuple[str, ...]:
    """Split repeated options, which may hold several names separated by commas."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def _token(path: Path | None) -> Secret | None:
    if path is None:
        text = os.environ.get("API_BEARER_TOKEN", "")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise UsageError(f"--agent-token-file {path}: {reason}; name a readable file") from None
    token = text.strip()
    if not token:
        return None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError("the agent service's token is not one: printable ASCII without spaces only")
    return Secret(token)
