"""Sentence embeddings from an endpoint that speaks OpenAI's `POST /v1/embeddings`: vLLM, TEI, and others.

What may pass is retried until a deadline, what cannot is not; a batch that is too large is split; and what comes back is
checked, since a wrong vector would be a wrong reward.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tars_rewards.config import base_url
from tars_rewards.embedding_answer import read_embeddings, retry_after
from tars_rewards.errors import ConfigError, EmbedderFailedError, EmbeddingError, MissingDependencyError

if TYPE_CHECKING:
    import httpx
    import numpy.typing as npt
    from tenacity import RetryCallState

_LONGEST_PAUSE = 30.0  # seconds between two attempts, unless the endpoint asks for more
_CONNECT = 10.0  # seconds
_PERHAPS_TOO_LARGE = (400, 413, 422)
"""Statuses by which endpoints say that texts are too many or too long; their wordings differ, so all are tried halved."""
_QUOTED = 300  # characters of an answer in a message


class _PassingError(Exception):
    """Something that another attempt may get past."""

    def __init__(self, problem: str, pause: float = 0.0) -> None:
        super().__init__(problem)
        self.pause = pause  # seconds that the endpoint asks to wait


class _TooLargeError(Exception):
    """Perhaps fewer texts would do."""


class EndpointEmbedder:
    """A model behind an OpenAI-compatible embeddings endpoint.

    Retried, with exponential backoff and jitter and as long as the deadline allows: connections that fail, break or time
    out, and the statuses 408, 429 and 5xx; a `Retry-After` is kept to. Not retried: every other status. Where a batch is
    refused by 400, 413 or 422 its halves are sent, and later batches are as small as what was accepted.

    Safe to use from several threads. Can be pickled; the connection is made again where it is used, and the key is read
    there from the environment.

    Args:
        url: Base URL, such as "http://host:8000/v1"; `/embeddings` is put behind it.
        model: Name that the endpoint knows the model by.
        api_key_var: Environment variable that holds the API key; None: no key is sent.
        deadline: Seconds that `encode` may take, with all retries.
        timeout: Seconds that one attempt may take.
        backoff: Seconds that the first retry waits at most; each further one waits at most twice as long, up to 30.
        batch_size: Texts a request.
        dim: Expected dimension of the vectors; None: that of the first answer.
        encoding: Form in which vectors are asked for; either is understood.
        max_tokens: `math.inf` if the endpoint refuses texts that are too long for it rather than cutting them; None: it
            may cut them unnoticed, of which a warning says once.

    Raises:
        ConfigError: The URL is none, or the variable holds no key in this process.
        MissingDependencyError: httpx or tenacity is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key_var: str | None = None,
        deadline: float = 300.0,
        timeout: float = 60.0,
        backoff: float = 1.0,
        batch_size: int = 64,
        dim: int | None = None,
        encoding: Literal["float", "base64"] = "float",
        max_tokens: float | None = None,
    ) -> None:
        base = base_url(url)
        self._url = f"{base}/embeddings"
        self._model = model
        self._api_key_var = api_key_var
        self._deadline, self._timeout, self._backoff = deadline, timeout, backoff
        self._dim, self._encoding = dim, encoding
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        # With the URL, since two servers may call different models by one name.
        self.model_id = f"{model} at {base}"
        self._reset()
        _require_libraries()
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

    def __repr__(self) -> str:
        return f"EndpointEmbedder({self._url!r}, {self._model!r})"

    def encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Vectors of some texts.

        Args:
            texts: At least one text.

        Returns:
            float32 [texts, dim], in the order of the texts.

        Raises:
            EmbedderFailedError: The endpoint did not answer within the deadline, refused, or answered with something else
                than one finite vector of the expected dimension for every text.
        """
        end = time.monotonic() + self._deadline
        size = self.batch_size
        pending = [texts[start : start + size] for start in range(0, len(texts), size)]
        answers: list[npt.NDArray[np.float32]] = []
        split = False
        while pending:
            batch = pending.pop(0)
            try:
                answers.append(self._ask(batch, end))
            except _TooLargeError as error:
                if len(batch) == 1:
                    raise EmbedderFailedError(
                        f"{error} for a single text of {len(batch[0])} characters; does the endpoint know the model, and "
                        "is the text within its window? Let the server truncate, take a model with a longer window, or "
                        "generate shorter completions"
                    ) from None
                pending[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
                split = True
        if split:
            self.batch_size = max(len(answer) for answer in answers)
        return np.concatenate(answers)

    def _ask(self, texts: list[str], end: float) -> npt.NDArray[np.float32]:
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
            vectors: npt.NDArray[np.float32] = retrying(self._attempt, texts, end)
            return vectors
        except _PassingError as error:
            waited, attempts = time.monotonic() - begun, retrying.statistics["attempt_number"]
            asked = f" and to wait {error.pause:g} s" if error.pause else ""
            raise EmbedderFailedError(
                f"{error}{asked}, after {attempts} attempts in {waited:.1f} s (deadline {self._deadline:g} s); is the "
                "endpoint up and not overloaded? A longer embedder_deadline waits longer"
            ) from error.__cause__

    def _attempt(self, texts: list[str], end: float) -> npt.NDArray[np.float32]:
        import httpx

        allowed = max(0.001, min(self._timeout, end - time.monotonic()))
        over = time.monotonic() + allowed
        # Half a surrogate pair, as a damaged text may hold, has no UTF-8.
        sent = [text.encode("utf-8", "replace").decode() for text in texts]
        body = {"model": self._model, "input": sent, "encoding_format": self._encoding}
        content = bytearray()
        try:
            timeout = httpx.Timeout(allowed, connect=min(allowed, _CONNECT))
            with self._connected().stream("POST", self._url, json=body, timeout=timeout) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if time.monotonic() > over:  # httpx's timeout is between two chunks
                        raise httpx.ReadTimeout(f"no complete answer within {allowed:g} s")
        except (httpx.TransportError, httpx.DecodingError) as error:
            problem = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise _PassingError(self._expected(len(texts), self._without_key(problem))) from error
        status = response.status_code
        if status != 200:
            refusal = self._expected(len(texts), f"status {status}: {self._quoted(bytes(content))}")
            if status in (408, 429) or status >= 500:
                raise _PassingError(refusal, retry_after(response.headers.get("Retry-After")))
            if status in _PERHAPS_TOO_LARGE:
                raise _TooLargeError(refusal)
            raise EmbedderFailedError(f"{refusal}; check embedder_url, embedder and embedder_api_key_var")
        return self._vectors(bytes(content), len(texts))

    def _vectors(self, content: bytes, count: int) -> npt.NDArray[np.float32]:
        try:
            vectors = read_embeddings(content, count)
        except EmbeddingError as error:
            raise EmbedderFailedError(
                f"{self._expected(count, str(error))}; the answer begins {self._quoted(content)}; does embedder_url lead to "
                "an OpenAI-compatible embeddings endpoint?"
            ) from error
        with self._lock:
            self._dim = self._dim or vectors.shape[1]
        if vectors.shape[1] != self._dim:
            raise EmbedderFailedError(
                f"{self._expected(count, f'vectors of {vectors.shape[1]} values')}; expected {self._dim} values; is "
                "another model served under the name now?"
            )
        return vectors

    def _connected(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None or self._process != os.getpid():
                key = self._key()
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                self._client, self._process = httpx.Client(headers=headers), os.getpid()
            return self._client

    def _key(self) -> str:
        if self._api_key_var is None:
            return ""
        key = os.environ.get(self._api_key_var, "")
        if not key or not all("!" <= character <= "~" for character in key):
            raise ConfigError(
                f"expected the API key of {self._url} in the environment variable {self._api_key_var}, which in this process "
                f"{'holds blanks or other characters that no key has' if key else 'is not set'}; export it where the "
                "reward runs (under Ray: before Ray is started, or in its runtime_env)"
            )
        return key

    def _expected(self, count: int, got: str) -> str:
        return f"expected embeddings of {count} texts by {self._model!r} from {self._url}, got {got}"

    def _quoted(self, content: bytes) -> str:
        text = " ".join(self._without_key(content.decode("utf-8", "replace")).split())
        return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")

    def _without_key(self, text: str) -> str:
        key: str = self._connected().headers.get("Authorization", "").removeprefix("Bearer ")
        return text.replace(key, "[API key]") if key else text


def _require_libraries() -> None:
    for name in ("httpx", "tenacity"):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise MissingDependencyError(
                f"an embeddings endpoint (embedder_url) needs {name}, and it is not installed; "
                "pip install tars-rewards[embeddings]"
            ) from error
