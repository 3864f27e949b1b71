"""What `status` shows and what it calls a person for, on snapshots made by hand; exact output at 80 columns."""

import io
import unicodedata
from dataclasses import replace
from datetime import timedelta
from textwrap import dedent
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType
from typer.main import get_command

from bdauto.agents.beadboard.runner import board_part
from bdauto.agents.runner import LastEvent, job_evidence
from bdauto.agents.runner_status import Capacity, RunnerStatus
from bdauto.agents.service_runner import service_part
from bdauto.cli import tables
from bdauto.cli.commands.status import Watchable
from bdauto.common.errors import ServiceDown
from bdauto.diagnostics.alerts import active_alerts
from bdauto.diagnostics.snapshot import Snapshot, as_json, last_note, place_words, weigh
from bdauto.domain.bead import Dependency
from bdauto.domain.eligibility import ranked, verdict
from bdauto.domain.figures import Figures
from bdauto.domain.pause import Pause
from bdauto.domain.reaping import FORGOTTEN, JobEvidence
from bdauto.domain.record import Result, Run
from bdauto.domain.settings import DispatchSettings, ReapSettings
from bdauto.web.rendering import Week, front_page
from tests.support.fakes import NOW, Board, bead, two_services

UP = two_services(agent=service_part(Capacity(3, True, 1, 0, 4)))
REFUSED, LATE = ServiceDown("refused"), ServiceDown("late")
CLAIM = "auto-dispatcher claimed at 2026-04-18T22:00:00Z"


def drawn(view: RenderableType, width: int = 80) -> str:
    """Draw a view as into a pipe."""
    out = Console(width=width, file=io.StringIO(), force_terminal=False, highlight=False, emoji=False, markup=False)
    with out.capture() as capture:
        out.print(view)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def running(bead_id: str, minutes: float, job: str = "", state: str = "", **fields: Any) -> Any:
    metadata = {"bdauto.attempt": "a", "bdauto.claimed_at": "2026-04-18T22:00:00Z"}
    found = bead(
        bead_id,
        status="in_progress",
        updated_at=NOW - timedelta(minutes=minutes),
        metadata=metadata | ({"bdauto.job": job} if job else {}),
        **fields,
    )
    return weigh(found, JobEvidence({bead_id: state} if state else {}), ReapSettings(), NOW)


def snapshot(*beads: Any, ready: tuple[str, ...] = (), **fields: Any) -> Snapshot:
    found = ranked(verdict(one, one.id in ready, "agent", DispatchSettings(), NOW) for one in beads)
    plain = Snapshot(NOW, UP, tuple(found), (), (), (), (), (), timedelta(minutes=30))
    return replace(plain, **fields)


FULL = snapshot(
    bead("bd-a1", priority=0, title="Login fails when the session cookie has expired and nobody can say why"),
    bead("bd-b2", title="Export as CSV", updated_at=NOW - timedelta(days=3)),
    bead("bd-c3", title="Umlaute: äöü, 日本語のとても長いタイトルです、切られる", acceptance_criteria=" \n"),
    bead("bd-d4", title="Second", dependencies=[Dependency(depends_on_id="bd-a1", type="blocks", status="open")]),
    bead("bd-e5", title="Later", metadata={"bdauto.retry_at": "2026-04-18T22:40:00Z", "bdauto.error": "HTTP 502: x"}),
    ready=("bd-a1", "bd-b2", "bd-c3", "bd-e5"),
    running=(
        running("bd-f6", 95, "0b37aa7fd784", FORGOTTEN, title="Died", notes=f"{CLAIM}\nclaimed by agent 0b37aa7fd784"),
        running("bd-g7", 4, "9c1d2e3f4a5b", "running", title="Works"),
    ),
    quarantined=(
        bead("bd-h8", status="blocked", metadata={"bdauto.quarantined": "HTTP 400: Bead has no description."}),
    ),
    blocked=(
        bead("bd-i9", status="blocked", title="Rotate keys", notes="claimed by agent j\nblocked: which vault is it?\n"),
        bead("bd-j0", status="blocked"),
    ),
    today=Figures(closed=7, failed=1, cost_usd=3.1),
    malformed=("bd list: entry 3 (bd-x9): Expected `int`, got `str` - at `$.priority`",),
)


