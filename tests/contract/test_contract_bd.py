"""What bdauto relies on in bd: one suite, on the sandbox and on the real program, shared server and embedded.

The sandbox is always there; the real ones need `bd` (and `dolt`) on PATH, see --require-bd. Where the two differ, the
sandbox is wrong. All tests of a flavour share one workspace; each has its own assignee, so that lists hold its own
beads. Beads come by `bd import`, many in one call: a call of the real one takes up to a third of a second.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bdauto.bd.revision import EmbeddedRevision
from bdauto.bd.versions import parse_version
from bdauto.sandbox import Sandbox
from bdauto.sandbox.fake_bd.call import BdResult
from bdauto.sandbox.real_bd import RealBd
from tests.contract.differences import DIFFERENCES
from tests.support.real_bd import has_leases, need, need_harmless

Bead = dict[str, Any]
MODES = ["server", "embedded"]
NUMBERS = itertools.count(1)
SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
CONFLICT = "Error 1213 (40001): serialization failure"


class Bd:
    """One flavour of bd, and shorthands for one test."""

    def __init__(self, name: str, program: RealBd) -> None:
        self.name, self.program = name, program
        self.server = name.endswith("server")
        self.assignee = "agent"
        self.release = self._release()
        self.prefix = json.loads((program.db / "metadata.json").read_text())["dolt_database"]

    def _release(self) -> tuple[int, int, int]:
        """The release that this bd is, or is nearest to: the builds of 1.3 call themselves 1.2.2."""
        number = parse_version(self.json("version")["version"])
        return (1, 3, 0) if number == (1, 2, 2) and has_leases(self.program) else number

    def __call__(self, *args: str, **how: Any) -> BdResult:
        """Run bd on the workspace, from outside it."""
        return self.program.run("--db", str(self.program.db), *args, cwd=self.program.home, **how)

    def json(self, *args: str, **how: Any) -> Any:
        """The JSON that a call prints, which must succeed. What it says on stderr does not matter."""
        answer = self(*args, "--json", **how)
        assert answer.code == 0, answer
        return json.loads(answer.out)

    def create(self, *args: str) -> str:
        """A new bead, assigned to this test's agent; its id."""
        return str(self.json("create", "a bead", "-a", self.assignee, "--acceptance", "it works", *args)["id"])

    def beads(self, *wanted: Bead) -> list[str]:
        """New beads, all in one call, with any field set; their ids."""
        usual = {"title": "a bead", "assignee": self.assignee, "acceptance_criteria": "it works", "priority": 2}
        made: list[Bead] = [usual | {"id": f"{self.prefix}-t{next(NUMBERS)}"} | bead for bead in wanted]
        file = self.program.folder / "import.jsonl"
        file.write_text("\n".join(json.dumps(bead) for bead in made))
        assert self("import", str(file)).code == 0
        return [bead["id"] for bead in made]

    def bead(self, **fields: Any) -> str:
        """A new bead with any field set; its id."""
        return self.beads(fields)[0]

    def aged(self, minutes: float) -> str:
        """A new bead whose last change is so old."""
        then = datetime.now(UTC) - timedelta(minutes=minutes)
        return self.bead(created_at=rfc3339(then), updated_at=rfc3339(then))

    def show(self, bead: str) -> Bead:
        """A bead."""
        found: list[Bead] = self.json("show", bead)
        return found[0]

    def ready(self, *args: str) -> list[str]:
        """The ids of the ready beads of this test."""
        return [bead["id"] for bead in self.json("ready", "--assignee", self.assignee, "--limit", "0", *args)]

    def sql(self, statement: str) -> int:
        """The number of rows an UPDATE changed."""
        return int(self.json("sql", statement)["rows_affected"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on all flavours, or on those that it names by a fixture."""
    if "flavour" in metafunc.fixturenames:
        modes = [mode for mode in MODES if mode in metafunc.fixturenames] or MODES
        names = [f"{kind}-{mode}" for kind in ("sandbox", "real") for mode in modes]
        metafunc.parametrize("flavour", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def flavour(request: pytest.FixtureRequest, home: Path) -> Iterator[Bd]:
    """Each flavour of bd with a workspace of its own."""
    kind, _, mode = request.param.partition("-")
    if kind == "real":
        if mode == "server":
            need_harmless(need(request, "bd"))
        yield Bd(request.param, request.getfixturevalue(f"real_{mode}")())
        return
    with Sandbox(topology="embedded" if mode == "embedded" else "server") as sandbox:
        yield Bd(request.param, RealBd(sandbox.bd_path, sandbox.db.parent, home))


@pytest.fixture(autouse=True)
def _expect_differences(request: pytest.FixtureRequest, flavour: Bd) -> None:
    """Expect what a version of bd is known to do otherwise than 1.0.3, which the sandbox imitates."""
    difference = DIFFERENCES.get(request.function.__name__)
    if difference and difference.holds(flavour.release, request.node.name):
        request.applymarker(pytest.mark.xfail(reason=difference.why, strict=True))


@pytest.fixture
def bd(flavour: Bd) -> Bd:
    """A flavour of bd, with an assignee that no other test has."""
    flavour.assignee = f"agent-{next(NUMBERS)}"
    return flavour


@pytest.fixture
def server(bd: Bd) -> Bd:
    """A flavour of bd that works on a shared server."""
    return bd


@pytest.fixture
def embedded(bd: Bd) -> Bd:
    """A flavour of bd that works on an embedded database."""
    return bd


@pytest.fixture(scope="session")
def spare(flavour: Bd) -> str:
    """A bead for calls that do not change it."""
    return flavour.bead(assignee="nobody", priority=4)


def rfc3339(value: datetime) -> str:
    """A time as bd prints it."""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def blocked_by(*others: str, kind: str = "blocks") -> list[Bead]:
    """Dependencies as `bd import` takes them."""
    return [{"depends_on_id": other, "type": kind} for other in others]


def text(value: str) -> str:
    """A text as bdauto writes it into SQL."""
    return f"CAST(X'{value.encode().hex()}' AS CHAR)"


def moment(value: str) -> datetime:
    """A time of bd's."""
    assert SECONDS.fullmatch(value), value
    return datetime.fromisoformat(value)


# The program and its workspace


def test_version(bd: Bd) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", bd.json("version")["version"])


def test_version_needs_no_workspace(bd: Bd, tmp_path: Path) -> None:
    answer = bd.program.run("version", "--json", cwd=tmp_path)
    assert answer.code == 0
    assert json.loads(answer.out)["schema_version"] == 1


def test_where(bd: Bd) -> None:
    where = bd.json("where")
    database = "dolt" if bd.server else "embeddeddolt"
    assert where == {"path": str(bd.program.db), "database_path": f"{bd.program.db}/{database}", "schema_version": 1}


def test_where_nothing_is(bd: Bd, tmp_path: Path) -> None:
    answer = bd.program.run("where", "--json", cwd=tmp_path)
    assert answer.code == 1
    assert json.loads(answer.out)["error"] == "no_beads_directory"


def test_the_workspace_is_found_from_below(bd: Bd) -> None:
    below = bd.program.folder / "deep" / "down"
    below.mkdir(parents=True, exist_ok=True)
    assert json.loads(bd.program.run("where", "--json", cwd=below).out)["path"] == str(bd.program.db)


def test_the_workspace_is_found_by_environment(bd: Bd, tmp_path: Path) -> None:
    answer = bd.program.run("where", "--json", cwd=tmp_path, BEADS_DIR=str(bd.program.db))
    assert json.loads(answer.out)["path"] == str(bd.program.db)


@pytest.mark.parametrize("verb", [("ready",), ("update", "x-1", "-s", "open")])
def test_without_a_workspace(bd: Bd, tmp_path: Path, verb: tuple[str, ...]) -> None:
    answer = bd.program.run(*verb, "--json", cwd=tmp_path)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("Error: no beads database found\n")


def test_a_copy_of_metadata_json_reaches_the_same_server(server: Bd, spare: str, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "metadata.json").write_bytes((server.program.db / "metadata.json").read_bytes())
    answer = server.program.run("--db", str(private), "show", spare, "--json", cwd=tmp_path)
    assert json.loads(answer.out)[0]["id"] == spare


def test_a_db_that_is_missing_means_its_parent(bd: Bd) -> None:
    answer = bd.program.run("--db", f"{bd.program.db}/nowhere", "where", "--json")
    assert json.loads(answer.out)["path"] == str(bd.program.db)


def test_warnings_go_to_stderr_only(bd: Bd, spare: str) -> None:
    mode = bd.program.db.stat().st_mode
    bd.program.db.chmod(0o755)
    answer = bd("show", spare, "--json")
    bd.program.db.chmod(mode)
    assert answer.code == 0
    assert f"Warning: {bd.program.db} has permissions 0755 (recommended: 0700)." in answer.err
    assert json.loads(answer.out)[0]["id"] == spare


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("bogus",), 'Error: unknown command "bogus" for "bd"\n'),
        (("list", "--bogus"), "Error: unknown flag: --bogus\n"),
        (("ready", "--limit"), "Error: flag needs an argument: --limit\n"),
    ],
)
def test_usage_errors_are_plain_text(bd: Bd, args: tuple[str, ...], said: str) -> None:
    answer = bd("--json", *args)
    assert (answer.code, answer.out) == (1, "")
    assert said in answer.err


