"""Draw the pictures in docs/images from what the commands print: `make docs`.

Each picture is the output of the installed `bdauto` on a sandbox, as a terminal of 80 columns shows it.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

from bdauto.sandbox import Sandbox
from scripts.history import weeks_until

IMAGES = Path(__file__).parents[1] / "docs" / "images"
BDAUTO = Path(sys.executable).with_name("bdauto")


def main() -> None:
    """Draw all pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    demo()
    with Sandbox(capacity=2, prefix="web") as sandbox:
        sandbox.db.chmod(0o700)
        beads = people_hand_over_work(sandbox)
        output(sandbox, "dispatch")
        draw("status", sandbox, ["status"])
        draw("explain", sandbox, ["explain", beads["dark"]], ["explain", beads["export"]])
        sandbox.board.agent_down()
        draw("doctor", sandbox, ["doctor"])
    with Sandbox(capacity=2, prefix="web") as sandbox:
        file = sandbox.folder / "history.jsonl"
        file.write_text(weeks_until(beads=140, seed=11).jsonl())
        sandbox.run("import", str(file))
        draw("report", sandbox, ["report"])
        photograph(sandbox)


def photograph(sandbox: Sandbox) -> None:
    """Take a picture of the page that `bdauto run --listen` serves, in a real browser."""
    program = shutil.which("chromium")
    if program is None:
        sys.stderr.write("page.png: chromium is not on PATH, so it stays as it is\n")
        return
    words = ["run", "--listen", "127.0.0.1:0", "--dry-run", "--dispatch-every", "1h", "--log-format", "json"]
    environment, flags = sandbox.env(agent=True), ["--headless", "--no-sandbox", "--disable-gpu"]
    with (
        subprocess.Popen([BDAUTO, *words], env=environment, stderr=subprocess.PIPE, text=True) as running,
        sync_playwright() as playwright,
    ):
        try:
            assert running.stderr
            found = (json.loads(line) for line in running.stderr)
            address = next(event["address"] for event in found if event["event"] == "listening")
            browser = playwright.chromium.launch(executable_path=program, args=flags)
            page = browser.new_page(viewport={"width": 960, "height": 720})
            page.goto(f"http://{address}/")
            page.locator(".cards").wait_for()  # the page refreshes itself until the report is there
            clip = page.locator("h2.report").bounding_box()
            assert clip
            path = IMAGES / "page.png"
            page.screenshot(path=path, full_page=True, clip={"x": 0, "y": clip["y"] - 10, "width": 960, "height": 862})
            browser.close()
        finally:
            running.terminate()
    sys.stdout.write(f"{path.name}\n")


def people_hand_over_work(sandbox: Sandbox) -> dict[str, str]:
    """Fill the queue with one bead of each kind; return their ids by a word for each."""
    beads = {
        "login": sandbox.create("Login fails when the session has expired", priority=0),
        "export": sandbox.create("Export the report as CSV", priority=1),
        "dark": sandbox.create("Dark mode for the settings page, which follows the system", priority=1),
        "docs": sandbox.create("Translate the onboarding pages into French", priority=2, acceptance=""),
        "slow": sandbox.create("The dashboard takes eight seconds to load", priority=2),
        "flaky": sandbox.create("Retry the flaky upload test", priority=3),
        "stale": sandbox.create("Rename the billing module", priority=3),
    }
    sandbox.run("dep", "add", beads["dark"], beads["export"])
    minutes = {"export": 7, "dark": 42, "docs": 190, "slow": 3}
    for name, age in minutes.items():
        sandbox.age(beads[name], age)
    aside = '{"bdauto.quarantined": "HTTP 400: Bead is missing a description."}'
    sandbox.edit(beads["flaky"], status="blocked", metadata=aside)
    sandbox.edit(beads["stale"], status="in_progress", metadata='{"bdauto.job": "7c3f12ab90de"}')
    sandbox.age(beads["stale"], 34)
    return beads


def demo() -> None:
    """Draw what `bdauto demo` tells."""
    with Sandbox() as sandbox:
        draw("demo", sandbox, ["demo"])


def draw(name: str, sandbox: Sandbox, *commands: Sequence[str]) -> None:
    """Draw what these commands print, one after the other."""
    console = Console(record=True, width=80, file=StringIO(), force_terminal=True, color_system="truecolor")
    for place, command in enumerate(commands):
        if place:
            console.print()
        console.print(Text.assemble(("$ ", "dim"), ("bdauto " + " ".join(command), "bold")))
        console.print(Text.from_ansi(output(sandbox, *command)))
    svg = console.export_svg(title=f"bdauto {name}", unique_id=f"bdauto-{name}")
    path = IMAGES / f"{name}.svg"
    path.write_text("".join(f"{line.rstrip()}\n" for line in svg.splitlines()), encoding="utf-8")
    sys.stdout.write(f"{path.relative_to(Path.cwd())}\n" if path.is_relative_to(Path.cwd()) else f"{path}\n")


def output(sandbox: Sandbox, *command: str) -> str:
    """Return what a command prints on a terminal with colours; its log and its exit status are not shown."""
    variables = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}
    environment = sandbox.env(agent=True) | variables
    done = subprocess.run([BDAUTO, *command], env=environment, capture_output=True, text=True, check=False, timeout=300)
    if not done.stdout:
        raise SystemExit(f"bdauto {' '.join(command)}: {done.stderr}")
    return done.stdout.rstrip()


if __name__ == "__main__":
    main()