def test_everything_at_80_columns() -> None:
    assert drawn(tables.status_view(FULL, 20, active_alerts(FULL, blocked=False))) == dedent(
        """\
        ! starved: bd-a1 waited 35m with free capacity: is a dispatcher running?
        ! stalled beyond two thresholds: bd-f6 (Died): is a reaper running?
        ! 1 malformed: bd list: entry 3 (bd-x9): Expected `int`, got `str` - at
        `$.priority`
        dispatching    on
        BeadBoard      up, not busy
        agent service  up, 1 of 4 running, 0 queued, 3 free
        today          7 closed, 1 failed, 3 need you, $3.10
        as of          2026-04-18 22:35:46Z

        Queue: 2 eligible, 3 waiting
        bead   P  age  verdict                           title
        bd-a1  0  1h   next                              Login fails when the session c…
        bd-b2  2  3d   2nd                               Export as CSV
        bd-c3  2  1h   waiting: no acceptance criteria   Umlaute: äöü, 日本語のとても長…
        bd-d4  2  1h   waiting: blocked by bd-a1         Second
        bd-e5  2  1h   waiting: backing off until        Later
                       22:40:00Z: an uncharged attempt
                       failed: HTTP 502: x

        In progress: 2
        bead   runs  left  verdict                           title
        bd-f6  35m   0s    stalled: no progress for 95m      Died
                           (threshold 30m)
        bd-g7  35m   -     running                           Works

        Quarantined by bdauto: 1
        bead   age  title, and why
        bd-h8  1h   title of bd-h8
                    HTTP 400: Bead has no description.

        Blocked, not by bdauto: 2
        bead   age  title, and last note
        bd-i9  1h   Rotate keys
                    blocked: which vault is it?
        bd-j0  1h   title of bd-j0

        Malformed: 1
        bd list: entry 3 (bd-x9): Expected `int`, got `str` - at `$.priority`
        """
    )


def test_the_last_event_of_a_running_job_and_its_age() -> None:
    event = LastEvent("▸ Edit haiku.txt", NOW - timedelta(seconds=12))
    works = replace(running("bd-g7", 4, "9c1d2e3f4a5b", "running", title="Works"), event=event)
    found = snapshot(running=(works, running("bd-h8", 4, "j-2", "running")))
    assert "12s ago: ▸ Edit haiku.txt" in drawn(tables.status_view(found, 20, []))
    page = front_page({"": found}, Week({}, "", reading=False), "agent", 20)
    assert '<span class="muted">12s ago: ▸ Edit haiku.txt</span>' in page
    first, second = as_json(found, 20)["in_progress"]
    assert (first["last_event"], first["last_event_seconds"]) == ("▸ Edit haiku.txt", 12)
    assert (second["last_event"], second["last_event_seconds"]) == (None, None)


def test_a_queue_in_which_nothing_has_acceptance_criteria_says_so() -> None:
    beads = [bead(f"bd-{n}", acceptance_criteria="") for n in range(3)]
    shown = " ".join(drawn(tables.status_view(snapshot(*beads), 20, [])).split())
    assert "Nothing can be dispatched: none of the waiting beads (3) has acceptance criteria" in shown


def test_an_empty_queue_paused_and_no_services() -> None:
    paused = Pause("deploy", "ann", NOW, NOW + timedelta(hours=1))
    assert drawn(tables.status_view(snapshot(services=RunnerStatus(paused=paused)), 20, [])) == dedent(
        """\
        dispatching  paused by ann until 2026-04-18T23:35:46Z: deploy
        agent        not configured
        as of        2026-04-18 22:35:46Z

        Queue: 0 eligible, 0 waiting
        """
    )


