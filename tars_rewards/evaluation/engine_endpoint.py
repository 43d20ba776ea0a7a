"""Completions by an endpoint that speaks OpenAI's `POST /v1/chat/completions` and takes audio: vLLM, and others.

What may pass is retried until a deadline. What concerns one question is that question's error; what concerns them all, such
as an endpoint that is gone, stops the run, which can be continued later.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import xxhash

from tars_rewards.endpoint import Endpoint, RefusedError, UnavailableError
from tars_rewards.errors import ConfigError, ScoringError, TARSError
from tars_rewards.evaluation.conditions import within_full_scale
from tars_rewards.evaluation.endpoint_answer import chat_url, key_variable, read_completion
from tars_rewards.evaluation.engine import SPEECH, Completions, Generated
from tars_rewards.scoring.question import Question
from tars_rewards.scoring.sampling import Sampling
from tars_rewards.scoring.work import about
from tars_rewards.speech.waveform import load_waveform, wav_bytes

_THIS_QUESTION = (400, 413, 422)
"""Statuses by which endpoints refuse a request for its content, such as a clip that is too long."""


class _Request(NamedTuple):
    number: int  # of the question
    modality: str
    body: dict[str, Any]


class EndpointEngine:
    """A model behind an OpenAI-compatible chat endpoint.

    What is retried, and how, says `endpoint.Endpoint`. The statuses 400, 413 and 422 are a question's error; all others
    stop the run.

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
        self._endpoint = Endpoint(
            f"{self._base}/chat/completions",
            api_key_var=None if api_key_var is None else key_variable(api_key_var),
            deadline=deadline,
            timeout=deadline if timeout is None else timeout,
            backoff=backoff,
            connections=concurrency,
            purpose="a chat endpoint (url)",
        )
        self._model = model
        self._concurrency = concurrency
        self._system, self._instruction = system, instruction

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
        try:
            content = self._endpoint.post(request.body, time.monotonic() + self._endpoint.deadline)
        except RefusedError as error:
            refusal = self._expected(str(error))
            if error.status in _THIS_QUESTION:
                return ScoringError(refusal)
            raise ScoringError(f"{refusal}; check the URL, the model's name and the API key's variable") from None
        except UnavailableError as error:
            raise ScoringError(
                f"{self._expected(str(error))}; is the endpoint up and not overloaded? What is done is kept: the same call "
                "goes on, and a longer deadline or a lower concurrency may help"
            ) from error.__cause__
        try:
            completion = read_completion(content)
        except ValueError as error:
            raise ScoringError(
                f"{self._expected(str(error))}; the answer begins {self._endpoint.quoted(content)}; does the URL lead to an "
                "OpenAI-compatible chat endpoint?"
            ) from error
        if completion is None:
            return ScoringError(
                f"{self._expected('an answer without a text')}: {self._endpoint.quoted(content)}; if the server takes the "
                "reasoning out of the text, have it leave it in"
            )
        return completion

    def _expected(self, got: str) -> str:
        return f"expected a completion by {self._model!r} from {self._base}, got {got}"


def _heard(clip: Any, instruction: str | None) -> list[dict[str, Any]]:
    data = base64.b64encode(wav_bytes(within_full_scale(load_waveform(clip)))).decode()
    heard = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    return [heard, *([{"type": "text", "text": instruction}] if instruction else [])]


def _read(prompt: str, instruction: str | None) -> str:
    return "\n".join(each for each in (prompt, instruction) if each)
