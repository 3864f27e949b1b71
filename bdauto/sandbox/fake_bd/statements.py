"""`bd sql` of the stand-in: the statements that bdauto sends, run on SQLite with the meaning they have on Dolt."""

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from bdauto.sandbox.fake_bd.call import FakeBdError, FakeCall
from bdauto.sandbox.fake_bd.store import TIMES, Row, Store, plain_time, rfc3339, stamp, unique

SIGNAL = r"SIGNAL\s+SQLSTATE\s+'45000'\s+SET\s+MESSAGE_TEXT\s*=\s*'([^']*)'"


def sql(call: FakeCall) -> None:
    """`bd sql`: one SELECT, or statements that write."""
    if not call.server:
        raise FakeBdError("'bd sql' is not yet supported in embedded mode", plain=True)
    if len(call.flags.words) != 1:
        raise FakeBdError(f"accepts 1 arg(s), received {len(call.flags.words)}", plain=True)
    text = call.flags.words[0].strip()
    reading = text.upper().startswith("SELECT")
    if not reading:
        call.check_writable()
    session = SqlSession(call.store)
    try:
        if reading:
            call.say([_printed(row) for row in session.select(text)], "")
        else:
            changed = session.run(text)
            if call.proxied and len(list(_split(text, ";"))) > 1:
                call.say({"status": "ok"}, "OK")
            else:
                call.say({"rows_affected": changed}, f"OK, {changed} rows affected")
    except (sqlite3.Error, ValueError) as problem:
        raise FakeBdError(f"{'query' if reading else 'exec'} error: {_words(str(problem))}") from None