@pytest.mark.parametrize(
    ("services", "board", "agent"),
    [
        (two_services(board_part(busy=True)), "up, busy", "not configured"),
        (two_services(board_part(), service_part(Capacity(0))), "up, not busy", "up, busy"),
        (two_services(board_part(), service_part(Capacity(1))), "up, not busy", "up, not busy"),
        (
            two_services(board_part(error=REFUSED), service_part(error=LATE)),
            "down: refused",
            "down: late",
        ),
    ],
)
def test_services(services: RunnerStatus, board: str, agent: str) -> None:
    lines = drawn(tables.status_view(snapshot(services=services), 20, [])).splitlines()
    assert lines[1:3] == [f"BeadBoard      {board}", f"agent service  {agent}"]


def test_a_long_queue_is_cut_and_the_rest_is_counted() -> None:
    beads = [bead(f"bd-{place}") for place in range(30)]
    shown = drawn(tables.status_view(snapshot(*beads), 5, []))
    assert "Queue: 0 eligible, 30 waiting" in shown
    assert "… and 25 more: --limit 0 shows all" in shown
    assert shown.count("title of") == 5
    assert drawn(tables.status_view(snapshot(*beads), 0, [])).count("title of") == 30
    assert len(as_json(snapshot(*beads), 5)["queue"]) == 5
    assert as_json(snapshot(*beads), 5)["counts"]["waiting"] == 30


HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07 \x9b2J",
    "\u202eright to left override\u2066",
    "[bold]markup[/bold] [link=http://x]:smile:[/link]",
    "שלום עולם ומה שלומך היום, כותרת ארוכה מאוד מאוד מאוד מאוד",
    "👩‍👩‍👧‍👦 family 🇩🇪 flags ❤️ and 日本語" * 5,
    "a\u0301" * 300,
    "line\nbreak\r\ttab\u2028separator",
    "\x00\x08\x7f",
)


@pytest.mark.parametrize("title", HOSTILE)
def test_a_hostile_title_stays_on_its_line(title: str) -> None:
    _stays_on_its_line(title)


@given(st.text(max_size=120))
def test_any_title_stays_on_its_line(title: str) -> None:
    _stays_on_its_line(title)


def _stays_on_its_line(title: str) -> None:
    calm = drawn(tables.status_view(snapshot(bead("bd-a1", title="calm"), ready=("bd-a1",)), 20, []))
    shown = drawn(tables.status_view(snapshot(bead("bd-a1", title=title), ready=("bd-a1",)), 20, []))
    assert shown.count("\n") == calm.count("\n")
    assert max(cell_len(line) for line in shown.splitlines()) <= 80
    assert all(unicodedata.category(letter)[0] != "C" for letter in shown.replace("\n", ""))
    assert "bd-a1  2  1h   next" in shown


@pytest.mark.parametrize("title", HOSTILE)
def test_brackets_in_text_are_text(title: str) -> None:
    aside = bead("bd-a1", status="blocked", metadata={"bdauto.quarantined": f"[red]{title}[/nonsense]"})
    shown = drawn(tables.status_view(snapshot(quarantined=(aside,)), 20, ["[/] is not markup"]))
    assert "[red]" in shown
    assert "! [/] is not markup" in shown


