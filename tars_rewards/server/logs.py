"""Logs as one line of JSON an event, on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

LOGGER = logging.getLogger("tars_rewards.server")
_LONGEST = 2000  # characters of a value: what a client sent may be in it


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, event, what `log` was given, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage()[:_LONGEST],
        }
        for name, value in getattr(record, "fields", {}).items():
            line[name] = value[:_LONGEST] if isinstance(value, str) else value
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log(level: int, event: str, *, error: BaseException | None = None, **fields: Any) -> None:
    """Log an event.

    Args:
        level: Of the standard library's logging.
        event: What happened, in a few words.
        error: Its traceback goes into the line.
        **fields: Values to find the line by.
    """
    LOGGER.log(level, event, exc_info=error, extra={"fields": fields})


def configure() -> None:
    """Let this server's and uvicorn's loggers, and Python's warnings, write such lines to standard error.

    They are then left alone by the root logger. Libraries with handlers of their own, such as transformers, keep these.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.captureWarnings(True)
    for name, level in ((LOGGER.name, logging.INFO), ("uvicorn", logging.WARNING), ("py.warnings", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
