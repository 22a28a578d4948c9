"""Structured logs: one JSON object a line on standard error, or coloured lines for a person."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

SECRET = re.compile(r"(password|secret|token|api_?key|credential|sasl)", re.IGNORECASE)
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def hide_secrets(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of every key that names a secret, at any depth of plain mappings."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: "***" if SECRET.search(str(key)) else clean(item) for key, item in value.items()}
        return value

    for key in event:
        event[key] = "***" if SECRET.search(key) else clean(event[key])
    return event


class Foreign(logging.Handler):
    """Lines of libraries (APScheduler, kafka-python) as ours: one JSON object, nothing that forges a second line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record under the event ``library``."""
        said = {"library": record.name, "detail": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            said["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        structlog.get_logger().log(record.levelno, "library", **said)


def configure(level: str = "info", *, for_people: bool = False) -> None:
    """Set up structlog once for the process. JSON escapes control characters, so a value cannot forge a line."""
    renderer: Any = structlog.dev.ConsoleRenderer() if for_people else structlog.processors.JSONRenderer(sort_keys=True)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            hide_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Warnings and worse only: kafka-python tells every request below that.
    logging.basicConfig(handlers=[Foreign()], level=max(LEVELS[level], logging.WARNING), force=True)
