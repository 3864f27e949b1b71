"""Checks of settings against each other and against this host. All raise UsageError."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bdauto.agents.beadboard.settings import ServiceSettings
from bdauto.agents.local.settings import CommandLine, LocalAgentSettings
from bdauto.agents.token import read_token
from bdauto.bd.command import is_database, unconfigured_folder
from bdauto.bd.tracker import redirected
from bdauto.domain.settings import BdSettings, DispatchSettings, TelemetrySettings
from bdauto.domain.values import checked_url, full_url
from bdauto.errors import UsageError
from bdauto.extras import EXTRAS, how_to_install, missing


def check_bd(settings: BdSettings) -> BdSettings:
    """Check which database is named."""
    if settings.db is not None and settings.metadata is not None:
        raise UsageError("--db and --metadata exclude each other", hint="give one of them")
    if settings.db is not None and not is_database(str(redirected(settings.db))):
        inside = settings.db / ".beads"
        hint = f"name the .beads folder: --db {inside}" if is_database(str(inside)) else "name the .beads folder"
        raise UsageError(f"--db {settings.db}: no metadata.json in it", hint=hint)
    if settings.db is None and settings.metadata is None and (folder := unconfigured_folder()):
        words = f"{folder}: no metadata.json in it, so bd would take an empty database for this one"
        raise UsageError(words, hint="restore it from git or a backup, or name another .beads folder with --db")
    return settings


def check_services(settings: ServiceSettings) -> ServiceSettings:
    """Check the URLs."""
    for flag, url in (("--beadboard-url", settings.beadboard_url), ("--agent-url", settings.agent_url)):
        try:
            checked_url(url or "http://not.asked")
        except UsageError as error:
            raise UsageError(f"{flag} {error.message}") from None
    if settings.agent_url and "@" in urlsplit(settings.agent_url).netloc:
        raise UsageError(
            "--agent-url holds a user name or a password, which would replace the bearer token",
            hint="put the token into --agent-token-file or API_BEARER_TOKEN",
        )
    return with_token(settings)


def with_token(settings: ServiceSettings) -> ServiceSettings:
    """Return the settings with the agent service's token, where that service is configured."""
    if not settings.agent_url:
        return settings
    return msgspec.structs.replace(settings, agent_token=read_token(settings.agent_token_file))


def check_local(settings: LocalAgentSettings) -> LocalAgentSettings:
    """Return the settings with the command of the agent that is named, unless a command is given, too."""
    if settings.model and (settings.agent is None or settings.agent_command):
        hint = "write the model into the command" if settings.agent_command else "give --agent"
        raise UsageError("--model goes with --agent and without --agent-command", hint=hint)
    _check_cost_per_run(settings)
    if settings.agent is None or settings.agent_command:
        return settings
    from bdauto.agents.cli_adapters.table import ADAPTERS  # few commands need it

    adapter = ADAPTERS[settings.agent]
    words = adapter.command(settings.model or "", settings.max_cost_per_run if adapter.limits_cost else None, "")
    return msgspec.structs.replace(settings, agent_command=CommandLine(tuple(words)))


def _check_cost_per_run(settings: LocalAgentSettings) -> None:
    """Raise UsageError for a limit on the cost of a run that nobody would hold."""
    if settings.max_cost_per_run is None:
        return
    from bdauto.agents.cli_adapters.table import ADAPTERS

    adapter = ADAPTERS.get(settings.agent or "")
    if adapter and (adapter.streams_cost or (adapter.limits_cost and not settings.agent_command)):
        return
    if adapter and adapter.limits_cost:
        raise UsageError(
            f"--max-cost-per-run cannot be held: {settings.agent} says its cost only at the end",
            hint="give its own option for that in --agent-command, or no --agent-command",
        )
    who = settings.agent or "the agent of this command"
    raise UsageError(
        f"--max-cost-per-run cannot be held: {who} does not say its costs as it goes",
        hint="give an agent that does, such as --agent claude, or no such limit",
    )


def check_costs(dispatch: DispatchSettings, local: LocalAgentSettings) -> None:
    """Raise UsageError for a limit on a day's costs that cannot be held, because the agent is known to say none."""
    if dispatch.max_cost_per_day is None or dispatch.cost_per_run is not None or local.agent is None:
        return
    from bdauto.agents.cli_adapters.table import ADAPTERS

    if not ADAPTERS[local.agent].tells_cost:
        raise UsageError(
            f"--max-cost-per-day cannot be held: {local.agent} does not say what a run costs",
            hint="give --cost-per-run USD, which then counts for each run",
        )


def require_runner(services: ServiceSettings, local: LocalAgentSettings) -> None:
    """Raise UsageError unless exactly one of BeadBoard and an agent command is configured."""
    exclude_each_other(services, local)
    if not services.beadboard_url and not local.agent_command:
        raise UsageError(
            "nothing runs the agent: neither the URL of BeadBoard nor an agent is set",
            hint="give --agent claude, or --agent-command or BDAUTO_AGENT_COMMAND, or --beadboard-url or BEADBOARD_URL",
        )


def exclude_each_other(services: ServiceSettings, local: LocalAgentSettings) -> None:
    """Raise UsageError when both an agent command and a service are configured."""
    if local.agent_command:
        for option, url in (("--beadboard-url", services.beadboard_url), ("--agent-url", services.agent_url)):
            if url:
                given = "--agent" if local.agent else "--agent-command"
                raise UsageError(f"{given} and {option} exclude each other", hint="give one of them")


def check_telemetry(settings: TelemetrySettings) -> TelemetrySettings:
    """Check the URLs, and that the extras they need are installed."""
    if settings.pushgateway:
        need("metrics", "--pushgateway")
        try:
            checked_url(full_url(settings.pushgateway.value))
        except UsageError:  # its words may hold the password
            raise UsageError("--pushgateway is not a URL", hint="write it as http://HOST:PORT") from None
    if settings.notify_urls:
        need("notify", "--notify-url")
        if not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", url.value) for url in settings.notify_urls):
            raise UsageError("--notify-url is not a URL", hint="write it as SERVICE://…, as Apprise documents it")
    return settings


def need(extra: str, option: str) -> None:
    """Check that the libraries behind an option are installed."""
    if missing(extra):
        raise UsageError(f"{option} needs {' and '.join(EXTRAS[extra])}", hint=f"run `{how_to_install(extra)}`")


CHECKS: dict[type, Callable[[Any], Any]] = {
    BdSettings: check_bd,
    LocalAgentSettings: check_local,
    ServiceSettings: check_services,
    TelemetrySettings: check_telemetry,
}
