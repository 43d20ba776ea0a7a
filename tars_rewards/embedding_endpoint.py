"""Sentence embeddings from an endpoint that speaks OpenAI's `POST /v1/embeddings`: vLLM, TEI, and others.

What may pass is retried until a deadline, what cannot is not; a batch that is too large is split; and what comes back is
checked, since a wrong vector would be a wrong reward.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tars_rewards.config import base_url
from tars_rewards.embedding_answer import read_embeddings
from tars_rewards.endpoint import Endpoint, RefusedError, UnavailableError
from tars_rewards.errors import EmbedderFailedError, EmbeddingError

if TYPE_CHECKING:
    import numpy.typing as npt

_PERHAPS_TOO_LARGE = (400, 413, 422)
"""Statuses by which endpoints say that texts are too many or too long; their wordings differ, so all are tried halved."""


class _TooLargeError(Exception):
    """Perhaps fewer texts would do."""


class EndpointEmbedder:
    """A model behind an OpenAI-compatible embeddings endpoint.

    What is retried, and how, says `endpoint.Endpoint`. Where a batch is refused by 400, 413 or 422 its halves are sent, and
    later batches are as small as what was accepted.

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
        self._endpoint = Endpoint(
            f"{base}/embeddings",
            api_key_var=api_key_var,
            deadline=deadline,
            timeout=timeout,
            backoff=backoff,
            purpose="an embeddings endpoint (embedder_url)",
        )
        self._model = model
        self._dim, self._encoding = dim, encoding
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        # With the URL, since two servers may call different models by one name.
        self.model_id = f"{model} at {base}"
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"EndpointEmbedder({self._endpoint.url!r}, {self._model!r})"

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
        end = time.monotonic() + self._endpoint.deadline
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
        # Half a surrogate pair, as a damaged text may hold, has no UTF-8.
        sent = [text.encode("utf-8", "replace").decode() for text in texts]
        try:
            content = self._endpoint.post({"model": self._model, "input": sent, "encoding_format": self._encoding}, end)
        except RefusedError as error:
            refusal = self._expected(len(texts), str(error))
            if error.status in _PERHAPS_TOO_LARGE:
                raise _TooLargeError(refusal) from None
            raise EmbedderFailedError(f"{refusal}; check embedder_url, embedder and embedder_api_key_var") from None
        except UnavailableError as error:
            raise EmbedderFailedError(
                f"{self._expected(len(texts), str(error))}; is the endpoint up and not overloaded? A longer "
                "embedder_deadline waits longer"
            ) from error.__cause__
        return self._vectors(content, len(texts))

    def _vectors(self, content: bytes, count: int) -> npt.NDArray[np.float32]:
        try:
            vectors = read_embeddings(content, count)
        except EmbeddingError as error:
            raise EmbedderFailedError(
                f"{self._expected(count, str(error))}; the answer begins {self._endpoint.quoted(content)}; does "
                "embedder_url lead to an OpenAI-compatible embeddings endpoint?"
            ) from error
        with self._lock:
            self._dim = self._dim or vectors.shape[1]
        if vectors.shape[1] != self._dim:
            raise EmbedderFailedError(
                f"{self._expected(count, f'vectors of {vectors.shape[1]} values')}; expected {self._dim} values; is "
                "another model served under the name now?"
            )
        return vectors

    def _expected(self, count: int, got: str) -> str:
        return f"expected embeddings of {count} texts by {self._model!r} from {self._endpoint.url}, got {got}"
