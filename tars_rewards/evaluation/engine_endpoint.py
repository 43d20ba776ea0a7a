"""Completions by an endpoint that speaks OpenAI's `POST /v1/chat/completions` and takes audio: vLLM, and others.

What may pass is retried until a deadline. What concerns one question is that question's error; what concerns them all, such
as an endpoint that is gone, stops the run, which can be continued later.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from tars_rewards.embedding_answer import retry_after
from tars_rewards.errors import ConfigError, MissingDependencyError, ScoringError, TARSError
from tars_rewards.evaluation.conditions import within_full_scale
from tars_rewards.evaluation.endpoint_answer import chat_url, key_variable, read_completion
from tars_rewards.evaluation.engine import SPEECH, Completions, Generated
from tars_rewards.scoring.question import Question
from tars_rewards.scoring.sampling import Sampling
from tars_rewards.scoring.work import about
from tars_rewards.speech.waveform import load_waveform, wav_bytes

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

_LONGEST_PAUSE = 30.0  # seconds between two attempts, unless the endpoint asks for more
_CONNECT = 10.0  # seconds
_THIS_QUESTION = (400, 413, 422)
"""Statuses by which endpoints refuse a request for its content, such as a clip that is too long."""
_QUOTED = 300  # characters of an answer in a message


class _PassingError(Exception):
    """Something that another attempt may get past."""

    def __init__(self, problem: str, pause: float = 0.0) -> None:
        super().__init__(problem)
        self.pause = pause  # seconds that the endpoint asks to wait


class _QuestionError(ScoringError):
    """Something that concerns one question."""


class _Request(NamedTuple):
    number: int  # of the question
    modality: str
    body: dict[str, Any]


class EndpointEngine:
    """A model behind an OpenAI-compatible chat endpoint.

    Retried, with exponential backoff and jitter and as long as the deadline allows: connections that fail, break or time
    out, and the statuses 408, 429 and 5xx; a `Retry-After` is kept to. The statuses 400, 413 and 422 are a question's
    error; all others stop the run.

    A clip is sent as WAV, 16 kHz, mono, 16 bits. Temperature, top_p, length and seed are sent, and nothing else of sampling:
    vLLM fills in what the checkpoint's generation config has, such as a repetition penalty, unless it is started with
    ``--generation-config vllm``.

    Args:
        url: Base URL, such as "http://host:8000/v1"; `/chat/completions` is put behind it.
        model: Name that the endpoint knows the model by.
        api_key_var: Environment variable that holds the API key; None: no key is sent.
        concurrency: Requests at a time.
        deadline: Seconds that one completion may take, with all retries.
        timeout: Seconds that one attempt may take; None: as the deadline.
        backoff: Seconds that the first retry waits at most; each further one waits at most twice as long, up to 30.
        system: System prompt of questions that have none of their own.
        instruction: Follows the questions that have none of their own.

    Raises:
        ConfigError: A value is out of range, the URL is none, or the variable holds no key.
        MissingDependencyError: httpx or tenacity is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key_var: str | None = None,
        concurrency: int = 16,
        deadline: float = 600.0,
        timeout: float | None = None,
        backoff: float = 1.0,
        system: str | None = None,
        instruction: str | None = None,
    ) -> None:
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency!r}; expected an integer of at least 1")
        if not 0 < deadline < float("inf"):
            raise ConfigError(f"deadline is {deadline!r}; expected a positive number of seconds")
        self._base = chat_url(url)
        self._url = f"{self._base}/chat/completions"
        self._model = model
        self._key = "" if api_key_var is None else _key(key_variable(api_key_var))
        self._concurrency, self._deadline, self._backoff = concurrency, deadline, backoff
        self._timeout = deadline if timeout is None else timeout
        self._system, self._instruction = system, instruction
        self._client = self._connect()

    def settings(self) -> dict[str, Any]:
        """The endpoint's base URL."""
        return {"engine": self._base}

    def complete(
        self, questions: Sequence[Question], modalities: Sequence[str], sampling: Sampling
    ) -> list[Completions | TARSError]:
        """Complete some questions at once; see `engine.Engine`.

        Raises:
            ScoringError: The endpoint cannot be reached within the deadline, refuses, or answers with something else.
        """
        requests: list[_Request] = []
        errors: dict[int, TARSError] = {}
        for index, question in enumerate(questions):
            try:
                requests += self._requests(index, question, modalities, sampling)
            except TARSError as error:
                errors[index] = about(question, error)
        found: list[dict[str, list[Generated]]] = [{modality: [] for modality in modalities} for _ in questions]
        for request, answer in zip(requests, self._ask_all(requests), strict=True):
            if isinstance(answer, TARSError):
                errors.setdefault(request.number, about(questions[request.number], answer))
            else:
                found[request.number][request.modality].append(answer)
        return [errors.get(index, completions) for index, completions in enumerate(found)]

    def _requests(
        self, index: int, question: Question, modalities: Sequence[str], sampling: Sampling
    ) -> list[_Request]:
        system = self._system if question.system is None else question.system
        instruction = self._instruction if question.instruction is None else question.instruction
        before = [{"role": "system", "content": system}] if system else []
        requests = []
        for modality in modalities:
            content = _heard(question.audio, instruction) if modality == SPEECH else _read(question.prompt, instruction)
            for sample_id in range(sampling.n):
                identity = f"{sampling.seed}\0{question.id}\0{modality}\0{sample_id}"
                body = {
                    "model": self._model,
                    "messages": [*before, {"role": "user", "content": content}],
                    "temperature": sampling.temperature,
                    "top_p": sampling.top_p,
                    "max_tokens": sampling.max_new_tokens,
                    "seed": xxhash.xxh32_intdigest(identity.encode("utf-8", "surrogatepass")) >> 1,  # 31 bits
                }
                requests.append(_Request(index, modality, body))
        return requests

    def _ask_all(self, requests: Sequence[_Request]) -> list[Generated | TARSError]:
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="endpoint")
        try:
            return list(pool.map(self._ask, requests))
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, request: _Request) -> Generated | TARSError:
        import tenacity

        begun = time.monotonic()
        end = begun + self._deadline
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
            generated: Generated = retrying(self._attempt, request.body, end)
            return generated
        except _QuestionError as error:
            return error
        except _PassingError as error:
            waited, attempts = time.monotonic() - begun, retrying.statistics["attempt_number"]
            asked = f" and to wait {error.pause:g} s" if error.pause else ""
            raise ScoringError(
                f"{error}{asked}, after {attempts} attempts in {waited:.1f} s (deadline {self._deadline:g} s); is the "
                "endpoint up and not overloaded? What is done is kept: the same call goes on, and a longer deadline or a "
                "lower concurrency may help"
            ) from error.__cause__

    def _attempt(self, body: dict[str, Any], end: float) -> Generated:
        import httpx

        allowed = max(0.001, min(self._timeout, end - time.monotonic()))
        over = time.monotonic() + allowed
        content = bytearray()
        try:
            timeout = httpx.Timeout(allowed, connect=min(allowed, _CONNECT))
            with self._client.stream("POST", self._url, json=body, timeout=timeout) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if time.monotonic() > over:  # httpx's timeout is between two chunks
                        raise httpx.ReadTimeout(f"no complete answer within {allowed:g} s")
        except (httpx.TransportError, httpx.DecodingError) as error:
            problem = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise _PassingError(self._expected(self._without_key(problem))) from error
        status = response.status_code
        if status != 200:
            refusal = self._expected(f"status {status}: {self._quoted(bytes(content))}")
            if status in (408, 429) or status >= 500:
                raise _PassingError(refusal, retry_after(response.headers.get("Retry-After")))
            if status in _THIS_QUESTION:
                raise _QuestionError(refusal)
            raise ScoringError(f"{refusal}; check the URL, the model's name and the API key's variable")
        try:
            completion = read_completion(bytes(content))
        except ValueError as error:
            raise ScoringError(
                f"{self._expected(str(error))}; the answer begins {self._quoted(bytes(content))}; does the URL lead to an "
                "OpenAI-compatible chat endpoint?"
            ) from error
        if completion is None:
            raise _QuestionError(
                f"{self._expected('an answer without a text')}: {self._quoted(bytes(content))}; if the server takes the "
                "reasoning out of the text, have it leave it in"
            )
        return completion

    def _connect(self) -> httpx.Client:
        try:
            import httpx
            import tenacity  # noqa: F401 - whether it is there shows now, not at the first failure
        except ImportError as error:
            raise MissingDependencyError(
                f"an endpoint needs {error.name}, and it is not installed; pip install 'tars-rewards[embeddings]'"
            ) from error
        limits = httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        return httpx.Client(headers=headers, limits=limits)

    def _expected(self, got: str) -> str:
        return f"expected a completion by {self._model!r} from {self._base}, got {got}"

    def _quoted(self, content: bytes) -> str:
        text = " ".join(self._without_key(content.decode("utf-8", "replace")).split())
        return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[API key]") if self._key else text


def _key(variable: str) -> str:
    key = os.environ.get(variable, "")
    if not key or not all("!" <= character <= "~" for character in key):
        raise ConfigError(
            f"expected the endpoint's API key in the environment variable {variable}, which "
            f"{'holds blanks or other characters that no key has' if key else 'is not set'}; export it"
        )
    return key


def _heard(clip: Any, instruction: str | None) -> list[dict[str, Any]]:
    data = base64.b64encode(wav_bytes(within_full_scale(load_waveform(clip)))).decode()
    heard = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    return [heard, *([{"type": "text", "text": instruction}] if instruction else [])]


def _read(prompt: str, instruction: str | None) -> str:
    return "\n".join(each for each in (prompt, instruction) if each)