def test_flags_may_stand_anywhere(bd: Bd) -> None:
    bead = bd.bead()
    for args in (
        ("--json", "--actor", "x", "list", "-a", bd.assignee),
        ("list", f"--assignee={bd.assignee}", "--actor=x", "--json"),
    ):
        assert [found["id"] for found in json.loads(bd(*args).out)] == [bead]


# Beads


def test_a_new_bead(bd: Bd) -> None:
    made = bd.json("create", "new", "-p", "1", "-t", "bug", "-d", "d <&> é", "-a", bd.assignee, "-l", "x,y")
    shown = bd.show(made["id"])
    assert made["schema_version"] == 1
    for time in ("created_at", "updated_at"):
        assert abs(datetime.now(UTC) - moment(shown.pop(time))) < timedelta(seconds=30)
    assert shown == {
        "id": made["id"],
        "title": "new",
        "description": "d <&> é",
        "status": "open",
        "priority": 1,
        "issue_type": "bug",
        "assignee": bd.assignee,
        "created_by": "tester",
        "labels": ["x", "y"],
    }


def test_empty_is_absent(bd: Bd) -> None:
    made = bd.json("create", "bare")
    assert set(bd.show(made["id"])) == {
        *("id", "title", "status", "priority", "issue_type", "created_at", "created_by", "updated_at")
    }


def test_all_fields_of_a_bead(bd: Bd) -> None:
    fields = {
        "description": "d",
        "design": "D",
        "notes": "n\nm",
        "status": "in_progress",
        "priority": 0,
        "issue_type": "feature",
        "created_by": "me",
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:06Z",
        "started_at": "2026-01-02T03:04:07Z",
        "owner": "me@x",
        "due_at": "2026-01-02T03:04:08Z",
        "defer_until": "2026-01-02T03:04:09Z",
        "metadata": {"bdauto.attempts": 2, "deep": {"list": [1, None, "x"]}},
        "labels": ["a", "b"],
        "pinned": True,
    }
    bead = bd.bead(**fields)
    assert bd.show(bead) == fields | {
        "id": bead,
        "title": "a bead",
        "assignee": bd.assignee,
        "acceptance_criteria": "it works",
    }


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("",), "validation failed for issue : title is required"),
        (("x", "-t", "nonsense"), "validation failed for issue : invalid issue type: nonsense"),
        (("x", "-p", "9"), 'invalid priority "9" (expected 0-4 or P0-P4, not words like high/medium/low)'),
    ],
)
def test_create_refuses(bd: Bd, args: tuple[str, ...], said: str) -> None:
    answer = bd("create", *args, "--json")
    assert (answer.code, answer.out) == (1, "")
    assert json.loads(answer.err[answer.err.index("{") :]) == {"error": said, "schema_version": 1}


