"""Settings of an evaluation."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal

from tars_rewards.config import ANSWER_EXTRACTORS
from tars_rewards.errors import ConfigError
from tars_rewards.evaluation.benchmarks import BENCHMARKS, REASONING_PROMPT
from tars_rewards.evaluation.conditions import Condition
from tars_rewards.evaluation.engine import SPEECH, TEXT
from tars_rewards.scoring.sampling import Sampling

_MODALITIES = {"both": (SPEECH, TEXT), SPEECH: (SPEECH,), TEXT: (TEXT,)}


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated on what, and how. Two runs that are to be compared differ in one of these.

    Raises:
        ConfigError: A value is out of range, or two exclude each other.
    """

    model: str
    """Directory or hub name of a Speech LLM; with `url`, the name that the endpoint knows it by."""
    benchmark: str
    """"mmsu" or "obqa" of VoiceBench, or a JSONL or Parquet file of questions with clips and answers."""
    out: str
    """Directory of the run; made if need be. An interrupted run is continued by the same call."""
    data: str | None = None
    """Local copy of the benchmark's Parquet files, a directory or a file; None: the Hugging Face hub."""
    modality: Literal["both", "speech", "text"] = "both"
    """How questions are asked."""
    limit: int | None = None
    """Only that many questions, the first ones; None: all."""

    url: str | None = None
    """Base URL of an OpenAI-compatible chat endpoint with audio input, such as "http://host:8000/v1" (vLLM: start it with
    `--generation-config vllm`, or the checkpoint's own penalties apply); None: the model runs in this process."""
    api_key_var: str | None = None
    """Name of the environment variable that holds the endpoint's API key; None: no key is sent."""
    concurrency: int = 16
    """Requests at a time."""
    deadline: float = 600.0
    """Seconds that one completion may take at the endpoint, with all retries."""
    device: str = "auto"
    """Where the model runs in this process, such as "cuda:0"; "auto": an accelerator if there is one."""
    dtype: str = "auto"
    """Of its weights, such as "bfloat16"; "auto": the checkpoint's, float32 on a CPU."""
    token_budget: int = 16_384
    """Tokens of one of its batches, with prompts, padding, and completions at their longest."""

    system: str = REASONING_PROMPT
    """System prompt of questions that have none of their own; the default asks for reasoning in <think> and the answer in
    <answer>, as the paper's does in other words. Empty: none, which leaves it to the chat template."""
    instruction: str | None = None
    """Text that follows each question in both modalities; None: none, as in the paper."""
    answer_extractor: str = "tags"
    """Who finds the answer: "tags" (the answer block, strictly), "voicebench" or "xfinder" (the paper's)."""

    samples: int = 1
    """Completions of a question in each modality."""
    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability, in (0, 1]."""
    max_new_tokens: int = 1024
    """Longest completion in tokens."""
    seed: int = 0
    """Of sampling and of noise."""

    snr: tuple[float, ...] = ()
    """Ratios of speech to noise in dB at which questions are heard; "inf" is without noise. With several, each has a
    directory of its own below `out`. Empty: without noise."""
    speed: float = 1.0
    """How many times faster clips are played, as a tape is: the pitch rises with it."""

    clips: int = 12
    """Of how many questions, the first ones, the clip is kept beside the results as it was heard, for the report."""
    backbone: str | None = None
    """Run directory of the original text backbone, whose written accuracy is the recovery rate's denominator; None: the
    model's own written accuracy."""
    skip_bad: bool = False
    """Put bad questions into a file of their own, `results.jsonl.bad.jsonl`, instead of stopping."""
    overwrite: bool = False
    """Drop what is in the directory of an earlier run."""
    progress: bool = True
    """Whether a bar is shown on standard error."""

    def __post_init__(self) -> None:
        for name in ("model", "benchmark", "out"):
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, name, os.fspath(value))
            elif not isinstance(value, str) or not value:
                raise ConfigError(f"{name} is {value!r}; expected a non-empty text")
        if self.modality not in _MODALITIES:
            raise ConfigError(f"modality is {self.modality!r}; expected one of {', '.join(_MODALITIES)}")
        if self.answer_extractor not in ANSWER_EXTRACTORS:
            raise ConfigError(
                f"answer_extractor is {self.answer_extractor!r}; expected one of {', '.join(ANSWER_EXTRACTORS)}"
            )
        for name, least in (("limit", 1), ("clips", 0)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise ConfigError(f"{name} is {value!r}; expected an integer of at least {least}")
        if self.api_key_var is not None and self.url is None:
            raise ConfigError("api_key_var is set, but url is not; a key goes to an endpoint, so name one")
        object.__setattr__(self, "snr", tuple(self.snr))
        conditions = self.conditions  # checks their values
        if len(set(conditions)) < len(conditions):
            raise ConfigError(f"snr is {self.snr!r}; expected each ratio once")
        if self.modality == TEXT and not all(condition.clean for condition in conditions):
            raise ConfigError(
                "snr and speed change nothing about questions that are read; take them out, or ask for speech too"
            )
        _ = self.sampling  # likewise

    @property
    def modalities(self) -> tuple[str, ...]:
        """Which of "speech" and "text"."""
        return _MODALITIES[self.modality]

    @property
    def sampling(self) -> Sampling:
        """How completions are sampled."""
        return Sampling(self.samples, self.temperature, self.top_p, self.max_new_tokens, self.seed)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """How questions are heard: at least one condition."""
        return tuple(
            Condition(None if math.isinf(snr) and snr > 0 else snr, self.speed, self.seed)
            for snr in self.snr or (math.inf,)
        )

    @property
    def benchmark_questions(self) -> int | None:
        """Questions that the benchmark has; None for a file of one's own."""
        return BENCHMARKS[self.benchmark].questions if self.benchmark in BENCHMARKS else None
