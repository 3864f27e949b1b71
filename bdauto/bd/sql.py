"""Changes as SQL for a Dolt server: several statements in one text, which one `bd sql` sends.

It leaves what `bd update` leaves: the changed rows, a row in `events` for each, and a Dolt commit that names the actor.
All of it is one transaction, which changes all its beads or none. It may be sent twice: what carries a change's mark
has been done already.

A Dolt server goes on after a statement that failed. So every statement after the UPDATE depends on what that did, and
the last one gives the answer: it fails with NOT_WRITTEN or OVERTAKEN if the beads are not as wanted. The number of rows
that some versions of bd report is not needed.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from bdauto.bd.bead_lists import checked_id
from bdauto.bd.change import MARK, Change, Moment
from bdauto.domain.notes import CLAIM_NOTE, WRITTEN
from bdauto.domain.record import ATTEMPT, CLAIMED_AT, PENDING_NOTE

NOTES_BYTES = 65_535
"""What bd's notes column holds. A note that would not fit is left out rather than failing the change it describes."""

NOT_WRITTEN = "bdauto: not written"
"""The error of a change that found its bead changed since it was read. Nothing was written."""
OVERTAKEN = "bdauto: overtaken"
"""The error of a change that was written, and that Dolt merged with somebody's change of what it depends on."""

NAMED = 20
"""Beads that a commit's message names."""

_NOW = "DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%d %H:%i:%s')"
_LOCAL = "DATE_FORMAT(NOW(), '%Y-%m-%d %H:%i:%s')"
UTC_EVENTS = 61
"""From this version of the schema on, bd writes the time of an event in UTC. Before, a server fills in its local time.

Since migration 61 the id of an event is made from its content, including the time.
"""
_METADATA = "IF(JSON_TYPE(metadata) = 'OBJECT', metadata, JSON_OBJECT())"
"""The metadata, empty where it is not an object. JSON_SET leaves a JSON null as it is, so nothing would be recorded."""


def to_sql(changes: Sequence[Change], actor: str) -> str:
    """Write changes of different beads as one transaction in the name of the actor.

    Every text in it is a hex literal, so nothing of a bead, a note or an error can be read as SQL.
    """
    number = len(changes)
    marked = _either(_marked(change) for change in changes)
    as_wanted = _either(" AND ".join([_marked(change), *_outcome(change)]) for change in changes)
    moved = ", ".join(_text(change.bead.id) for change in changes if change.status is not None)
    statements = [
        f"SET @now = {_NOW}, @message = {_text(_message(changes))}, @author = {_text(_author(actor))}",
        "SET @leases = (SELECT COUNT(*) FROM dolt_ignore WHERE pattern = 'leases')",
        f"SET @written_at = IF((SELECT COUNT(*) FROM schema_migrations WHERE version >= {UTC_EVENTS}), @now, {_LOCAL})",  # noqa: S608
        "START TRANSACTION",
        _update(changes),
        f"SET @done = (ROW_COUNT() = {number})",
        _events(changes, actor, f"@done AND ({marked})"),
        *_if("@done AND @leases", _row_lock(marked)),
        *(_if("@done AND @leases", f"DELETE FROM leases WHERE issue_id IN ({moved})") if moved else ()),  # noqa: S608
        *_if("@done", "CALL DOLT_ADD('issues', 'events')"),
        *_if("@done", "CALL DOLT_COMMIT('--skip-empty', '-m', @message, '--author', @author)", "ROLLBACK"),
        *_if(_fewer(marked, number), _error(NOT_WRITTEN)),
        *_if(_fewer(as_wanted, number), _error(OVERTAKEN)),
    ]
    return "; ".join(statements)


UNCOMMITTED = "SELECT table_name FROM dolt_status"
"""Query for the tables with changes in no Dolt commit."""


def expired_leases(assignee: str) -> str:
    """Return a query for an assignee's beads in progress that `bd reclaim` (1.3) would take back."""
    return (
        "SELECT issue_id FROM leases JOIN issues ON issues.id = leases.issue_id WHERE status = 'in_progress'"  # noqa: S608
        f" AND assignee = {_text(assignee)} AND lease_expires_at < UTC_TIMESTAMP() ORDER BY issue_id"
    )