def test_show_many_keeps_their_order(bd: Bd) -> None:
    one, two = bd.beads({}, {})
    assert [bead["id"] for bead in bd.json("show", two, one)] == [two, one]


def test_show_unknown(bd: Bd) -> None:
    answer = bd("show", "zz-none", "--json")
    assert answer.code == 1
    assert json.loads(answer.out) == {"error": "no issues found matching the provided IDs", "schema_version": 1}
    assert 'Error fetching zz-none: no issue found matching "zz-none"\n' in answer.err


def test_show_known_and_unknown(bd: Bd, spare: str) -> None:
    answer = bd("show", "zz-none", spare, "--json")
    assert answer.code == 0
    assert [found["id"] for found in json.loads(answer.out)] == [spare]
    assert 'Error fetching zz-none: no issue found matching "zz-none"\n' in answer.err


def test_show_finds_an_id_without_its_prefix(bd: Bd, spare: str) -> None:
    """Why bdauto compares the id of what it gets with the id it asked for."""
    assert bd.show(spare.partition("-")[2])["id"] == spare


def test_show_has_dependencies_and_dependents(bd: Bd) -> None:
    first, second, epic = bd.beads({}, {}, {"issue_type": "epic"})
    added = bd.json("dep", "add", second, first)
    assert added == {
        "status": "added",
        "issue_id": second,
        "depends_on_id": first,
        "type": "blocks",
        "schema_version": 1,
    }
    (dependency,) = bd.show(second)["dependencies"]
    assert (dependency["id"], dependency["status"], dependency["dependency_type"]) == (first, "open", "blocks")
    (dependent,) = bd.show(first)["dependents"]
    assert dependent["id"] == second
    refused = bd("dep", "add", epic, first, "--json")
    assert (refused.code, json.loads(refused.out)["error"]) == (1, "epics can only block other epics, not tasks")


# Lists


def test_a_list_of_ids_has_what_other_lists_hide(bd: Bd) -> None:
    """bdauto reads single beads so, because unlike `bd show` it leaves `last-touched` alone."""
    plain, gate, closed, pinned = bd.beads({}, {"issue_type": "gate"}, {}, {})
    bd.json("close", closed, actor=bd.assignee)
    bd.json("update", pinned, "--status", "pinned")
    bd.json("dep", "add", plain, pinned)
    bd.json("update", plain, "--priority", "3")
    touched = bd.program.db / "last-touched"
    assert touched.read_text() == f"{plain}\n"
    everything = ("--all", "--include-gates", "--include-infra", "--include-templates", "--limit", "0")
    found = {
        one["id"]: one for one in bd.json("list", "--id", f"{gate},{closed},zz-none,{pinned},{plain}", *everything)
    }
    assert set(found) == {plain, gate, closed, pinned}
    [dependency] = found[plain]["dependencies"]
    assert (dependency["depends_on_id"], dependency["type"]) == (pinned, "blocks")
    assert bd.json("list", "--id", "zz-none", *everything) == []
    assert touched.read_text() == f"{plain}\n"
    bd.show(closed)
    assert touched.read_text() == f"{closed}\n"


def test_lists_show_what_show_shows(bd: Bd) -> None:
    bead = bd.bead(labels=["x"], notes="n")
    expected = bd.show(bead) | {"dependency_count": 0, "dependent_count": 0, "comment_count": 0}
    assert bd.json("ready", "--assignee", bd.assignee) == [expected]
    assert bd.json("list", "--assignee", bd.assignee, "--status", "open,in_progress", "--limit", "0") == [expected]
    assert bd.json("query", f'assignee="{bd.assignee}"', "--limit", "0") == [expected]


def test_an_empty_list_is_an_array(bd: Bd) -> None:
    for verb in (("ready",), ("list", "--status", "in_progress")):
        assert bd.json(*verb, "--assignee", bd.assignee) == []


def test_ready_leaves_out_what_waits(bd: Bd) -> None:
    free, blocker, working, done, pinned = bd.beads(
        {}, {}, {"status": "in_progress"}, {"status": "closed"}, {"status": "pinned"}
    )
    released, expired, unrelated, *_waiting = bd.beads(
        {"dependencies": blocked_by(done, pinned)},
        {"defer_until": "2020-01-01T00:00:00Z"},
        {"dependencies": blocked_by(blocker, kind="related")},
        {"dependencies": blocked_by(blocker)},
        {"dependencies": blocked_by(done, working)},
        {"defer_until": "2099-01-01T00:00:00Z"},
    )
    assert sorted(bd.ready()) == sorted([free, blocker, released, expired, unrelated])


def test_ready_follows_its_blockers(bd: Bd) -> None:
    blocker, blocked = bd.beads({}, {})
    bd.json("dep", "add", blocked, blocker)
    assert bd.ready() == [blocker]
    bd.json("close", blocker, actor=bd.assignee)
    assert bd.ready() == [blocked]


def test_ready_leaves_out_children_of_what_waits(bd: Bd) -> None:
    """But not their children: what waits, waits for one generation only."""
    blocker, deferred, parent = bd.beads({}, {"defer_until": "2099-01-01T00:00:00Z"}, {})
    waiting = bd.bead(dependencies=blocked_by(blocker))
    child, waiting_child, _ = bd.beads(
        {"dependencies": blocked_by(parent, kind="parent-child")},
        {"dependencies": blocked_by(waiting, kind="parent-child")},
        {"dependencies": blocked_by(deferred, kind="parent-child")},
    )
    grandchild = bd.bead(dependencies=blocked_by(waiting_child, kind="parent-child"))
    assert sorted(bd.ready()) == sorted([blocker, parent, child, grandchild])


