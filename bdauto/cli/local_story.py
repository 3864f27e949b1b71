"""The demo of an agent on this machine: one folder, an agent that is a shell script, and no service."""

import os
import time
from collections.abc import Callable

from rich.text import Text

from bdauto.agents.local.runner import LocalAgent
from bdauto.agents.local.settings import LocalAgentSettings
from bdauto.agents.prompt_settings import CommandLine
from bdauto.cli.story import Story
from bdauto.common.clock import Runtime
from bdauto.common.errors import ServiceDown
from bdauto.common.sanitize import clean_lines
from bdauto.controllers.dispatcher import Dispatcher
from bdauto.controllers.gate import Gate
from bdauto.controllers.reaper import Reaper
from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.sandbox import AGENT_SCRIPT

CHECK = 'test -s "$BEAD_ID.txt" || { echo "$BEAD_ID.txt is missing"; exit 1; }'
"""The check of the demo: the agent has left a file."""
PATIENCE = 60.0
"""Seconds that a job of the demo may take."""


class LocalStory(Story):
    """Tells the demo with an agent command in place of BeadBoard."""

    def tell(self) -> None:
        """Run the whole story."""
        self.sandbox.db.chmod(0o700)  # else bd warns of it in the job's output
        self._say("A folder with a tracker, and an agent: any command. This one is a shell script of a few lines.")
        for line in AGENT_SCRIPT.read_text().splitlines()[3:]:
            self.console.print(Text(f"  {line}", style="dim"), no_wrap=True, overflow="ellipsis", crop=True)
        self._say("People hand it work.")
        for name, title in (("haiku", "Write a haiku"), ("logo", "Draw a logo"), ("notes", "Write the release notes")):
            self._names[name] = self.sandbox.create(title, priority=len(self._names))
            self._line(f"  P{len(self._names) - 1} {self._names[name]}  {title}", "")
        self._say("Dispatch starts a job and is gone. The job goes on without it, notes on its bead, and closes it.")
        self._work()
        self._say("The next agent does not know how to go on: it blocks its bead, and says why.")
        self._work()
        self._say(
            "The third one closes its bead and has done nothing. --agent-check finds out, and the reaper opens it."
        )
        self._work()
        self._sweep()
        self._say("In the end:")
        self._table()
        self._say("What did the first one say?")
        self._logs("haiku")

    def _agent(self) -> LocalAgent:
        path = f"{self.sandbox.bd_path.parent}:{os.environ.get('PATH', os.defpath)}"
        environment = {"PATH": path, "HOME": str(self.sandbox.folder), "LANG": "C.UTF-8", "BD_DISABLE_METRICS": "1"}
        settings = LocalAgentSettings(
            agent_command=CommandLine((str(AGENT_SCRIPT),)),
            agent_check=(CommandLine(("sh", "-c", CHECK)),),
            agent_dir=self.sandbox.folder,
            agent_jobs=self.sandbox.folder / "jobs",
        )
        return LocalAgent(settings, self.sandbox.db, "agent", environment)

    def _work(self) -> None:
        bd, writer = self._tracker(dry_run=False)
        agent, runtime = self._agent(), Runtime()
        settings = DispatchSettings()
        gate = Gate(bd, lambda: agent, settings, runtime.now)
        report = Dispatcher(bd, writer, lambda: agent, settings, runtime, gate).cycle()
        self._show("bdauto dispatch --agent-command ./agent.sh --agent-check ./check.sh", report)
        _wait(lambda: not agent.jobs.running())

    def _sweep(self) -> None:
        bd, writer = self._tracker(dry_run=False)
        report = Reaper(bd, writer, self._agent, ReapSettings(), Runtime()).sweep()
        self._show("bdauto reap", report)

    def _logs(self, name: str) -> None:
        agent = self._agent()
        bead = next(bead for bead in self._beads() if bead.id == self._names[name])
        self.console.print(Text(f"$ bdauto logs {bead.id}", style="bold cyan"))
        output = b"".join(agent.output(agent.jobs_of(bead)[-1]).read()).decode(errors="replace")
        for line in clean_lines(output).splitlines():
            self.console.print(Text(line))


def _wait(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise ServiceDown("a job of the demo does not end")
        time.sleep(0.05)
