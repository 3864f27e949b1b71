"""Checks of settings against each other and against this host. All raise UsageError."""

import re
from collections.abc import Callable
from typing import Any

from bdauto.agents import kinds
from bdauto.agents.kinds import AgentSettings
from bdauto.bd.command import is_database, unconfigured_folder
from bdauto.bd.tracker import redirected
from bdauto.common.errors import UsageError
from bdauto.common.extras import EXTRAS, advice, missing
from bdauto.domain.settings import Acceptance, BdSettings, DispatchSettings, TelemetrySettings
from bdauto.domain.values import checked_url, full_url


def check_bd(settings: BdSettings) -> BdSettings:
    """Check which database is named."""
    exclude_databases(settings)
    if settings.db is not None and not is_database(str(redirected(settings.db))):
        inside = settings.db / ".beads"
        hint = f"name the .beads folder: --db {inside}" if is_database(str(inside)) else "name the .beads folder"
        raise UsageError(f"--db {settings.db}: no metadata.json in it", hint=hint)
    if settings.db is None and settings.metadata is None and (folder := unconfigured_folder()):
        words = f"{folder}: no metadata.json in it, so bd would take an empty database for this one"
        raise UsageError(words, hint="restore it from git or a backup, or name another .beads folder with --db")
    return settings


def exclude_databases(settings: BdSettings) -> None:
    """Raise UsageError when two databases are named."""
    if settings.db is not None and settings.metadata is not None:
        raise UsageError("--db and --metadata exclude each other", hint="give one of them")


def check_acceptance(dispatch: DispatchSettings, agent: AgentSettings) -> None:
    """Raise UsageError for beads without acceptance criteria that would go to BeadBoard."""
    if dispatch.acceptance == Acceptance.optional and agent.beadboard_url:
        raise UsageError(
            "--acceptance optional does not go with --beadboard-url: BeadBoard refuses a bead without them",
            hint="leave it out, or use an agent service or an agent on this machine",
        )


def check_dispatch(dispatch: DispatchSettings, agent: AgentSettings) -> None:
    """Raise UsageError for settings of a dispatch that do not go with what runs the agent."""
    check_acceptance(dispatch, agent)
    _check_costs(dispatch, agent)


def _check_costs(dispatch: DispatchSettings, agent: AgentSettings) -> None:
    """Raise UsageError for a limit on a day's costs that cannot be held, because the agent is known to say none."""
    limits = (dispatch.max_cost_per_day, dispatch.cost_per_day_of_all)
    if limits == (None, None) or dispatch.cost_per_run is not None or agent.agent is None:
        return
    from bdauto.agents.cli_adapters.table import ADAPTERS

    if not ADAPTERS[agent.agent].tells_cost:
        raise UsageError(
            f"--max-cost-per-day cannot be held: {agent.agent} does not say what a run costs",
            hint="give --cost-per-run USD, which then counts for each run",
        )


def check_telemetry(settings: TelemetrySettings) -> TelemetrySettings:
    """Check the URLs, and that the extras they need are installed."""
    if settings.pushgateway:
        need("metrics", "--pushgateway")
    if settings.notify_urls:
        need("notify", "--notify-url")
    for option, given in (("--notify-on", settings.notify_on), ("--digest-at", settings.digest_at)):
        if given and not settings.notify_urls:
            raise UsageError(f"{option} needs somebody to send to", hint="give --notify-url too")
    check_telemetry_urls(settings)
    return settings


def check_telemetry_urls(settings: TelemetrySettings) -> None:
    """Check the URLs of the Pushgateway and of notifications. No error shows them."""
    try:
        checked_url(full_url(settings.pushgateway.value if settings.pushgateway else "not.asked"))
    except UsageError:  # its words may hold the password
        raise UsageError("--pushgateway is not a URL", hint="write it as http://HOST:PORT") from None
    if not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", url.value) for url in settings.notify_urls):
        raise UsageError("--notify-url is not a URL", hint="write it as SERVICE://…, as Apprise documents it")


def need(extra: str, option: str) -> None:
    """Check that the libraries behind an option are installed."""
    if missing(extra):
        raise UsageError(f"{option} needs {' and '.join(EXTRAS[extra])}", hint=advice(extra))


CHECKS: dict[type, Callable[[Any], Any]] = {
    BdSettings: check_bd,
    AgentSettings: kinds.check,
    TelemetrySettings: check_telemetry,
}