def test_a_child_names_its_parent(bd: Bd, spare: str) -> None:
    child = bd.create("--parent", spare)
    assert child == f"{spare}.1"
    assert bd.show(child)["parent"] == spare
    (found,) = bd.json("ready", "--assignee", bd.assignee)
    assert found["parent"] == spare


def test_a_missing_blocker_does_not_block(bd: Bd) -> None:
    bead = bd.bead()
    bd.json("dep", "add", bead, "zz-none")
    assert bd.ready() == [bead]


def test_ready_is_open_work_only(bd: Bd) -> None:
    """A template is listed all the same: bdauto leaves it out by itself."""
    template, *_others = bd.beads(
        {"is_template": True},
        *({"status": status} for status in ("in_progress", "blocked", "deferred", "closed", "pinned", "hooked")),
        *({"issue_type": kind} for kind in ("gate", "message", "molecule")),
        {"pinned": True},
        {"ephemeral": True},
    )
    assert bd.ready() == [template]


def test_ready_leaves_out_further_types(server: Bd) -> None:
    bead = server.bead()
    for kind in ("agent", "role", "rig", "merge-request"):
        server.sql(f"UPDATE issues SET issue_type = {text(kind)} WHERE id = {text(bead)}")
        assert server.ready() == []


def test_ready_order_limit_and_priority(bd: Bd) -> None:
    """By priority, then the youngest by creation: why bdauto asks for one priority at a time, and sorts by itself."""
    low, older, younger, first = bd.beads(
        {"priority": 4, "created_at": "2026-01-01T00:00:00Z"},
        {"priority": 2, "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-03-01T00:00:00Z"},
        {"priority": 2, "created_at": "2026-01-02T00:00:00Z", "updated_at": "2026-02-01T00:00:00Z"},
        {"priority": 0, "created_at": "2026-01-02T00:00:00Z"},
    )
    assert bd.ready() == [first, younger, older, low]
    assert bd.ready("--limit", "1") == [first]
    assert bd.ready("--priority", "0") == [first]
    assert bd.ready("--priority", "2", "--limit", "1") == [younger]
    assert bd.ready("--priority", "2", "--limit", "1", "--sort", "oldest") == [older]


def test_ready_orders_beads_of_one_second_by_id(bd: Bd) -> None:
    at = "2026-01-01T00:00:00Z"
    names = [f"{bd.prefix}-{letter}{next(NUMBERS)}" for letter in "cab"]
    bd.beads(*({"id": name, "created_at": at} for name in names))
    assert bd.ready() == bd.ready("--sort", "oldest") == sorted(names)


def test_ready_filters_that_work_in_one_mode_only(bd: Bd) -> None:
    """Why bdauto asks for none of them. `--label` alone works in both."""
    task, bug = bd.beads({"labels": ["x"]}, {"issue_type": "bug", "labels": ["y"]})
    assert bd.ready("--label", "x") == [task]
    assert (task in bd.ready("--exclude-label", "x")) is bd.server
    assert (bug in bd.ready("--exclude-type", "bug")) is not bd.server


def test_lists_have_default_limits(bd: Bd) -> None:
    """All of them: why bdauto gives a limit each time."""
    bd.beads(*({} for _ in range(51)))
    assert len(bd.json("ready", "--assignee", bd.assignee)) == 10
    for verb in (("list", "--assignee", bd.assignee), ("query", f"assignee={bd.assignee}")):
        assert len(bd.json(*verb)) == 50
        assert len(bd.json(*verb, "--limit", "0")) == 51
    assert len(bd.ready("--limit", "0")) == 51


def test_list_by_status(bd: Bd) -> None:
    """Templates, gates and pinned beads are left out whatever their status."""
    waiting, working, ephemeral, molecule, *_others = bd.beads(
        {},
        {"status": "in_progress"},
        {"status": "in_progress", "ephemeral": True},
        {"status": "in_progress", "issue_type": "molecule"},
        {"status": "closed"},
        {"status": "in_progress", "is_template": True},
        {"status": "in_progress", "pinned": True},
        {"status": "in_progress", "issue_type": "gate"},
    )
    for statuses, expected in (
        ("in_progress", {working, ephemeral, molecule}),
        ("open,in_progress", {waiting, working, ephemeral, molecule}),
    ):
        found = bd.json("list", "--assignee", bd.assignee, "--status", statuses, "--limit", "0")
        assert {bead["id"] for bead in found} == expected


def test_list_counts_and_names_dependencies(bd: Bd) -> None:
    first, second, _done = bd.beads({}, {}, {"status": "closed"})
    bd.json("dep", "add", second, first)
    bd.json("comment", second, "hm")
    found = {bead["id"]: bead for bead in bd.json("list", "--assignee", bd.assignee)}
    assert set(found) == {first, second}
    assert (found[second]["dependency_count"], found[first]["dependent_count"]) == (1, 1)
    assert found[second]["comment_count"] == 1
    (record,) = found[second]["dependencies"]
    moment(record.pop("created_at"))
    assert record == {
        "issue_id": second,
        "depends_on_id": first,
        "type": "blocks",
        "created_by": "tester",
        "metadata": "{}",
    }


def test_list_says_when_its_limit_hides_beads(bd: Bd) -> None:
    bd.beads({}, {})
    answer = bd("list", "--assignee", bd.assignee, "--limit", "1", "--json")
    assert len(json.loads(answer.out)) == 1
    assert "Showing 1 issues; more results matched but were hidden by --limit." in answer.err


def test_list_finds_the_last_change(bd: Bd) -> None:
    future = bd.bead(updated_at="2098-01-01T00:00:00Z", status="closed")
    (found,) = bd.json("list", "--all", "--sort", "updated", "--limit", "1")
    assert found["id"] == future