class TestAttention:
    """Each reason to call a person, just beyond and just within its bounds."""

    def test_nothing(self) -> None:
        fine = snapshot(
            bead("bd-a1", updated_at=NOW - timedelta(minutes=5)),
            ready=("bd-a1",),
            running=(running("bd-b2", 59, "j", "running"), running("bd-c3", 5)),
        )
        assert active_alerts(fine) == []

    @pytest.mark.parametrize(
        "services",
        [two_services(board_part(error=REFUSED)), two_services(agent=service_part(error=REFUSED))],
    )
    def test_service_down(self, services: RunnerStatus) -> None:
        assert active_alerts(snapshot(services=services)) == ["service down: refused"]

    def test_starved(self) -> None:
        [line] = active_alerts(snapshot(bead("bd-a1"), ready=("bd-a1",)))
        assert line == "starved: bd-a1 waited 1h with free capacity: is a dispatcher running?"

    @pytest.mark.parametrize(
        "services",
        [
            replace(UP, paused=Pause("lunch")),
            two_services(board_part(busy=True), UP.parts[1]),
            two_services(agent=service_part(Capacity(0, True, 4, 0, 4))),
            RunnerStatus(),
        ],
    )
    def test_not_starved_where_nothing_can_be_dispatched(self, services: RunnerStatus) -> None:
        assert active_alerts(snapshot(bead("bd-a1"), ready=("bd-a1",), services=services)) == []

    @pytest.mark.parametrize(("minutes", "alerts"), [(6, 0), (7, 1)])
    def test_starved_after_three_ticks_of_the_cronjob(self, minutes: int, alerts: int) -> None:
        """As the metric of a one-shot command has it."""
        waited = bead("bd-a1", updated_at=NOW - timedelta(minutes=minutes))
        assert len(active_alerts(snapshot(waited, ready=("bd-a1",)))) == alerts

    def test_not_starved_when_a_claim_was_made_lately_or_the_backoff_just_ended(self) -> None:
        lately = {"bdauto.claimed_at": "2026-04-18T22:30:00Z"}
        claimed = weigh(bead("bd-b2", status="in_progress", metadata=lately), JobEvidence(), ReapSettings(), NOW)
        assert active_alerts(snapshot(bead("bd-a1"), ready=("bd-a1",), running=(claimed,))) == []
        waited = bead("bd-a1", metadata={"bdauto.retry_at": "2026-04-18T22:35:00Z"})
        assert active_alerts(snapshot(waited, ready=("bd-a1",))) == []

    def test_a_job_that_has_not_begun_says_what_it_waits_for(self) -> None:
        found = running("bd-1", 1, "j").bead
        waits = JobEvidence({"bd-1": "queued"}, waits={"bd-1": "ErrImagePull: no such host"})
        assert weigh(found, waits, ReapSettings(), NOW).verdict == "queued: ErrImagePull: no such host"

    def test_a_job_that_is_over_and_not_settled_says_its_cause(self) -> None:
        end = Run(result=Result.failed, ended_at=NOW, seconds=12, words="API Error: 529 overloaded")
        found = running("bd-1", 61, "j", title="Write a haiku", notes="begun").bead
        one = weigh(found, JobEvidence({"bd-1": "failed"}, ends={"bd-1": end}), ReapSettings(), NOW)
        assert one.verdict == "over: failed after 12s: API Error: 529 overloaded"
        [line] = active_alerts(snapshot(running=(one,)))
        assert "bd-1 (Write a haiku) failed after 12s: API Error: 529 overloaded" in line

    def test_stalled_beyond_two_thresholds(self) -> None:
        dead = (running(f"bd-{n}", 61, "j", "failed" if n % 2 else "", title=f"T{n}") for n in range(7))
        assert active_alerts(snapshot(running=tuple(dead))) == [
            "stalled beyond two thresholds: bd-0 (T0), bd-1 (T1), bd-2 (T2), bd-3 (T3), bd-4 (T4) and 2 more: "
            "is a reaper running?"
        ]
        assert active_alerts(snapshot(running=(running("bd-0", 60, "j"), running("bd-1", 300, "j", "running")))) == []

    def test_orphaned(self) -> None:
        found = snapshot(running=(running("bd-0", 31, notes=CLAIM),))
        assert active_alerts(found) == ["orphaned claims: bd-0 (title of bd-0): is a reaper running?"]

    def test_each_blocked_bead_is_named_with_its_reason_up_to_five(self) -> None:
        beads = tuple(bead(f"bd-{n}", status="blocked", title="T\n", notes="a\n\x1b[1mwhy") for n in range(7))
        assert active_alerts(snapshot(blocked=beads)) == [
            *(f"blocked: bd-{n} (T): [1mwhy" for n in range(5)),
            "blocked: 2 more",
        ]


def test_json_has_what_the_table_has() -> None:
    shown = as_json(FULL, 20)
    assert shown["counts"] == {
        "eligible": 2,
        "waiting": 3,
        "in_progress": 2,
        "stalled": 1,
        "quarantined": 1,
        "cancelled": 0,
        "blocked": 2,
    }
    assert [(one["id"], one["place"], one["reason"]) for one in shown["queue"]] == [
        ("bd-a1", 1, None),
        ("bd-b2", 2, None),
        ("bd-c3", None, "no acceptance criteria"),
        ("bd-d4", None, "blocked by bd-a1"),
        ("bd-e5", None, "backing off until 22:40:00Z: an uncharged attempt failed: HTTP 502: x"),
    ]
    assert [
        (one["state"], one["job_state"], one["running_seconds"], one["left_seconds"]) for one in shown["in_progress"]
    ] == [
        ("stalled", "forgotten", 2146, -3900),
        ("kept", "running", 2146, None),
    ]
    assert shown["agent"] == {"up": True, "free": 3, "active": 1, "queued": 0, "capacity": 4, "error": None}


