"""One event per line on stderr, with a stable name and fields: `docs/logs.md` lists them.

The text form is for terminals, key=value for pipes, JSON for collectors. Values may come from outside, so each one is
cleaned.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from bdauto.common.sanitize import clean, clean_lines

_logger = logging.getLogger("bdauto")
_logger.addHandler(logging.NullHandler())  # until `configure` says where the log goes
VALUE_LIMIT = 500


class LogFormat(StrEnum):
    """How the log is written."""

    text = "text"
    json = "json"
    keyvalue = "keyvalue"


class Text(str):
    """A value of several lines, which is not cut: only for what --verbose shows."""


_about: dict[str, object] = {}
"""Fields of every event in a block of `about`."""


@contextlib.contextmanager
def about(**fields: object) -> Iterator[None]:
    """Give these fields to every event that is logged in the block, as far as they are not ""."""
    before = dict(_about)
    _about.update(fields)
    try:
        yield
    finally:
        _about.clear()
        _about.update(before)


def event(name: str, level: int = logging.INFO, /, **fields: object) -> None:
    """Log one event without the fields that are None or "". Fields such as `title_` are only for a screen."""
    shown = {key: value for key, value in (_about | fields).items() if value is not None and value != ""}
    aside = {key: shown.pop(key) for key in [*shown] if key.endswith("_")}
    _logger.log(level, name, extra={"fields": shown, "aside": aside})


def debug(name: str, /, **fields: object) -> None:
    """Log an event that only `--verbose` shows."""
    event(name, logging.DEBUG, **fields)


def warning(name: str, /, **fields: object) -> None:
    """Log an event that an operator should look at, some day."""
    event(name, logging.WARNING, **fields)


def error(name: str, /, **fields: object) -> None:
    """Log an event that an operator should look at now."""
    event(name, logging.ERROR, **fields)


def configure(log_format: LogFormat, verbose: bool, *, brief: bool = False) -> None:
    """Send the log to stderr in this form. `verbose` adds the debug events, `brief` leaves out all but warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(log_format))
    send_to(handler, logging.DEBUG if verbose else logging.WARNING if brief else logging.INFO)


def send_to(handler: logging.Handler, level: int) -> None:
    """Send the log from this level on to a handler alone."""
    _logger.handlers[:] = [handler]
    _logger.propagate = False
    _logger.setLevel(level)


class Formatter(logging.Formatter):
    """Writes an event in one of the forms."""

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._log_format = log_format

    def format(self, record: logging.LogRecord) -> str:
        """Return the event as text."""
        moment = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, Any] = {key: _plain(value) for key, value in getattr(record, "fields", {}).items()}
        level = record.levelname.lower()
        if self._log_format is LogFormat.json:
            head = {"time": moment.isoformat(timespec="milliseconds"), "level": level, "event": record.getMessage()}
            return json.dumps(head | fields, ensure_ascii=True)
        if self._log_format is LogFormat.text:
            blocks = [fields.pop(key) for key, value in list(fields.items()) if isinstance(value, Text)]
            pairs = _pairs(fields)
            mark = "" if record.levelno <= logging.INFO else f"{level}: "
            return "\n".join([f"{moment:%H:%M:%S} {mark}{record.getMessage()} {pairs}".rstrip(), *blocks])
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        return f"time={stamp} level={level} event={record.getMessage()} {_pairs(fields)}".rstrip()


def _pairs(fields: dict[str, Any]) -> str:
    return " ".join(f"{key}={_quote(value)}" for key, value in fields.items())


def _plain(value: object) -> object:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, Text):
        return Text(clean_lines(value))
    return clean(str(value), VALUE_LIMIT)


def _quote(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    bare = text.isascii() and text and not any(c in ' "=\\' for c in text)
    return text if bare else json.dumps(text, ensure_ascii=False)
