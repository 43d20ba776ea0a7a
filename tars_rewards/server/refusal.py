"""Answers that are errors: all in one form, ``{"error": {"type", "message", "field"}}``."""

from __future__ import annotations

import json
import re
from typing import Any

from tars_rewards.errors import AdapterError, HiddenStatesError, InputError, RolloutError, ScoringError, TARSError

_FIELD = re.compile(r"field '([^']+)': ")
_FIELDS = re.compile(rf"(?:{_FIELD.pattern})+")
# The rest of the body may not have been read, and of a stopping server a client must look for another: no more over this
# connection.
_UNREAD = (401, 408, 413, 415, 503)
# What the sender of a question can change; every other error is the server's.
_SENDERS = (InputError, RolloutError, ScoringError, AdapterError)


class Refusal(Exception):
    """A request that gets an error for an answer.

    Attributes:
        status: HTTP status.
        kind: The error's ``type``, such as ``too_large``.
        message: A sentence: what was expected, what came, what to do.
        field: Where in the body, such as ``questions[2].audio``; None: it is about the request as a whole.
        retry_after: Seconds after which another attempt makes sense; None: it never does.
    """

    def __init__(
        self, status: int, kind: str, message: str, *, field: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(status, kind, message, field, retry_after)
        self.status = status
        self.kind = kind
        self.message = message
        self.field = field
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return _refusal, self.args

    @property
    def body(self) -> bytes:
        """The answer's body."""
        error = {"type": self.kind, "message": self.message, "field": self.field}
        return json.dumps({"error": error}).encode()

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers beside its type and length."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="tars-rewards"'
        if self.status in (
            413,
            503,
        ):  # the rest of the body is not read; a client of a stopping server looks for another
            headers["Connection"] = "close"
        return headers


def _refusal(status: int, kind: str, message: str, field: str | None, retry_after: int | None) -> Refusal:
    return Refusal(status, kind, message, field=field, retry_after=retry_after)


def invalid(message: str, field: str | None) -> Refusal:
    """Something in the body is not what it has to be."""
    return Refusal(422, "invalid", _named(message, field), field=field)


def too_large(message: str, field: str | None) -> Refusal:
    """Something in the body is over a limit."""
    return Refusal(413, "too_large", _named(message, field), field=field)


def from_error(error: TARSError, field: str) -> Refusal:
    """The answer to a question that could not be read or scored.

    Args:
        error: Why not.
        field: The question, such as ``questions[2]``.
    """
    problems = error.problems if isinstance(error, InputError) and error.problems else (_first_line(error),)
    found, message = _FIELDS.search(problems[0]), problems[0]
    if found is not None:  # "field 'completions.text[0]': field 'truncated': expected …"
        field = ".".join([field, *_FIELD.findall(found[0])])
        message = message[found.end() :]
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    cause = error.__cause__ if isinstance(error.__cause__, TARSError) else error  # the scorer says whose an error is
    if isinstance(cause, _SENDERS) and not isinstance(cause, HiddenStatesError):
        return invalid(message + more, field)
    return Refusal(500, type(cause).__name__, _named(message + more, field), field=field)


def _named(message: str, field: str | None) -> str:
    return message if field is None else f"{field}: {message}"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
