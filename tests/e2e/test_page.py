"""The pages of `bdauto run --listen`: over HTTP, and in a real browser, with a week of history and hostile beads."""

import os
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from bdauto.domain.limits import SLACK
from bdauto.domain.times import format_time
from bdauto.sandbox import Sandbox
from bdauto.web.log_pages import STREAMS
from bdauto.web.site import REPORT
from scripts.history import weeks_until
from tests.support.cli import dispatch, run, tell
from tests.support.patience import seconds
from tests.support.running_loop import Loop, Start

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STILL = ("--listen", "127.0.0.1:0", "--dispatch-every", "1h")
STATUS_READ = "--readonly list --assignee agent --status open,"
REPORT_READ = f"--readonly list --all --updated-after {format_time(datetime.now(UTC) - REPORT - SLACK)[:10]}"
"""What tells the reads of the status part and of the report, which look a week back, from others: the loop itself does
not read so.
"""
BEING_READ = "report is being read"
EVIL = "evil.invalid"
HOSTILE = f"<script>document.title='pwned'</script><img src=//{EVIL}/a onerror=alert(1)>{{{{7*7}}}} \u202e'\"&amp;"
WORDS = f"<script>document.title='pwned'</script><img src=//{EVIL}/a onerror=alert(1)>{{{{7*7}}}} '\"&amp;"
"""The same without what would turn the direction of the text."""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def a_week(sandbox: Sandbox) -> str:
    """Give a tracker a week of history and a hostile bead that was dispatched once; return its id."""
    file = sandbox.folder / "history.jsonl"
    file.write_text(weeks_until(beads=60, prefix="sb").jsonl())
    tell(sandbox, "import", str(file))
    bead = sandbox.create(HOSTILE, priority=0)
    dispatch(sandbox, agent=True)
    sandbox.board.end(sandbox.board.job_of(bead).id, "failed", f"boom\n{HOSTILE}\nkey sk-ant-0123456789abcdef")
    tell(sandbox, "update", bead, "--append-notes", HOSTILE, "-s", "blocked", actor="agent")
    return bead


def answer(loop: Loop, path: str) -> tuple[int, str, dict[str, str]]:
    address = loop.wait("listening")["address"]
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=seconds(60)) as found:
            return found.status, found.read().decode(), {k.lower(): v for k, v in found.headers.items()}
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), {k.lower(): v for k, v in error.headers.items()}


def with_report(loop: Loop) -> str:
    """Refresh the first page until the report is in it, as a browser does, and return its text."""
    deadline = time.monotonic() + seconds(60)
    while BEING_READ in (text := answer(loop, "/")[1]):
        assert time.monotonic() < deadline, text
        threading.Event().wait(0.1)
    return text


def reads(sandbox: Sandbox, words: str) -> int:
    """How often bd was called with these words."""
    return sum(words in " ".join(call.argv) for call in sandbox.calls)


def test_the_pages_over_http(sandbox: Sandbox, loop: Start) -> None:
    bead = a_week(sandbox)
    running = loop(*STILL, agent=True)
    running.wait("result")
    assert "Runs that ended" in with_report(running)
    for path in ("/", f"/beads/{bead}"):
        status, text, headers = answer(running, path)
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8"), text
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "script-src 'self'; connect-src 'self'; form-action 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert re.findall(r"<script[^>]*>", text) == ['<script src="/page.js" defer>']
        assert "&lt;script&gt;" in text
        assert "sk-ant" not in text
        assert sandbox.token not in text


@pytest.mark.parametrize(
    ("path", "status"),
    [("/beads/sb-nope", 404), ("/beads/", 404), ("/beads/..%2f..%2fetc", 404), ("/beads/-x", 404), ("/beads/a/b", 404),
     ("/nothing", 404), ("/favicon.ico", 204)],
)  # fmt: skip
def test_what_is_no_page(sandbox: Sandbox, loop: Start, path: str, status: int) -> None:
    assert answer(loop(*STILL), path)[0] == status