def swap_to_sql(key: str, old: str | None, new: str | None, actor: str) -> str:
    """Write a compare-and-set of one key of bd's key-value store as one transaction. It may be sent twice.

    None is a key that is not there. An empty value is the same to whoever reads it.
    """
    name, row = _text(f"kv.{key}"), _kv_row(key)
    if new is None:
        change = f"DELETE FROM config WHERE {row} AND value = {_text(old or '')}"  # noqa: S608
        written = f"NOT EXISTS (SELECT 1 FROM config WHERE {row})"  # noqa: S608
    else:
        values = f"SELECT {name}, {_text(new)} FROM (SELECT 1 AS one) AS t WHERE {_stored(key, old)}"  # noqa: S608
        change = f"REPLACE INTO config (`key`, value) {values}"
        written = _stored(key, new)
    statements = [
        f"SET @message = {_text(f'bdauto: set {key} by {actor}')}, @author = {_text(_author(actor))}",
        "START TRANSACTION",
        change,
        f"SET @done = {written}",
        *_if("@done", "CALL DOLT_ADD('config')"),
        *_if("@done", "CALL DOLT_COMMIT('--skip-empty', '-m', @message, '--author', @author)", "ROLLBACK"),
        *_if(f"NOT ({written})", _error(NOT_WRITTEN)),
    ]
    return "; ".join(statements)


def _kv_row(key: str) -> str:
    return f"`key` = {_text(f'kv.{key}')}"


def _stored(key: str, value: str | None) -> str:
    """Return the condition that a key of the key-value store has a value. No value and an empty one are the same."""
    if value is None:
        return f"NOT EXISTS (SELECT 1 FROM config WHERE {_kv_row(key)} AND value <> {_text('')})"  # noqa: S608
    return f"EXISTS (SELECT 1 FROM config WHERE {_kv_row(key)} AND value = {_text(value)})"  # noqa: S608


def _if(condition: str, statement: str, otherwise: str = "SELECT 1") -> Iterator[str]:
    """Yield statements that execute one text or the other. The texts may name tables that this database lacks."""
    yield f"SET @step = IF({condition}, {_quoted(statement)}, {_quoted(otherwise)})"
    yield "PREPARE step FROM @step"
    yield "EXECUTE step"


def _update(changes: Sequence[Change]) -> str:
    each = _each(changes)
    columns = [f"updated_at = {each(lambda change: 'updated_at' if change.quiet else '@now')}"]
    if not all(change.quiet for change in changes):
        columns.append(f"notes = {each(_notes)}")  # before the metadata, which has the time of a claim's note
    columns.append(f"metadata = {each(_metadata)}")
    if any(change.status for change in changes):
        columns.append(f"status = {each(lambda change: _text(change.status) if change.status else 'status')}")
    if any(change.status == "in_progress" for change in changes):
        columns.append("started_at = COALESCE(started_at, @now)")
    ids = ", ".join(_text(checked_id(change.bead.id)) for change in changes)
    where = _either(" AND ".join(_expectations(change)) for change in changes)
    return f"UPDATE issues SET {', '.join(columns)} WHERE id IN ({ids}) AND ({where})"  # noqa: S608


def _events(changes: Sequence[Change], actor: str, where: str) -> str:
    """Record old and new status of each bead as `bd update` does."""
    each = _each(changes)
    kind = each(lambda change: "'updated'" if change.status is None else "'status_changed'")
    old = each(lambda change: "status" if change.status is None else _text(change.if_status or change.bead.status))
    return (
        "INSERT INTO events (id, issue_id, event_type, actor, old_value, new_value, comment, created_at) "  # noqa: S608
        f"SELECT UUID(), id, {kind}, {_text(actor)}, JSON_OBJECT('status', {old}), JSON_OBJECT('status', status), "
        f"{each(lambda change: _text(change.comment) if change.comment else 'NULL')}, @written_at "
        f"FROM issues WHERE {where}"
    )


def _row_lock(where: str) -> str:
    """Set the column that bd 1.3 changes with each write, so that Dolt never merges two writes of one bead."""
    random = "1 + FLOOR(RAND() * 9007199254740991)"
    return f"UPDATE issues SET row_lock = {random}, updated_at = updated_at WHERE {where}"  # noqa: S608


def _fewer(where: str, wanted: int) -> str:
    return f"(SELECT COUNT(*) FROM issues WHERE {where}) < {wanted}"  # noqa: S608


def _error(message: str) -> str:
    return f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{message}'"


def _each(changes: Sequence[Change]) -> Callable[[Callable[[Change], str]], str]:
    """Return what makes one expression of one for each change, chosen by the bead's id."""

    def each(expression: Callable[[Change], str]) -> str:
        if len({expression(change) for change in changes}) == 1:
            return expression(changes[0])
        cases = " ".join(f"WHEN {_text(change.bead.id)} THEN {expression(change)}" for change in changes)
        return f"CASE id {cases} END"

    return each


def _either(conditions: Iterator[str]) -> str:
    return " OR ".join(f"({condition})" for condition in conditions)


