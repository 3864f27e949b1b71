"""One event per line on stderr, with a stable name and fields: `docs/logs.md` lists them.

The text form is for terminals, key=value for pipes, JSON for collectors. Values come from outside too, so each is made
harmless before it is written.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from bdauto.text import clean

_logger = logging.getLogger("bdauto")
_logger.addHandler(logging.NullHandler())  # until `configure` says where the log goes
VALUE_LIMIT = 500


class LogFormat(StrEnum):
    """How the log is written."""

    text = "text"
    json = "json"
    keyvalue = "keyvalue"


def event(name: str, level: int = logging.INFO, /, **fields: object) -> None:
    """Log one event; fields that are None or "" are left out."""
    shown = {key: value for key, value in fields.items() if value is not None and value != ""}
    _logger.log(level, name, extra={"fields": shown})


def debug(name: str, /, **fields: object) -> None:
    """Log an event that only `--verbose` shows."""
    event(name, logging.DEBUG, **fields)


def warning(name: str, /, **fields: object) -> None:
    """Log an event that an operator should look at, some day."""
    event(name, logging.WARNING, **fields)


def error(name: str, /, **fields: object) -> None:
    """Log an event that an operator should look at now."""
    event(name, logging.ERROR, **fields)


def configure(log_format: LogFormat, verbose: bool) -> None:
    """Send the log to stderr in this form; `verbose` adds the debug events."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(log_format))
    _logger.handlers[:] = [handler]
    _logger.propagate = False
    _logger.setLevel(logging.DEBUG if verbose else logging.INFO)


class _Formatter(logging.Formatter):
    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._log_format = log_format

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, Any] = {key: _plain(value) for key, value in getattr(record, "fields", {}).items()}
        level = record.levelname.lower()
        if self._log_format is LogFormat.json:
            head = {"time": moment.isoformat(timespec="milliseconds"), "level": level, "event": record.getMessage()}
            return json.dumps(head | fields, ensure_ascii=True)
        pairs = " ".join(f"{key}={_quote(value)}" for key, value in fields.items())
        if self._log_format is LogFormat.text:
            mark = "" if record.levelno <= logging.INFO else f"{level}: "
            return f"{moment:%H:%M:%S} {mark}{record.getMessage()} {pairs}".rstrip()
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        return f"time={stamp} level={level} event={record.getMessage()} {pairs}".rstrip()


def _plain(value: object) -> object:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 3)
    return clean(str(value), VALUE_LIMIT)


def _quote(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    bare = text.isascii() and text and not any(c in ' "=\\' for c in text)
    return text if bare else json.dumps(text, ensure_ascii=False)
