"""An HTTP endpoint that takes and gives JSON, and may fail: what may pass is retried until a deadline, what cannot is not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tars_rewards.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

_LONGEST_PAUSE = 30.0  # seconds between two attempts, unless the endpoint asks for more
_CONNECT = 10.0  # seconds
_QUOTED = 300  # characters of an answer in a message


class RefusedError(Exception):
    """The endpoint answered with a status that another attempt does not get past; the message quotes it."""

    def __init__(self, status: int, got: str) -> None:
        super().__init__(got)
        self.status = status


class UnavailableError(Exception):
    """The endpoint did not answer within the deadline; the message says what came last, and how long it was tried."""


class _PassingError(Exception):
    """Something that another attempt may get past."""

    def __init__(self, problem: str, pause: float = 0.0) -> None:
        super().__init__(problem)
        self.pause = pause  # seconds that the endpoint asks to wait


class Endpoint:
    """Where requests go.

    Retried, with exponential backoff and jitter and as long as the deadline allows: connections that fail, break or time
    out, and the statuses 408, 429 and 5xx; a `Retry-After` is kept to.

    Safe to use from several threads. Can be pickled; the connection is made again where it is used, and the key is read
    there from the environment. The key is in no message.

    Args:
        url: Where requests are posted.
        api_key_var: Environment variable that holds the API key; None: no key is sent.
        deadline: Seconds that a request may take, with all retries.
        timeout: Seconds that one attempt may take.
        backoff: Seconds that the first retry waits at most; each further one waits at most twice as long, up to 30.
        connections: How many requests at a time may be under way.
        purpose: What needs the endpoint, for the message where a package is missing.

    Raises:
        ConfigError: The variable holds no key in this process.
        MissingDependencyError: httpx or tenacity is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key_var: str | None,
        deadline: float,
        timeout: float,
        backoff: float,
        purpose: str,
        connections: int = 100,
    ) -> None:
        self.url = url
        self.deadline = deadline
        self._api_key_var = api_key_var
        self._timeout, self._backoff, self._connections = timeout, backoff, connections
        self._reset()
        _require_libraries(purpose)
        self._key()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._process = 0  # that the client was made in: a forked process must not share its connections

    def __getstate__(self) -> dict[str, Any]:
        made_on_demand = ("_lock", "_client", "_process")
        return {name: value for name, value in self.__dict__.items() if name not in made_on_demand}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def post(self, body: Mapping[str, Any], end: float) -> bytes:
        """The answer to a request, of status 200.

        Args:
            body: JSON.
            end: When to give up, on the clock of `time.monotonic`.

        Raises:
            RefusedError: The endpoint answered with another status that is not retried.
            UnavailableError: It did not answer in time.
        """
        import tenacity

        begun = time.monotonic()
        backoff = tenacity.wait_random_exponential(multiplier=self._backoff, max=_LONGEST_PAUSE)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            return max(float(backoff(state)), error.pause if isinstance(error, _PassingError) else 0.0)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            wait=pause,
            stop=lambda state: time.monotonic() + state.upcoming_sleep >= end,
            reraise=True,
        )
        try:
            content: bytes = retrying(self._attempt, body, end)
            return content
        except _PassingError as error:
            waited, attempts = time.monotonic() - begun, retrying.statistics["attempt_number"]
            asked = f" and to wait {error.pause:g} s" if error.pause else ""
            raise UnavailableError(
                f"{error}{asked}, after {attempts} attempts in {waited:.1f} s (deadline {self.deadline:g} s)"
            ) from error.__cause__

    def quoted(self, content: bytes) -> str:
        """The beginning of an answer, for messages."""
        text = " ".join(self._without_key(content.decode("utf-8", "replace")).split())
        return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")

    def _attempt(self, body: Mapping[str, Any], end: float) -> bytes:
        import httpx

        allowed = max(0.001, min(self._timeout, end - time.monotonic()))
        over = time.monotonic() + allowed
        content = bytearray()
        try:
            timeout = httpx.Timeout(allowed, connect=min(allowed, _CONNECT))
            with self._connected().stream("POST", self.url, json=body, timeout=timeout) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if time.monotonic() > over:  # httpx's timeout is between two chunks
                        raise httpx.ReadTimeout(f"no complete answer within {allowed:g} s")
        except (httpx.TransportError, httpx.DecodingError) as error:
            problem = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise _PassingError(self._without_key(problem)) from error
        status = response.status_code
        if status != 200:
            refusal = f"status {status}: {self.quoted(bytes(content))}"
            if status in (408, 429) or status >= 500:
                raise _PassingError(refusal, retry_after(response.headers.get("Retry-After")))
            raise RefusedError(status, refusal)
        return bytes(content)

    def _connected(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None or self._process != os.getpid():
                key = self._key()
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                limits = httpx.Limits(max_connections=self._connections, max_keepalive_connections=self._connections)
                self._client, self._process = httpx.Client(headers=headers, limits=limits), os.getpid()
            return self._client

    def _key(self) -> str:
        if self._api_key_var is None:
            return ""
        key = os.environ.get(self._api_key_var, "")
        if not key or not all("!" <= character <= "~" for character in key):
            raise ConfigError(
                f"expected the API key of {self.url} in the environment variable {self._api_key_var}, which in this process "
                f"{'holds blanks or other characters that no key has' if key else 'is not set'}; export it there (under "
                "Ray: before Ray is started, or in its runtime_env)"
            )
        return key

    def _without_key(self, text: str) -> str:
        key: str = self._connected().headers.get("Authorization", "").removeprefix("Bearer ")
        return text.replace(key, "[API key]") if key else text


def retry_after(value: str | None) -> float:
    """Seconds that a `Retry-After` header asks to wait: it holds a number of them, or a date. 0 if it says neither.

    Example:
        >>> retry_after("2"), retry_after(None), retry_after("Wed, 21 Oct 2015 07:28:00 GMT")
        (2.0, 0.0, 0.0)
    """
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _require_libraries(purpose: str) -> None:
    for name in ("httpx", "tenacity"):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise MissingDependencyError(
                f"{purpose} needs {name}, and it is not installed; pip install tars-rewards[embeddings]"
            ) from error