def _marked(change: Change) -> str:
    return f"id = {_text(change.bead.id)} AND {_own(MARK)} = {_text(change.mark)}"


def _expectations(change: Change) -> Iterator[str]:
    yield f"id = {_text(change.bead.id)}"
    yield f"COALESCE({_own(MARK)}, '') <> {_text(change.mark)}"
    if change.if_status is not None:
        yield f"status = {_text(change.if_status)}"
    if change.if_assignee is not None:
        yield f"assignee = {_text(change.if_assignee)}"
    if change.if_attempt is not None:
        yield f"COALESCE({_own(ATTEMPT)}, '') = {_text(change.if_attempt)}"
    if change.if_mark is not None:
        yield f"COALESCE({_own(MARK)}, '') = {_text(change.if_mark)}"
    if change.if_updated_at is not None:
        yield f"updated_at = {_text(_sql_time(change.if_updated_at))}"
    yield from _store_expectations(change)


def _outcome(change: Change) -> Iterator[str]:
    """Yield what holds of the bead after the change, unless somebody else changed it at the same moment."""
    if change.status is not None:
        yield f"status = {_text(change.status)}"
    if change.if_assignee is not None:
        yield f"assignee = {_text(change.if_assignee)}"
    yield from _store_expectations(change)


def _store_expectations(change: Change) -> Iterator[str]:
    for key, value in change.if_store.items():
        yield _stored(key, value)


def _metadata(change: Change) -> str:
    put, drop = {**change.put, MARK: change.mark}, [*change.drop]
    if change.writes_claim_note:
        put[PENDING_NOTE] = f"{len(change.bead.notes)} {WRITTEN}"
    elif change.ends_claim:
        drop.append(PENDING_NOTE)
    pairs = ", ".join(f"{_path(key)}, {_value(value)}" for key, value in put.items())
    expression = f"JSON_SET({_METADATA}, {pairs})"
    return f"JSON_REMOVE({expression}, {', '.join(map(_path, drop))})" if drop else expression


def _notes(change: Change) -> str:
    newline = _text("\n")
    notes = "COALESCE(notes, '')"
    if change.retracts_claim_note:
        line = f"CONCAT({newline}, {_text(CLAIM_NOTE)}, COALESCE({_own(CLAIMED_AT)}, '?'))"
        notes = f"SUBSTR(REPLACE(CONCAT({newline}, {notes}), {line}, ''), 2)"
    if not change.note and not change.writes_claim_note:
        return notes
    note = f"CONCAT({_text(CLAIM_NOTE)}, {_value(Moment())})" if change.writes_claim_note else _text(change.note)
    return (
        f"CASE WHEN {notes} = '' THEN {note} WHEN LENGTH({notes}) + LENGTH({note}) >= {NOTES_BYTES} THEN {notes} "
        f"ELSE CONCAT({notes}, {newline}, {note}) END"
    )


def _message(changes: Sequence[Change]) -> str:
    """Return the message of the Dolt commit, e.g. `bdauto: claim x-1`."""
    words = [f"{change.act} {change.bead.id}" for change in changes[:NAMED]]
    more = [f"and {len(changes) - NAMED} more"] if len(changes) > NAMED else []
    return f"bdauto: {', '.join(words + more)}"


def _author(actor: str) -> str:
    """Return the actor as Dolt wants an author, `Name <email>`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", actor) or "bdauto"
    return f"{name} <{name}@bdauto>"


def _own(key: str) -> str:
    return f"JSON_UNQUOTE(JSON_EXTRACT(metadata, {_path(key)}))"


def _text(value: str) -> str:
    return f"CAST(X'{value.encode('utf-8', 'replace').hex()}' AS CHAR)"


def _quoted(statement: str) -> str:
    return "'" + statement.replace("'", "''") + "'"


def _value(value: str | float | Moment) -> str:
    if isinstance(value, Moment):
        seconds = round(value.delay.total_seconds())
        return f"DATE_FORMAT(TIMESTAMPADD(SECOND, {seconds}, @now), '%Y-%m-%dT%H:%i:%sZ')"
    if isinstance(value, str):
        return _text(value)
    return str(value) if isinstance(value, int) else f"{value}e0"  # a decimal would become text in Dolt's JSON


def _path(key: str) -> str:
    if not all(c.isalnum() or c in "._" for c in key):
        raise ValueError(f"not a metadata key: {shlex.quote(key)}")
    return f"'$.\"{key}\"'"


def _sql_time(moment: datetime) -> str:
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return text.rstrip("0").rstrip(".") if moment.microsecond else text[:-7]
