"""The kinds of agents: the table from which options, the choice of one kind, its opening and `doctor` come.

A kind is a folder here with `settings.py`, `runner.py` (which has `open_runner`) and `checks.py`, and a line in KINDS.
What takes long to import is imported when a kind is opened.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec

from bdauto.agents.beadboard.settings import BeadBoardSettings
from bdauto.agents.kubernetes.settings import KubernetesSettings
from bdauto.agents.local.settings import LocalAgentSettings, check_cost_per_run, check_local
from bdauto.agents.service.settings import ServiceAgentSettings
from bdauto.agents.service_settings import check_urls, read_token
from bdauto.common.errors import UsageError

if TYPE_CHECKING:
    from bdauto.agents.runner import CheckContext, Project, Runner
    from bdauto.domain.findings import Check


class Kind(msgspec.Struct, frozen=True):
    """A kind of agent. The option of the field `chosen_by` chooses it, and `text` says what that option names.

    `short` is an option that stands for a value of that option.
    """

    folder: str
    settings: type[msgspec.Struct]
    chosen_by: str
    text: str
    short: str = ""

    @property
    def flag(self) -> str:
        """The option that chooses this kind."""
        return f"--{self.chosen_by.replace('_', '-')}"

    def given(self, settings: "AgentSettings") -> str:
        """Return the option that was given to choose this kind."""
        return f"--{self.short}" if self.short and getattr(settings, self.short) else self.flag

    @property
    def variable(self) -> str:
        """The environment variable of that option."""
        hints = get_type_hints(self.settings, include_extras=True)
        return str(get_args(hints[self.chosen_by])[1].env) or f"BDAUTO_{self.chosen_by.upper()}"

    def part(self, settings: "AgentSettings") -> Any:
        """Return the settings of this kind alone."""
        return self.settings(**{name: getattr(settings, name) for name in self.settings.__struct_fields__})

    def open(self, settings: "AgentSettings", project: "Callable[[], Project]") -> "Runner":
        """Return what runs the agent. Raises UsageError, and what `project` raises if this kind needs it."""
        runner: Runner = self._module("runner").open_runner(self.part(settings), project)
        return runner

    def checks(self, runner: "Runner", context: "CheckContext") -> "Iterator[Check]":
        """Yield what `bdauto doctor` finds of a runner of this kind. Raises nothing."""
        yield from self._module("checks").checks(runner, context)

    def _module(self, name: str) -> Any:
        return importlib.import_module(f"bdauto.agents.{self.folder}.{name}")


LOCAL = Kind("local", LocalAgentSettings, "agent_command", "an agent command", "agent")
SERVICE = Kind("service", ServiceAgentSettings, "agent_url", "an agent service")
KUBERNETES = Kind("kubernetes", KubernetesSettings, "kubernetes_template", "a template in Kubernetes")
KINDS = (Kind("beadboard", BeadBoardSettings, "beadboard_url", "BeadBoard"), SERVICE, LOCAL, KUBERNETES)
"""The kinds. Of two that share an option, the first one is chosen."""


def _fields() -> dict[str, tuple[str, Any, Any]]:
    """Return the fields of all kinds, with their types and defaults. Kinds that share an option share a field."""
    found: dict[str, tuple[str, Any, Any]] = {}
    for kind in KINDS:
        hints, default = get_type_hints(kind.settings, include_extras=True), kind.settings()
        found |= {name: (name, hints[name], getattr(default, name)) for name in kind.settings.__struct_fields__}
    return found


if TYPE_CHECKING:

    class AgentSettings(msgspec.Struct):
        """The options of every kind of agent."""

        def __init__(self, **settings: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

else:
    AgentSettings = msgspec.defstruct("AgentSettings", list(_fields().values()), frozen=True, kw_only=True)

JOBS_HERE = ("agent_jobs",)
"""The options of commands that look for jobs on this machine."""
JOBS_IN_KUBERNETES = ("kubernetes_template", "kubernetes_namespace", "kubernetes_context")
JOBS = ("agent_url", "agent_token_file", "timeout", *JOBS_IN_KUBERNETES, *JOBS_HERE)
"""The options of commands that look for a bead's job."""
SWEEPING = (*JOBS, "agent", "agent_command")
"""Those, and that of a sweep: a machine with an agent command has jobs."""
LOOKING = ("beadboard_url", *SWEEPING, "agent_slots", "agent_dir")
"""The options of commands that only look."""

GUARDS = ("agent_check", "agent_review", "agent_prepare", "agent_land", "agent_silence")
"""Options that somebody relies on. A kind that would ignore one refuses it."""
WORKTREES = (*JOBS_HERE, "agent_dir", "agent_base")
"""The options of the command that looks after worktrees."""


def chosen(settings: AgentSettings) -> Kind | None:
    """Return the kind that the settings choose, or None."""
    return next((kind for kind in KINDS if getattr(settings, kind.chosen_by)), None)


def exclude_each_other(settings: AgentSettings) -> None:
    """Raise UsageError if options of two kinds are given that do not go together, or a guard that would be ignored."""
    kind = chosen(settings)
    for other in KINDS if kind else ():
        if kind and other.chosen_by not in kind.settings.__struct_fields__ and getattr(settings, other.chosen_by):
            given = f"{other.given(settings)} and {kind.given(settings)}"
            raise UsageError(f"{given} exclude each other", hint="give one of them")
    for name in GUARDS if kind else ():
        if kind and name not in kind.settings.__struct_fields__ and getattr(settings, name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} does nothing with {kind.text}", hint="leave it out, or use an agent command")


def required(settings: AgentSettings) -> Kind:
    """Return the kind that the settings choose. Raises UsageError unless it is exactly one."""
    exclude_each_other(settings)
    kind = chosen(settings)
    if kind is None:
        raise missing()
    return kind


def missing() -> UsageError:
    """Return the error that nothing is configured that runs the agent."""
    names = ", nor ".join(kind.text for kind in KINDS)
    options = ["--agent claude", *(f"{kind.flag} or {kind.variable}" for kind in KINDS)]
    hint = f"give {', or '.join(options)}; best in the file that `bdauto config init` writes"
    return UsageError(f"nothing runs the agent: neither {names} is configured", hint=hint)


def with_jobs(settings: AgentSettings) -> Kind | None:
    """Return the kind whose jobs may be on this machine although no option chooses it, or None."""
    from bdauto.agents.local.jobs import default_folder

    return LOCAL if os.path.isdir(settings.agent_jobs or default_folder(os.environ)) else None  # noqa: PTH112 - Path.is_dir raises PermissionError


def check(settings: AgentSettings) -> AgentSettings:
    """Check the URLs, and return the complete settings. Raises UsageError."""
    urls = (kind.chosen_by for kind in KINDS if kind.chosen_by.endswith("_url"))
    check_urls({name: getattr(settings, name) for name in urls})
    return complete(settings)


def complete(settings: AgentSettings) -> AgentSettings:
    """Return the settings with the command of a named agent and the agent service's token. Raises UsageError."""
    local: Any = settings
    found: Any = check_local(local)
    if chosen(found) is not SERVICE:  # which gets the limit as the budget of each job
        check_cost_per_run(local)
    token = read_token(found.agent_token_file) if found.agent_url else None
    done: AgentSettings = msgspec.structs.replace(found, agent_token=token)
    return done