def test_many_readers_cost_the_tracker_what_one_costs(sandbox: Sandbox, loop: Start) -> None:
    """Whoever asks while a page is made waits for it or is told to come again; a probe is answered meanwhile."""
    running = loop(*STILL)
    gate = sandbox.pause("list", match=STATUS_READ)
    with ThreadPoolExecutor(40) as readers:
        found = [readers.submit(answer, running, "/") for _ in range(40)]
        gate.wait()
        assert answer(running, "/healthz")[0] == 200
        gate.release()
        answers = [each.result()[:2] for each in found]
    statuses = [status for status, _ in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 2
    assert all('http-equiv="refresh" content="2"' in text for status, text in answers if status == 503)
    assert reads(sandbox, STATUS_READ) == 1
    with_report(running)
    assert all("Runs that ended" in answer(running, "/")[1] for _ in range(20))
    assert reads(sandbox, REPORT_READ) == 1


def test_the_first_answer_does_not_wait_for_the_report(sandbox: Sandbox, loop: Start) -> None:
    sandbox.create("a bead that waits", acceptance="")
    gate = sandbox.pause("list", match=REPORT_READ)
    running = loop(*STILL)
    status, text, _ = answer(running, "/")
    assert (status, "a bead that waits" in text, BEING_READ in text) == (200, True, True)
    gate.wait()
    assert BEING_READ in answer(running, "/")[1]
    gate.release()
    assert "Runs that ended" in with_report(running)


def test_a_bd_that_fails_is_said(sandbox: Sandbox, loop: Start) -> None:
    running = loop(*STILL)
    sandbox.fault("list", "exit", text="<b>no database</b>", times=-1, match=STATUS_READ)
    status, text, headers = answer(running, "/")
    assert (status, headers["retry-after"]) == (503, "5")
    assert "no database" in text
    assert "<b>" not in text
    assert answer(running, "/healthz")[0] == 200


def test_a_report_that_cannot_be_read_is_said(sandbox: Sandbox, loop: Start) -> None:
    sandbox.create("a bead that waits", acceptance="")
    sandbox.fault("list", "exit", text="<b>no database</b>", times=-1, match=REPORT_READ)
    text = with_report(loop(*STILL))
    assert "a bead that waits" in text
    assert "The report could not be read: bd list failed (exit 1): &lt;b&gt;no database&lt;/b&gt;" in text


def test_a_loop_that_ends_does_not_wait_for_a_report(sandbox: Sandbox, loop: Start) -> None:
    gate = sandbox.pause("list", match=REPORT_READ)
    running = loop(*STILL)
    answer(running, "/")
    gate.wait()
    assert running.stop().code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a process 1")
def test_as_process_1_the_loop_leaves_the_pages_processes_alone(sandbox: Sandbox, loop: Start) -> None:
    """The bd that the report is read with fails, and leaves a grandchild that holds its stderr open for a while.

    The loop, which collects orphans after each of its many cycles, must not take that bd's exit status away.
    """
    wrapper = sandbox.folder / "bd"
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in *"{REPORT_READ}"*) sleep 2 & echo "no database" >&2; exit 1;; esac\n'
        f'exec {sandbox.bd_path} "$@"\n'
    )
    wrapper.chmod(0o755)
    inside = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    running = loop("--listen", "127.0.0.1:0", inside=inside, BDAUTO_BD=str(wrapper))
    assert "The report could not be read: bd list failed (exit 1): no database" in with_report(running)


# In a browser


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Debian's chromium, driven by Playwright."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not on PATH")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=[*FLAGS])
        yield started
        started.close()