def test_list_by_metadata(bd: Bd) -> None:
    """Whatever the status, and by several fields at once. A key with a dot is one key."""
    mine = {"bdauto.result": "running", "bdauto.assignee": bd.assignee}
    closed, opened, *_others = bd.beads(
        {"metadata": mine, "status": "closed"},
        {"metadata": mine},
        {"metadata": mine | {"bdauto.result": "completed"}},
        {"metadata": {"bdauto": {"result": "running", "assignee": bd.assignee}}},
        {},
    )
    fields = [f"--metadata-field={key}={value}" for key, value in mine.items()]
    assert {bead["id"] for bead in bd.json("list", "--all", *fields, "--limit", "0")} == {closed, opened}
    assert bd.json("list", "--all", *fields, "--metadata-field=no.such=key", "--limit", "0") == []


def test_list_refuses_an_unknown_status(bd: Bd) -> None:
    answer = bd("list", "--status", "bogus", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert json.loads(answer.err[answer.err.index("{") :]) == {
        "error": 'invalid status "bogus" (valid: open, in_progress, blocked, deferred, closed, pinned, hooked)',
        "schema_version": 1,
    }


def test_query_by_fields_and_moments(bd: Bd) -> None:
    old, *_others = bd.beads(
        {"priority": 1, "updated_at": "2026-01-01T00:00:00Z"},
        {"priority": 1, "updated_at": "2026-01-01T00:00:01Z"},
        {"priority": 2, "updated_at": "2026-01-01T00:00:00Z"},
        {"priority": 1, "updated_at": "2026-01-01T00:00:00Z", "status": "in_progress"},
    )
    expression = f'assignee="{bd.assignee}" AND status=open AND priority=1 AND updated<"2026-01-01T00:00:01Z"'
    assert [bead["id"] for bead in bd.json("query", expression, "--limit", "0")] == [old]


def test_query_counts_ages_in_months(bd: Bd) -> None:
    """`updated>30m` is *changed within the last 30 months*: why bdauto does not ask bd for ages."""
    young, old = bd.beads({}, {"updated_at": "2020-01-01T00:00:00Z"})
    assert [bead["id"] for bead in bd.json("query", f"assignee={bd.assignee} AND updated>30m")] == [young]
    assert [bead["id"] for bead in bd.json("query", f"assignee={bd.assignee} AND updated<30m")] == [old]


def test_query_refuses_what_it_does_not_know(bd: Bd) -> None:
    answer = bd("query", "foo=bar", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert "evaluating query: unknown field: foo" in answer.err


# Updates


def test_update_answers_the_updated_beads(bd: Bd) -> None:
    one, two = bd.beads({}, {})
    answer = bd.json("update", one, two, "-s", "blocked", "-p", "0", "-t", "bug", "--title", "t", "--acceptance", "a")
    assert answer == bd.json("show", one, two)
    shown = answer[0]
    assert (shown["status"], shown["priority"], shown["issue_type"]) == ("blocked", 0, "bug")
    assert (shown["title"], shown["acceptance_criteria"]) == ("t", "a")


def test_update_unknown(bd: Bd) -> None:
    bead = bd.bead()
    answer = bd("update", "zz-none", "-s", "open", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert 'Error resolving zz-none: no issue found matching "zz-none"\n' in answer.err
    mixed = bd("update", "zz-none", bead, "--append-notes", "n", "--json")
    assert mixed.code == 0
    assert [found["id"] for found in json.loads(mixed.out)] == [bead]
    assert 'Error resolving zz-none: no issue found matching "zz-none"\n' in mixed.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ("-s", "bogus"),
            'invalid status "bogus" (built-in: open, in_progress, blocked, deferred, closed, pinned, hooked;'
            " or configure custom statuses via 'bd config set status.custom')",
        ),
        (("--notes", "a", "--append-notes", "b"), "cannot specify both --notes and --append-notes"),
        (
            ("--set-metadata", "novalue"),
            'metadata edit failed for BEAD: invalid --set-metadata: expected key=value, got "novalue"',
        ),
        (
            ("--set-metadata", "bad key=1"),
            'metadata edit failed for BEAD: invalid metadata key "bad key": must match [a-zA-Z_][a-zA-Z0-9_.]*',
        ),
    ],
)
def test_update_refuses(bd: Bd, spare: str, args: tuple[str, ...], said: str) -> None:
    answer = bd("update", spare, *args, "--json")
    assert answer.code == 1
    assert json.loads(answer.out) == {"error": said.replace("BEAD", spare), "schema_version": 1}


def test_notes(bd: Bd) -> None:
    bead = bd.bead()
    bd.json("update", bead, "--append-notes", "one")
    noted = bd.json("note", bead, "two", "words")
    assert noted == bd.show(bead) | {"schema_version": 1}
    assert noted["notes"] == "one\ntwo words"
    bd.json("update", bead, "--append-notes", "three — é\n<&>")
    assert bd.show(bead)["notes"] == "one\ntwo words\nthree — é\n<&>"
    bd.json("update", bead, "--notes", "all new")
    assert bd.show(bead)["notes"] == "all new"
    bd.json("update", bead, "--notes", "")
    assert "notes" not in bd.show(bead)


def test_note_refuses(bd: Bd, spare: str) -> None:
    for args, said in (
        ((spare,), "no note text provided (use positional args, --stdin, or --file)"),
        ((spare, ""), "note text is empty"),
        (("zz-none", "x"), 'resolving zz-none: no issue found matching "zz-none"'),
    ):
        answer = bd("note", *args, "--json")
        assert answer.code == 1
        assert json.loads(answer.out) == {"error": said, "schema_version": 1}


def test_metadata_values_are_parsed(bd: Bd) -> None:
    bead = bd.bead()
    given = {
        "bdauto.attempts": "2",
        "bdauto.attempt": "ab cd",
        "yes": "true",
        "none": "null",
        "float": "1.5",
        "object": '{"x":1}',
        "list": "[1]",
        "quoted": '"q"',
        "empty": "",
        "zeros": "007",
        "hex": "12ab",
        "time": "2026-04-18T22:35:46Z",
        "equals": "a=b",
    }
    bd.json("update", bead, *(arg for key, value in given.items() for arg in ("--set-metadata", f"{key}={value}")))
    parsed = {"bdauto.attempts": 2, "yes": True, "none": None, "float": 1.5}
    assert bd.show(bead)["metadata"] == {**given, **parsed}
    bd.json("update", bead, "--unset-metadata", "bdauto.attempt", "--unset-metadata", "missing")
    assert "bdauto.attempt" not in bd.show(bead)["metadata"]