class SqlSession:
    """A connection to Dolt: user variables, a prepared statement, and the rows that the last statement changed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.variables: dict[str, object] = {}
        self.prepared = ""
        self.rows = -1
        self.on_commit: Callable[[], object] = lambda: None
        """What another writer does at the moment of a Dolt commit, which merges both."""
        self._define_functions()

    def run(self, text: str) -> int:
        """Run all statements, also those after one that fails, and return the rows that the last one changed.

        Raises sqlite3.Error or ValueError for the first that failed. An open transaction is then rolled back.
        """
        problem: Exception | None = None
        for statement in _split(text, ";"):
            try:
                self.rows = self._one(statement.strip())
            except (sqlite3.Error, ValueError) as caught:
                problem, self.rows = problem or caught, -1
        if self.store.db.in_transaction:
            self.store.db.execute("ROLLBACK")
        if problem:
            raise problem
        return max(self.rows, 0)

    def select(self, text: str) -> list[Row]:
        """Return the rows of a query. SQLite takes an empty list, which MySQL refuses."""
        if re.search(r"\bIN\s*\(\s*\)", text):
            raise ValueError("Error 1105 (HY000): syntax error near 'IN'")
        return self.store.rows(self._with_values(text))

    def _one(self, text: str) -> int:
        first = text.split(None, 1)[0].upper()
        if found := re.fullmatch(r"SET\s+(@.+)", text, re.DOTALL):
            self._assign(found[1])
        elif first in ("START", "ROLLBACK", "COMMIT"):
            self._transaction(first)
        elif found := re.fullmatch(r"PREPARE\s+\w+\s+FROM\s+@(\w+)", text):
            self.prepared = str(self.variables[found[1]])
        elif first == "EXECUTE":
            return self._one(self.prepared)
        elif found := re.fullmatch(r"CALL\s+DOLT_COMMIT\((.+)\)", text):
            self._commit(found[1])
        elif found := re.fullmatch(SIGNAL, text):
            raise ValueError(f"Error 1644 (45000): {found[1]}")
        elif found := re.fullmatch(r"UPDATE\s+issues\s+SET\s+(.+?)\s+WHERE\s+(.+)", text, re.IGNORECASE | re.DOTALL):
            return self._update(found[1], found[2])
        elif first in ("SELECT", "INSERT", "REPLACE", "DELETE"):
            return max(self.store.db.execute(self._with_values(text)).rowcount, 0)
        elif not text.startswith("CALL DOLT_ADD("):
            raise ValueError(f"syntax error: the sandbox does not know {text[:40]}")
        return 0

    def _assign(self, text: str) -> None:
        for assignment in _split(text, ","):
            name, _, expression = assignment.strip().partition("=")
            self.variables[name.strip().removeprefix("@")] = self._value(expression)

    def _value(self, expression: str) -> object:
        return next(iter(self.store.db.execute(f"SELECT {self._with_values(expression)}").fetchone()))

    def _transaction(self, word: str) -> None:
        if word == "START":
            self.store.db.execute("BEGIN IMMEDIATE")
        elif self.store.db.in_transaction:
            self.store.db.execute("ROLLBACK" if self.store.lose_writes else word)

    def _commit(self, arguments: str) -> None:
        words = [str(self._value(argument)) for argument in _split(arguments, ",")]
        message = words[words.index("-m") + 1]
        name, _, email = words[words.index("--author") + 1].partition(" ")
        self.store.log_commit(name, email.strip("<>"), message)
        self._transaction("COMMIT")
        self.on_commit()

    def _update(self, assignments: str, where: str) -> int:
        pairs = []
        for assignment in _split(self._with_values(assignments), ","):
            column, equals, expression = assignment.partition("=")
            if not equals:
                raise ValueError(f"syntax error near '{assignment.strip()}'")
            pairs.append((column.strip().strip("`"), expression))
        return _update(self.store, pairs, self._with_values(where))

    def _with_values(self, text: str) -> str:
        """Replace the user variables by their values, and what SQLite writes differently."""
        text = re.sub(r"TIMESTAMPADD\(SECOND,", "TIMESTAMPADD('SECOND',", text)
        parts = re.split(r"('(?:[^']|'')*')", text)
        parts[::2] = [re.sub(r"@(\w+)", lambda name: self._literal(name[1]), part) for part in parts[::2]]
        return "".join(parts)

    def _literal(self, name: str) -> str:
        value = self.variables.get(name)
        if value is None:
            return "NULL"
        return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"

    def _define_functions(self) -> None:
        """Give SQLite the functions of Dolt that it lacks or that differ (LENGTH counts bytes, CONCAT keeps NULL)."""
        define = self.store.db.create_function
        define("CONCAT", -1, lambda *parts: None if None in parts else "".join(map(str, parts)))
        define("LENGTH", 1, lambda text: None if text is None else len(str(text).encode()))
        define("CHAR_LENGTH", 1, lambda text: None if text is None else len(str(text)))
        define("JSON_UNQUOTE", 1, lambda value: None if value is None else str(value))
        define("JSON_TYPE", 1, _json_type)
        define("IF", 3, lambda condition, then, otherwise: then if condition else otherwise)
        define("UUID", 0, unique)
        define("RAND", 0, lambda: time.time_ns() % 1_000_003 / 1_000_003)
        define("FLOOR", 1, int)
        define("ROW_COUNT", 0, lambda: self.rows)
        define("UTC_TIMESTAMP", 0, lambda: time.strftime("%Y-%m-%d %H:%M:%S.5", time.gmtime()))
        define("NOW", 0, lambda: time.strftime("%Y-%m-%d %H:%M:%S"))
        define("DATE_FORMAT", 2, _date_format)
        define("TIMESTAMPADD", 3, lambda _unit, seconds, moment: _date_format(moment, "%Y-%m-%d %H:%i:%s", seconds))


def _date_format(moment: str, pattern: str, later: int = 0) -> str:
    import calendar

    seconds = calendar.timegm(time.strptime(moment[:19], "%Y-%m-%d %H:%M:%S")) + later
    return time.strftime(pattern.replace("%i", "%M").replace("%s", "%S"), time.gmtime(seconds))


def _json_type(text: str | None) -> str | None:
    import json

    names = {dict: "OBJECT", list: "ARRAY", str: "STRING", type(None): "NULL", bool: "BOOLEAN"}
    return None if text is None else names.get(type(json.loads(text)), "DOUBLE")


def _update(store: Store, assignments: Sequence[tuple[str, str]], where: str) -> int:
    """Do `UPDATE issues SET … WHERE …` as Dolt does it, and return how many rows really changed.

    Dolt assigns from left to right, each expression seeing the values already assigned, and moves `updated_at` on when
    a row changes and the statement does not set it.
    """
    changed, every = 0, ", ".join(f"{column} = {expression}" for column, expression in assignments)
    with store.writing():
        store.db.execute(f"EXPLAIN UPDATE issues SET {every} WHERE {where}")  # noqa: S608 - is it valid at all?
        before = store.rows(f"SELECT * FROM issues WHERE {where}")  # noqa: S608
        for row in before:
            for column, expression in assignments:
                store.db.execute(f"UPDATE issues SET {column} = {expression} WHERE id = ?", (row["id"],))  # noqa: S608
            after = store.issue(str(row["id"])) or {}
            times = {name: plain_time(str(after[name])) for name, _ in assignments if name in TIMES and after[name]}
            if {**after, **times} != row:
                changed += 1
                if "updated_at" not in dict(assignments):
                    times["updated_at"] = stamp()
            if times:
                store.write(str(row["id"]), dict(times))
    return changed


def _split(text: str, separator: str) -> Iterable[str]:
    """Split at the separators that are outside quotes and parentheses."""
    return filter(str.strip, _pieces(text, separator))


def _pieces(text: str, separator: str) -> Iterator[str]:
    depth, quote, start = 0, "", 0
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == separator and not depth:
            yield text[start:position]
            start = position + 1
    yield text[start:]


def _words(problem: str) -> str:
    """An error of SQLite in Dolt's words."""
    if problem.startswith("Error "):
        return problem
    column = problem.partition("no such column: ")[2]
    if column:
        return f'Error 1105 (HY000): column "{column}" could not be found in any table in scope'
    table = problem.partition("no such table: ")[2]
    return f"Error 1146 (HY000): table not found: {table}" if table else f"Error 1105 (HY000): {problem}"


def _printed(row: Row) -> Row:
    """A row as `bd sql` prints it: columns in alphabetical order, times in RFC 3339."""
    return {name: rfc3339(value) if name in TIMES and value else value for name, value in sorted(row.items())}
