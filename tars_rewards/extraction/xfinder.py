"""Answers read by xFinder, the model that the paper scores with (arXiv 2601.05543; xFinder is arXiv 2405.11874).

The PyPI package `xfinder` (0.2.6) brings the prompt and the loading of the model. It has no batches, and it turns every
failure into the text "[Error in inference]", which its own comparison then scores as wrong. Here prompts are answered
in batches, greedily, and a failure is an error.

A rollout holds no question, so the model sees the completion and the range of answers alone, unless `batch` is given
the questions.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tars_rewards.errors import ExtractionError, MissingDependencyError

_LOADING = threading.Lock()
_FAILED = "[Error in inference]"  # these two are the package's
_NO_ANSWER = "[No valid answer]"
_MAX_TOKENS = 100  # of an answer; the package's own limit


@dataclass(frozen=True)
class XFinder:
    """An answer extractor, single or in batches. The model is loaded when first needed, once a process.

    Can be pickled: it holds names only.

    Raises:
        MissingDependencyError: The package is not installed.
    """

    name: str = "xFinder-qwen1505"
    """The model, "xFinder-qwen1505" (0.5B) or "xFinder-llama38it" (8B)."""
    directory: str | None = None
    """Where it lies; None: the Hugging Face cache, into which it is downloaded."""
    answer_range: str = "a letter that names one of the options, or a short text"
    """What an answer may be, in xFinder's words: a description, or a list of the answers."""
    batch_size: int = 16
    """Completions answered at once."""

    def __post_init__(self) -> None:
        if importlib.util.find_spec("xfinder") is None:
            raise MissingDependencyError(
                "answer_extractor='xfinder' needs the package xfinder, and it is not installed; pip install "
                "tars-rewards[xfinder], then pip install --no-deps xfinder==0.2.6 (it asks for an old torch that it "
                "does not need), or use another answer_extractor"
            )

    def __call__(self, completion: str, /) -> str | None:
        """Return the answer that the completion states, or None where the model finds no valid one.

        Raises:
            ExtractionError: The model failed.
        """
        return self.batch([completion])[0]

    def batch(self, completions: Sequence[str], *, questions: Sequence[str] | None = None) -> list[str | None]:
        """Return the answer of each completion.

        Args:
            completions: The texts.
            questions: The question of each, with its options; None: the model is not told.

        Raises:
            ExtractionError: The model failed on some; says on how many.
        """
        import torch

        extractor = _loaded(self.name, self.directory)
        tokenizer, model = extractor.tokenizer, extractor.model
        asked = [""] * len(completions) if questions is None else questions
        prompts = [
            extractor.generate_output(question, completion, self.answer_range)
            for question, completion in zip(asked, completions, strict=True)
        ]
        _refuse_failures([prompt == _FAILED for prompt in prompts], "could not be put into xFinder's prompt")
        answers: list[str] = []
        for start in range(0, len(prompts), self.batch_size):
            inputs = tokenizer(prompts[start : start + self.batch_size], return_tensors="pt", padding=True)
            inputs = {key: inputs[key].to(model.device) for key in ("input_ids", "attention_mask")}
            with torch.no_grad():
                output = model.generate(
                    **inputs, max_new_tokens=_MAX_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
                )
            new = output[:, inputs["input_ids"].shape[1] :]
            answers += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
        _refuse_failures([answer in ("", _FAILED) for answer in answers], "got no reply from xFinder")
        return [None if answer == _NO_ANSWER else answer for answer in answers]


def _refuse_failures(failed: list[bool], what: str) -> None:
    if any(failed):
        raise ExtractionError(
            f"{sum(failed)} of {len(failed)} completions {what}, the first of them number {failed.index(True)}; they "
            "are not scored as wrong: check the model's directory and name, or use another answer_extractor"
        )


def _loaded(name: str, directory: str | None) -> Any:
    with _LOADING:  # reward functions run in threads
        return _load(name, directory)


@functools.cache
def _load(name: str, directory: str | None) -> Any:
    """The package's extractor, with `generate_output` returning the prompt instead of the answer to it."""
    from huggingface_hub import snapshot_download
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    with warnings.catch_warnings():  # importing the package silences every warning of the process
        from xfinder.modules import Extractor
    logging.set_verbosity(verbosity)

    class Prompts(Extractor):
        def _execute_local_inference(self, query: str) -> Any:
            return self.create_formatted_prompt(query)

    if not hasattr(Extractor, "_execute_local_inference"):
        raise MissingDependencyError("this version of xfinder is not known; pip install --no-deps xfinder==0.2.6")
    # The package would download by a shell command where the directory is missing.
    place = snapshot_download(f"IAAR-Shanghai/{name}") if directory is None else directory
    extractor = Prompts(name, "local", place, temperature=0, max_tokens=_MAX_TOKENS)
    extractor.tokenizer.padding_side = "left"
    if extractor.tokenizer.pad_token is None:
        extractor.tokenizer.pad_token = extractor.tokenizer.eos_token
    return extractor