class Visit:
    """A page in the browser, with what it asked for and what the console said."""

    def __init__(self, browser: "Browser", url: str, until: Any = "networkidle", **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.host = url.split("/")[2]
        self.go(url, until)

    def go(self, url: str, until: Any = "networkidle") -> None:
        found = self.page.goto(url, wait_until=until)
        assert found
        assert found.ok, found.status

    def check(self) -> None:
        """What holds for every page: it asks its own host alone, says nothing, and does not scroll sideways."""
        assert {url.split("/")[2] for url in self.asked} == {self.host}
        assert self.said == []
        assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert self.page.evaluate(CONTRAST) == []
        assert self.page.evaluate(NAMELESS) == []
        self.ask_axe()
        assert self.page.evaluate("document.documentElement.lang") == "en"
        assert self.page.locator("h1").count() == 1

    def ask_axe(self) -> None:
        """Let axe look for what keeps people from using the page."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        self.page.evaluate(axe.axe_script)
        violations = self.page.evaluate(
            "async () => (await axe.run()).violations.map(one => [one.id, one.nodes[0].html])"
        )
        assert violations == []


CONTRAST = """() => {
  const parts = text => text.match(/[0-9.]+/g).map(Number);
  const linear = c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parts(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll("body *")]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .filter(e => e.getClientRects().length && !["title", "style", "desc"].includes(e.tagName.toLowerCase()));
  return texts.map(e => {
    const style = getComputedStyle(e), ink = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(parts(ink)), light(behind(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.tagName, e.textContent.trim().slice(0, 40), ink];
  }).filter(([ratio]) => ratio < 4.5);
}"""
"""Finds texts whose contrast is below 4.5, which is what WCAG asks for."""
NAMELESS = """() => [...document.querySelectorAll("a, [role], svg")]
  .filter(e => !e.getAttribute("aria-label") && !e.textContent.trim())
  .map(e => e.outerHTML.slice(0, 80))"""
"""Finds links, regions and pictures without a name."""


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, str, Sandbox]]:
    """A tracker with a week of history, served: the address, the hostile bead, the sandbox."""
    with Sandbox(capacity=2) as sandbox:
        bead = a_week(sandbox)
        loop = Loop(sandbox, *STILL, agent=True)
        try:
            loop.wait("result")
            with_report(loop)
            yield f"http://{loop.wait('listening')['address']}", bead, sandbox
        finally:
            loop.stop()


Open = Callable[..., Visit]


@pytest.fixture
def visit(browser: "Browser", served: tuple[str, str, Sandbox]) -> Iterator[Open]:
    """Opens pages of the tracker."""
    visits: list[Visit] = []

    def opened(path: str = "/", **options: Any) -> Visit:
        visits.append(Visit(browser, served[0] + path, **options))
        return visits[-1]

    yield opened
    for each in visits:
        each.context.close()


SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 360, "height": 740}}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_first_page(visit: Open, served: tuple[str, str, Sandbox], scheme: str, size: str) -> None:
    """What status shows and the week's report, readable in both colour schemes at both sizes."""
    bead = served[1]
    shown = visit(color_scheme=scheme, viewport=SIZES[size])
    text = shown.page.inner_text("body")
    assert "Beads for agent" in text
    assert "BeadBoard\nup, not busy" in text or "BeadBoard\nup, busy" in text
    assert WORDS in text, "as it stands, and nothing of it works"
    assert re.fullmatch(r"\(\d+\) bdauto", shown.page.title())
    assert shown.page.get_by_role("img", name="Cost, by day").count() == 1
    assert shown.page.get_by_role("heading", name="The last 7 days").count() == 1
    shown.check()
    shown.page.get_by_role("link", name=bead, exact=True).first.click()
    shown.page.wait_for_url(f"**/beads/{bead}")
    shown.check()


def test_a_bead_explained_with_its_log(visit: Open, served: tuple[str, str, Sandbox]) -> None:
    shown = visit(f"/beads/{served[1]}")
    text = shown.page.inner_text("body")
    assert WORDS in shown.page.inner_text("h1")
    assert "has acceptance criteria" in text
    assert f"boom\n{WORDS}\nkey ***" in shown.page.get_by_role("region", name="Log").inner_text()
    assert WORDS in shown.page.get_by_role("region", name="Notes").inner_text()
    shown.check()
    shown.page.get_by_role("link", name="All beads").click()
    shown.page.wait_for_url("**/")


@pytest.mark.parametrize("size", SIZES)
def test_runs_are_found_by_links_and_by_a_form(visit: Open, size: str) -> None:
    shown = visit("/runs", viewport=SIZES[size])
    everything = shown.page.locator("tbody tr").count()
    shown.check()
    shown.page.get_by_role("link", name="failed", exact=True).click()
    failed = shown.page.locator("tbody tr").count()
    assert 0 < failed < everything
    shown.page.get_by_label("Bead, title, agent or words").fill("no such words")
    shown.page.get_by_role("button", name="Search").click()
    shown.page.wait_for_url("**/runs?q=no+such+words&result=failed&since=7d")
    assert "No such run." in shown.page.inner_text("main")
    shown.check()


def test_titles_stay_on_a_phone(visit: Open) -> None:
    shown = visit(viewport=SIZES["narrow"])
    title = shown.page.get_by_role("region", name="Blocked").locator("td.wide").first.bounding_box()
    assert title
    assert title["x"] + 40 < SIZES["narrow"]["width"]


def test_the_log_of_a_running_job_goes_on_by_itself(browser: "Browser") -> None:
    """Its lines come without a reload, the newest is seen, and the end of the job is."""
    with Sandbox(topology="embedded") as sandbox:
        agent, more = sandbox.folder / "agent", sandbox.folder / "more"
        agent.write_text(f"#!/bin/sh\nseq 1 300\nwhile [ ! -e {more} ]; do sleep 0.1; done\necho '<b>new</b>'\n")
        agent.chmod(0o700)
        bead = sandbox.create("Follow me")
        env: dict[str, Any] = {
            "BEADBOARD_URL": "",
            "BDAUTO_AGENT_COMMAND": str(agent),
            "BDAUTO_AGENT_JOBS": str(sandbox.folder / "jobs"),
        }
        running = Loop(sandbox, "--listen", "127.0.0.1:0", **env)
        try:
            running.wait("dispatched")
            address = running.wait("listening")["address"]
            shown = Visit(browser, f"http://{address}/beads/{bead}", until="load")
            log = shown.page.get_by_role("region", name="Log")
            log.get_by_text("300").wait_for()
            assert shown.page.evaluate("Math.abs(document.querySelector('.log').scrollTop) < 2"), "it is at its end"
            more.touch()
            log.get_by_text("<b>new</b>").wait_for()
            assert log.locator("b").count() == 0
            assert shown.said == []
            shown.context.close()
        finally:
            running.stop()


def test_followers_of_a_log_hold_up_no_probe(sandbox: Sandbox, loop: Start) -> None:
    """Whoever comes when all places are taken is told so. A follower that goes away leaves its place."""
    agent = sandbox.folder / "agent"
    agent.write_text("#!/bin/sh\nwhile :; do echo line; sleep 0.2; done\n")
    agent.chmod(0o700)
    bead = sandbox.create()
    env: dict[str, Any] = {
        "BEADBOARD_URL": "",
        "BDAUTO_AGENT_COMMAND": str(agent),
        "BDAUTO_AGENT_JOBS": str(sandbox.folder / "jobs"),
    }
    running = loop("--listen", "127.0.0.1:0", **env)
    running.wait("dispatched")
    url = f"http://{running.wait('listening')['address']}/beads/{bead}/events"
    followers = [urllib.request.urlopen(url, timeout=seconds(60)) for _ in range(STREAMS)]
    assert followers[0].headers["content-type"] == "text/event-stream"
    assert followers[0].readline() == b"event: log\n"
    assert answer(running, f"/beads/{bead}/events")[0] == 503
    assert answer(running, "/healthz")[0] == 200
    assert answer(running, "/api/status")[0] == 200
    for follower in followers:
        follower.close()
    deadline = time.monotonic() + seconds(30)
    while (found := urllib.request.Request(url)) and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(found, timeout=seconds(60)).close()
            break
        except urllib.error.HTTPError as error:
            error.close()
            time.sleep(0.2)
    else:
        raise AssertionError("no place was given back")
    run(sandbox, "cancel", bead, **env)


def test_without_javascript(visit: Open) -> None:
    shown = visit(java_script_enabled=False)
    assert "The last 7 days" in str(shown.page.text_content("main"))
    assert shown.page.locator("svg").count() == 3
    assert shown.page.locator("noscript meta[http-equiv=refresh]").get_attribute("content") == "30"
    assert shown.said == []


def test_the_report_as_one_file(browser: "Browser", served: tuple[str, str, Sandbox]) -> None:
    sandbox = served[2]
    file = sandbox.folder / "week.html"
    assert run(sandbox, "report", "--html", str(file)).code == 0
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(file.as_uri())
    assert asked == [file.as_uri()]
    assert said == []
    assert page.locator("svg").count() == 3
    assert page.evaluate(CONTRAST) == []
    context.close()