def test_jobs_are_asked_about_only_where_an_agent_service_is_named() -> None:
    board = Board(jobs={"j1": "running"})
    beads = [bead(f"bd-{job}", metadata={"bdauto.job": job}) for job in ("j1", "j2", "j3")]
    services = board.services(agent=True)()
    evidence, failed = job_evidence(services, [*beads, bead("bd-0")])
    assert failed is None
    assert evidence.states == {"bd-j1": "running", "bd-j2": FORGOTTEN, "bd-j3": FORGOTTEN}
    assert job_evidence(board.services()(), beads) == (JobEvidence(), None)


def test_places() -> None:
    assert [place_words(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 101, 111)] == (
        ["next", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "101st", "111th"]
    )


@pytest.mark.parametrize(
    ("given", "value"),
    [(["--watch"], "2s"), (["--watch", "5s"], "5s"), (["--watch=1m"], "1m"), (["--watch", "--json"], "2s"), ([], None)],
)
def test_watch_may_stand_alone(given: list[str], value: str | None) -> None:
    seen: list[str | None] = []
    app = typer.Typer()

    @app.command(cls=Watchable)
    def command(watch: str | None = None, json: bool = False) -> None:
        seen.append(watch)

    get_command(app)(given, standalone_mode=False)
    assert seen == [value]


def test_the_last_note_is_not_that_the_job_ended() -> None:
    ended = "agent finished: job=j1 completed at 2026-04-18T22:35:46Z: done"
    assert last_note(bead(notes=f"I need a key\n{ended}\n")) == "I need a key"
    assert last_note(bead(notes=ended)) == ended
    started = "auto-dispatcher claimed at 2026-04-18T22:35:46Z\ndispatched: job=j1"
    assert last_note(bead(notes=f"I need a key\n{started}\n{ended}")) == "I need a key", "its start is noted late"
    assert last_note(bead()) == ""


def test_what_is_watched_fits_into_24_lines_with_all_its_parts() -> None:
    many = [bead(f"bd-{n}", title=f"Bead {n}", priority=3) for n in range(40)]
    blocked = tuple(bead(f"bl-{n}", status="blocked", notes="which one?") for n in range(30))
    full = replace(FULL, queue=snapshot(*many, ready=tuple(one.id for one in many)).queue, blocked=blocked)
    out = Console(width=80, height=24, file=io.StringIO(), force_terminal=False)
    with out.capture() as capture:
        out.print(tables.Fitting(full, 20, [f"asks: bd-{n}" for n in range(6)]))
    text = capture.get()
    assert len(text.splitlines()) <= 36
    for words in ("! asks: bd-0", "Queue: 40 eligible", "Bead 0", "In progress: 2", "Died"):
        assert words in "\n".join(text.splitlines()[:24])


def test_a_small_snapshot_is_watched_in_full() -> None:
    assert drawn(tables.Fitting(snapshot(bead("bd-1")), 20, [])) == drawn(
        tables.status_view(snapshot(bead("bd-1")), 20, [])
    )


def test_the_terminal_and_json_count_the_same() -> None:
    shown, text = as_json(FULL, 20), drawn(tables.status_view(FULL, 20, []), 140)
    counts = shown["counts"]
    assert f"Quarantined by bdauto: {counts['quarantined']}\n" in text
    assert f"Blocked, not by bdauto: {counts['blocked']}\n" in text
    today = shown["today"]
    assert f"{today['closed']} closed, {today['failed']} failed, {today['need_you']} need you, $3.10" in text
    assert today["need_you"] == counts["quarantined"] + counts["blocked"] + len(shown["asking"])