def test_metadata_emptied_is_absent(bd: Bd) -> None:
    bead = bd.bead()
    bd.json("update", bead, "--set-metadata", "k=v")
    bd.json("update", bead, "--unset-metadata", "k")
    assert "metadata" not in bd.show(bead)


def test_started_and_closed_follow_the_status(bd: Bd) -> None:
    bead = bd.bead()
    bd.json("update", bead, "-s", "in_progress")
    started = bd.show(bead)["started_at"]
    bd.json("update", bead, "-s", "open")
    assert bd.show(bead)["started_at"] == started
    (closed,) = bd.json("close", bead, actor=bd.assignee)
    assert (closed["status"], closed["close_reason"]) == ("closed", "Closed")
    moment(closed["closed_at"])
    bd.json("update", bead, "-s", "open")
    assert not {"closed_at", "close_reason"} & set(bd.show(bead))


def test_close_unknown(bd: Bd) -> None:
    answer = bd("close", "zz-none", "--json")
    assert answer.code == 1
    assert json.loads(answer.out)["error"] == 'resolving ID zz-none: no issue found matching "zz-none"'


def test_defer_and_assignee(bd: Bd) -> None:
    bead = bd.bead()
    (deferred,) = bd.json("update", bead, "--defer", "2099-01-01T00:00:00Z")
    assert (deferred["status"], deferred["defer_until"]) == ("deferred", "2099-01-01T00:00:00Z")
    (again,) = bd.json("update", bead, "--defer", "")
    assert again["status"] == "open"
    assert "defer_until" not in again
    (freed,) = bd.json("update", bead, "-a", "")
    assert "assignee" not in freed


def test_claim_takes_only_unassigned_beads(bd: Bd) -> None:
    """Why bdauto does not use --claim."""
    bead = bd.bead()
    same = json.loads(bd("update", bead, "--claim", "--json", actor=bd.assignee).out)
    assert same[0]["status"] == "open"
    other = bd("update", bead, "--claim", "--json", actor="other")
    assert (other.code, other.out) == (1, "")
    assert f"Error claiming {bead}: issue already claimed by {bd.assignee}\n" in other.err
    bd.json("update", bead, "-a", "")
    (taken,) = json.loads(bd("update", bead, "--claim", "--json", actor="other").out)
    assert (taken["status"], taken["assignee"]) == ("in_progress", "other")


def test_a_write_moves_updated_at(bd: Bd) -> None:
    bead = bd.aged(minutes=40)
    (noted,) = bd.json("update", bead, "--append-notes", "still here")
    assert abs(moment(noted["updated_at"]) - datetime.now(UTC)) < timedelta(seconds=30)


def test_comment(bd: Bd) -> None:
    bead = bd.bead()
    made = bd.json("comment", bead, "hello")
    assert (made["issue_id"], made["author"], made["text"]) == (bead, "tester", "hello")
    (shown,) = bd.show(bead)["comments"]
    assert (shown["id"], shown["text"]) == (made["id"], "hello")


# --readonly


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("update", ("update", "BEAD", "-s", "closed")),
        ("note", ("note", "BEAD", "x")),
        ("create", ("create", "x")),
        ("kv set", ("kv", "set", "k", "v")),
        ("kv clear", ("kv", "clear", "k")),
    ],
)
def test_readonly_refuses_writes(bd: Bd, spare: str, name: str, args: tuple[str, ...]) -> None:
    answer = bd("--readonly", *(arg.replace("BEAD", spare) for arg in args), "--json")
    assert (answer.code, answer.out) == (1, "")
    said = json.loads(answer.err[answer.err.index("{") :])
    assert said == {"error": f"operation '{name}' is not allowed in read-only mode", "schema_version": 1}


