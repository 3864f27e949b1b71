"""The demo: a short story on a sandbox, with the controllers that the commands use.

Nothing leaves this machine and nothing is left behind. bdauto gets a clock that can be moved on, so half an hour passes
at once.
"""

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bdauto.agents.beadboard.runner import BeadBoardRunner
from bdauto.agents.beadboard.settings import BeadBoardSettings
from bdauto.bd.change import DryWriter, Writer
from bdauto.bd.client import Bd
from bdauto.bd.writer import BdWriter
from bdauto.cli.printing import render
from bdauto.common.clock import Runtime
from bdauto.common.sanitize import clean
from bdauto.controllers.dispatcher import Dispatcher
from bdauto.controllers.gate import Gate
from bdauto.controllers.reaper import Reaper
from bdauto.domain.bead import Bead
from bdauto.domain.outcome import Report
from bdauto.domain.settings import BdSettings, DispatchSettings, ReapSettings, Secret
from bdauto.sandbox import FakeReply, Sandbox

STATUS_STYLES = {"closed": "green", "in_progress": "yellow", "blocked": "red", "open": "cyan"}


@dataclass
class Story:
    """Tells the demo on a sandbox, step by step, to a console."""

    sandbox: Sandbox
    console: Console
    _names: dict[str, str] = field(default_factory=dict)

    def tell(self) -> None:
        """Run the whole story."""
        self._people_hand_over_work()
        self._say("What would be taken first? A dry run decides for real and writes nothing.")
        self._dispatch(dry_run=True)
        self._say("Two at once: by priority, then by who waited longest.")
        self._dispatch(max_beads=2)
        self._say("No room now: busy is not an error, and no bead is touched.")
        self._dispatch()
        self._say("The agent finishes the login bug and closes it: what waited for it is ready.")
        self._finish("login")
        self._dispatch()
        self._say("The agent dies on dark mode without a word, and BeadBoard refuses the next bead:")
        self._say("it is open again, backs off, and keeps nobody else waiting.", again=True)
        self._die("dark")
        self.sandbox.board.reply_next("dispatch", FakeReply(400, '{"error": "Bead has no description."}'))
        self._dispatch()
        self._say("40 minutes later, the reaper. It asks the agent service first: a job that runs is kept.")
        self.sandbox.age(self._names["dark"], 40)
        self._reap()
        self._say("In the end:")
        self._table()

    def _people_hand_over_work(self) -> None:
        self._say("People hand work to the agent: each bead is assigned to `agent`.")
        create = self.sandbox.create
        self._names["login"] = create("Fix the login redirect", priority=1, type="bug")
        self._names["dark"] = create("Add a dark mode", priority=2, type="feature")
        blocked_by_login = create("Rotate the API keys", priority=0)
        self._names["keys"] = blocked_by_login
        self._names["notes"] = create("Write the release notes", priority=1, acceptance="")
        self._names["billing"] = create("Rework billing", priority=1, type="epic")
        self._names["tests"] = create("Tidy up the test names", priority=3)
        self.sandbox.run("dep", "add", blocked_by_login, self._names["login"])
        for bead in self._beads():
            why = {"keys": "waits for the login bug", "notes": "has no acceptance criteria", "billing": "is an epic"}
            name = next(name for name, bead_id in self._names.items() if bead_id == bead.id)
            self._line(f"  P{bead.priority} {bead.id}  {bead.title}", f"  {why[name]}" if name in why else "")

    def _dispatch(self, max_beads: int = 1, dry_run: bool = False) -> None:
        settings = DispatchSettings(max_beads=max_beads, dry_run=dry_run)
        options = (" --dry-run" if dry_run else "") + (f" --max {max_beads}" if max_beads > 1 else "")
        bd, writer = self._tracker(dry_run)
        with BeadBoardRunner(self._services()) as services:
            gate = Gate(bd, lambda: services, settings, Runtime().now)
            report = Dispatcher(bd, writer, lambda: services, settings, Runtime(), gate).cycle()
        self._show(f"bdauto dispatch{options}", report)

    def _reap(self) -> None:
        bd, writer = self._tracker(dry_run=False)
        with BeadBoardRunner(self._services()) as services:
            report = Reaper(bd, writer, lambda: services, ReapSettings(), Runtime()).sweep()
        self._show("bdauto reap --threshold 30m", report)

    def _finish(self, name: str) -> None:
        job = self.sandbox.board.job_of(self._names[name])
        self.sandbox.board.progress(job.id, "found it: the session cookie lacked a path")
        self.sandbox.board.finish(job.id)

    def _die(self, name: str) -> None:
        self.sandbox.board.forget(self.sandbox.board.job_of(self._names[name]).id)

    def _table(self) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        for column in ("", "bead", "title", "status"):
            table.add_column(column, no_wrap=True)
        table.add_column("last note", no_wrap=True, overflow="ellipsis", ratio=1)
        for bead in self._beads():
            note = clean(bead.notes.rsplit("\n", 1)[-1], 200)
            status = Text(bead.status, style=STATUS_STYLES.get(bead.status, ""))
            table.add_row(f"P{bead.priority}", bead.id, Text(clean(bead.title, 40)), status, Text(note, style="dim"))
        self.console.print(table)

    def _beads(self) -> list[Bead]:
        bd, _ = self._tracker(dry_run=True)
        return sorted(
            bd.read(list(self._names.values())).result().beads, key=lambda bead: (bead.priority, bead.created_at)
        )

    def _tracker(self, dry_run: bool) -> tuple[Bd, Writer]:
        bd = Bd(BdSettings(bd_path=str(self.sandbox.bd_path), db=self.sandbox.db), readonly=dry_run, private=True)
        return bd, DryWriter() if dry_run else BdWriter(bd, Runtime())

    def _services(self) -> BeadBoardSettings:
        sandbox = self.sandbox
        token = Secret(sandbox.token)
        return BeadBoardSettings(beadboard_url=sandbox.url, agent_url=sandbox.agent_url, agent_token=token)

    def _say(self, words: str, again: bool = False) -> None:
        self.console.print(Text(words if again else f"\n{words}"))

    def _line(self, text: str, why: str) -> None:
        self.console.print(Text.assemble(text, (why, "dim")))

    def _show(self, command: str, report: Report) -> None:
        self.console.print(Text(f"$ {command}", style="bold cyan"))
        for line in render(report, as_json=False).splitlines():
            self.console.print(Text(line), no_wrap=True, overflow="ellipsis", crop=True)
        if report.error:
            self.console.print(Text(f"exit {report.exit_code}: {report.error}", style="yellow"))