def test_readonly_refuses_sql_but_for_select(server: Bd, spare: str) -> None:
    answer = server("--readonly", "sql", f"UPDATE issues SET status = 'closed' WHERE id = '{spare}'", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert "operation 'sql' is not allowed in read-only mode" in answer.err
    assert server.json("--readonly", "sql", "SELECT 1 AS one") == [{"one": 1}]


def test_readonly_reads(bd: Bd, spare: str) -> None:
    """And what was refused above was not done."""
    for args in (("ready", "-a", "nobody"), ("list", "-a", "nobody"), ("show", spare)):
        assert bd.json("--readonly", *args)[0]["id"] == spare
    assert bd.json("--readonly", "kv", "list")["schema_version"] == 1


# The key-value store


def test_kv(bd: Bd) -> None:
    key = f"bdauto.{bd.assignee}"
    missing = bd("kv", "get", key, "--json")
    assert missing.code == 1
    assert json.loads(missing.out) == {"key": key, "value": "", "found": False, "schema_version": 1}
    assert key not in bd.json("kv", "list")
    value = '{"reason":"why <&> é","by":"me"}'
    assert bd.json("kv", "set", key, value) == {"key": key, "value": value, "schema_version": 1}
    assert bd.json("kv", "get", key) == {"key": key, "value": value, "found": True, "schema_version": 1}
    assert bd.json("kv", "list")[key] == value
    for _ in range(2):
        assert bd.json("kv", "clear", key) == {"key": key, "deleted": "true", "schema_version": 1}
    assert key not in bd.json("kv", "list")


def test_a_commit_of_what_bd_left_uncommitted(embedded: Bd) -> None:
    embedded("kv", "set", "bdauto.committed", "v", "--json")
    for _ in range(2):
        answer = embedded("dolt", "commit", "-m", "bdauto: set bdauto.committed", "--json")
        assert answer.code == 0, answer
    assert "Nothing to commit." in answer.out


def test_kv_refuses_reserved_keys(bd: Bd) -> None:
    answer = bd("kv", "set", "kv.x", "v", "--json")
    assert answer.code == 1
    assert "invalid key: key cannot start with 'kv.'" in json.loads(answer.out)["error"]


# bd sql


def test_sql_is_refused_in_embedded_mode(embedded: Bd) -> None:
    answer = embedded("sql", "UPDATE issues SET status = 'open' WHERE id = 'x'", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert "Error: 'bd sql' is not yet supported in embedded mode\n" in answer.err


def claim(bead: str, attempt: str, updated_at: str) -> str:
    """A claim as one statement: status, note and metadata at once, if the bead is still as it was seen."""
    return (
        f"UPDATE issues SET status = {text('in_progress')},"
        f" notes = CONCAT(notes, CASE WHEN notes = '' THEN '' ELSE {text(chr(10))} END,"
        f" {text('claimed — by ' + attempt)}),"
        f" metadata = JSON_SET(COALESCE(metadata, JSON_OBJECT()), '$.\"bdauto.attempt\"', {text(attempt)},"
        " '$.\"bdauto.attempts\"', 3)"
        f" WHERE id = {text(bead)} AND status = {text('open')} AND updated_at = {text(updated_at)}"
        " AND JSON_EXTRACT(metadata, '$.\"bdauto.attempt\"') IS NULL"
    )


def seen(bd: Bd, bead: str) -> str:
    """A bead's last change as bdauto puts it into SQL."""
    return str(bd.show(bead)["updated_at"]).replace("T", " ").removesuffix("Z")


def test_sql_compare_and_set(server: Bd) -> None:
    bead = server.aged(minutes=5)
    statement = claim(bead, "it's \\ 'a1'", seen(server, bead))
    assert [server.sql(statement), server.sql(statement)] == [1, 0]
    shown = server.show(bead)
    assert (shown["status"], shown["notes"]) == ("in_progress", "claimed — by it's \\ 'a1'")
    assert shown["metadata"] == {"bdauto.attempt": "it's \\ 'a1'", "bdauto.attempts": 3}
    assert abs(moment(shown["updated_at"]) - datetime.now(UTC)) < timedelta(seconds=30)


def test_sql_accepts_rfc3339_times(server: Bd) -> None:
    bead = server.bead()
    at = server.show(bead)["updated_at"]
    assert server.sql(f"UPDATE issues SET notes = 'x' WHERE id = {text(bead)} AND updated_at = {text(at)}") == 1


def test_sql_compares_the_attempt(server: Bd) -> None:
    bead = server.bead()
    server.sql(claim(bead, "a1", seen(server, bead)))
    update = (
        f"UPDATE issues SET status = {text('open')}, metadata = JSON_REMOVE(metadata, '$.\"bdauto.attempt\"')"
        f" WHERE id = {text(bead)} AND JSON_UNQUOTE(JSON_EXTRACT(metadata, '$.\"bdauto.attempt\"')) = "
    )
    assert server.sql(update + text("a2")) == 0
    assert server.sql(update + text("a1")) == 1
    assert server.show(bead)["metadata"] == {"bdauto.attempts": 3}


def test_sql_takes_back_exactly_one_line_of_the_notes(server: Bd) -> None:
    bead = server.bead()
    server.json("update", bead, "--notes", "é first")
    server.sql(claim(bead, "a1", seen(server, bead)))
    assert server.show(bead)["notes"] == "é first\nclaimed — by a1"
    line = text("\nclaimed — by a1")
    assert server.sql(f"UPDATE issues SET notes = REPLACE(notes, {line}, '') WHERE id = {text(bead)}") == 1
    assert server.show(bead)["notes"] == "é first"
    assert server.sql(f"UPDATE issues SET notes = SUBSTR(notes, 3) WHERE id = {text(bead)}") == 1
    assert server.show(bead)["notes"] == "first"


def test_sql_sets_a_fraction(server: Bd) -> None:
    """A cost stays the number that was written, if it is written as a double. A decimal would become text."""
    bead = server.bead(metadata={"team": "a"})
    server.json(
        "sql", f"UPDATE issues SET metadata = JSON_SET(metadata, '$.\"bdauto.cost_usd\"', 0.1234e0) WHERE id = '{bead}'"
    )
    assert server.show(bead)["metadata"] == {"team": "a", "bdauto.cost_usd": 0.1234}


def test_sql_length_counts_bytes(server: Bd) -> None:
    bead = server.bead()
    server.json("update", bead, "--notes", "é")
    (row,) = server.json(
        "sql", f"SELECT LENGTH(notes) AS n, CHAR_LENGTH(notes) AS c FROM issues WHERE id = {text(bead)}"
    )
    assert row == {"n": 2, "c": 1}


def test_sql_assigns_from_left_to_right(server: Bd) -> None:
    """Unlike standard SQL: an expression sees the columns that the statement has already set."""
    bead = server.bead()
    server.sql(f"UPDATE issues SET status = 'blocked', notes = CONCAT(status, '!') WHERE id = {text(bead)}")
    assert server.show(bead)["notes"] == "blocked!"


def test_sql_counts_rows_that_really_changed(server: Bd) -> None:
    bead = server.aged(minutes=5)
    before = server.show(bead)["updated_at"]
    assert server.sql(f"UPDATE issues SET status = 'open' WHERE id = {text(bead)}") == 0
    assert server.show(bead)["updated_at"] == before


def test_sql_keeps_null_and_empty_apart(server: Bd) -> None:
    bead = server.bead()
    query = f"SELECT notes, closed_at, started_at, metadata FROM issues WHERE id = {text(bead)}"
    assert server.json("sql", query) == [{"notes": "", "closed_at": None, "started_at": None, "metadata": "{}"}]
    assert server.sql(f"UPDATE issues SET notes = CONCAT('x', closed_at) WHERE id = {text(bead)} AND notes = 'x'") == 0


def test_sql_compares_letters_exactly(server: Bd) -> None:
    bead = server.bead()
    assert server.json("sql", f"SELECT id FROM issues WHERE id = {text(bead.upper())} OR id = {text(bead + ' ')}") == []


def test_sql_sets_and_clears_times(server: Bd) -> None:
    bead = server.bead()
    server.sql(f"UPDATE issues SET updated_at = '2026-01-02 03:04:05.6', started_at = NULL WHERE id = {text(bead)}")
    shown = server.show(bead)
    assert shown["updated_at"] == "2026-01-02T03:04:06Z"
    assert "started_at" not in shown


def test_sql_changes_several_beads_at_once(server: Bd) -> None:
    one, two, three = server.beads({"notes": "é"}, {"notes": "x\nline\ny"}, {"status": "blocked"})

    def each(*values: str) -> str:
        cases = zip((one, two, three), values, strict=True)
        return f"CASE id {' '.join(f'WHEN {text(bead)} THEN {value}' for bead, value in cases)} END"

    line = text("\n")
    cut = f"SUBSTR(REPLACE(CONCAT({line}, notes), {text(chr(10) + 'line')}, ''), 2)"
    added = f"CASE WHEN notes = '' THEN {text('n')} ELSE CONCAT(notes, {line}, {text('n')}) END"
    metadata = [f"JSON_SET(COALESCE(metadata, JSON_OBJECT()), '$.\"k.n\"', {n})" for n in (1, 2, 3)]
    where = " OR ".join(f"(id = {text(bead)} AND status = {text('open')})" for bead in (one, two, three))
    statement = (
        f"UPDATE issues SET updated_at = {text('2026-01-02 03:04:05')}, metadata = {each(*metadata)},"
        f" notes = {each(added, cut, added)}, status = {each(text('in_progress'), 'status', text('closed'))},"
        f" started_at = COALESCE(started_at, {text('2026-01-02 03:04:05')})"
        f" WHERE id IN ({text(one)}, {text(two)}, {text(three)}) AND ({where})"
    )
    assert server.sql(statement) == 2
    first, second, third = server.json("show", one, two, three)
    assert (first["notes"], first["status"], first["metadata"]) == ("é\nn", "in_progress", {"k.n": 1})
    assert (second["notes"], second["status"], second["metadata"]) == ("x\ny", "open", {"k.n": 2})
    assert (third["status"], "metadata" in third) == ("blocked", False)
    assert first["updated_at"] == second["started_at"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE issues SET bogus = 'x' WHERE id = 'x'", 'exec error: Error 1105 (HY000): column "bogus" could not'),
        ("UPDATE issues SETT", "exec error: Error 1105 (HY000): syntax error"),
        ("SELECT * FROM nowhere", "query error: Error 1146 (HY000): table not found: nowhere"),
    ],
)
def test_sql_errors(server: Bd, statement: str, said: str) -> None:
    answer = server("sql", statement, "--json")
    assert answer.code == 1
    assert json.loads(answer.out)["error"].startswith(said)


# Concurrency


def at_once(count: int, call: Callable[[int], BdResult]) -> list[BdResult]:
    """`count` calls at the same time."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def test_of_many_claims_one_wins(server: Bd) -> None:
    bead = server.bead()
    at = seen(server, bead)
    answers = at_once(8, lambda n: server("sql", claim(bead, f"attempt-{n}", at), "--json"))
    won = [n for n, answer in enumerate(answers) if answer.code == 0 and json.loads(answer.out)["rows_affected"] == 1]
    assert len(won) == 1, answers
    for answer in answers:
        said = json.loads(answer.out)
        assert said.get("rows_affected") in (0, 1) or CONFLICT in said["error"], answer
    shown = server.show(bead)
    assert shown["metadata"]["bdauto.attempt"] == f"attempt-{won[0]}"
    assert shown["notes"] == f"claimed — by attempt-{won[0]}"


def test_notes_written_at_once_may_conflict_and_get_lost(bd: Bd) -> None:
    """On a server, and from 1.0.4 on in an embedded database, too. A conflict is an error, a lost note is none."""
    bead = bd.bead()
    answers = at_once(4, lambda n: bd("note", bead, f"note {n}", "--json"))
    lines = bd.show(bead)["notes"].splitlines()
    for answer in answers:
        if answer.code != 0:
            assert CONFLICT in json.loads(answer.out)["error"], answer
    said = sum(answer.code == 0 for answer in answers)
    assert 1 <= len(lines) <= said
    assert bd.server or said == 4
    assert bd.server or bd.release >= (1, 0, 4) or len(lines) == 4


def test_comments_written_at_once_are_all_there(server: Bd) -> None:
    bead = server.bead()
    answers = at_once(4, lambda n: server("comment", bead, f"comment {n}", "--json"))
    written = sum(answer.code == 0 for answer in answers)
    assert len(server.show(bead)["comments"]) == written


# The revision


def test_every_write_changes_the_files_of_an_embedded_database_and_no_read_does(embedded: Bd) -> None:
    revision = EmbeddedRevision(embedded.program.db / "embeddeddolt" / embedded.prefix, embedded.program.db)
    bead, other = embedded.create(), embedded.create()
    embedded.json("ready")  # the first read of some versions commits what a write left
    before = revision.read()
    for read in (["ready"], ["list", "--all"], ["kv", "list"], ["query", "status=open"], ["where"], ["version"]):
        embedded.json(*read, BEADS_DIR=str(embedded.program.db))  # 1.0.2's `where` does not heed --db
        assert revision.read() == before, read
    writes = (
        ["update", bead, "-a", "ann"],
        ["note", bead, "text"],
        ["update", bead, "--set-metadata", "key=value"],
        ["comment", bead, "text"],
        ["dep", "add", bead, other],
        ["kv", "set", "key", "value"],
        ["kv", "clear", "key"],
        ["close", other],
    )
    for write in writes:
        embedded.json(*write, actor=embedded.assignee)
        assert revision.read() != before, write
        before = revision.read()
