"""Completions of prompts, the same whatever batch a prompt is sampled in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import xxhash
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from tars_rewards.scoring.question import Completion

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from tars_rewards.scoring.sampling import Sampling
    from tars_rewards.speech.model import Prompt, SpeechModel


class Draw(NamedTuple):
    """A completion to be sampled: which one, and what from."""

    question: str  #: the question's id
    modality: str
    sample_id: int
    prompt: Prompt


@torch.inference_mode()
def sample(model: SpeechModel, draws: Sequence[Draw], sampling: Sampling) -> list[Completion]:
    """Sample one completion each.

    A draw's random numbers come from the seed and its identity alone, one for each token: the token is the one at which the
    cumulative distribution passes it.

    Args:
        model: The model.
        draws: What to sample, as one batch.
        sampling: How.
    """
    warpers: list[Any] = []
    if sampling.temperature > 0:
        if sampling.temperature != 1:
            warpers.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_p < 1:
            warpers.append(TopPLogitsWarper(sampling.top_p))
        warpers.append(_InverseTransform(np.stack([_uniform(draw, sampling) for draw in draws])))
    batch = model.batch([draw.prompt for draw in draws], padding="left")
    settings = GenerationConfig(
        do_sample=False,  # the choice is made by _InverseTransform, which leaves one token
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sorted(model.stop_ids),
        pad_token_id=model.pad_id,
        suppress_tokens=list(model.never_sampled) or None,
    )
    with _only(model.model, settings):
        generated = model.model.generate(
            **batch, generation_config=settings, logits_processor=LogitsProcessorList(warpers)
        )
    return [_completion(model, row) for row in generated[:, batch["input_ids"].shape[1] :].tolist()]


class _InverseTransform(LogitsProcessor):
    """Leaves, of each row's distribution, the one token that the row's next uniform number falls on."""

    def __init__(self, uniform: Float[np.ndarray, "rows tokens"]) -> None:
        self._uniform = torch.from_numpy(uniform)
        self._token = 0

    def __call__(
        self, input_ids: Int[Tensor, "rows tokens"], scores: Float[Tensor, "rows vocabulary"]
    ) -> Float[Tensor, "rows vocabulary"]:
        uniform = self._uniform[:, self._token].to(scores.device)
        self._token += 1
        cumulative = scores.float().softmax(-1).cumsum(-1)
        whole = cumulative[:, -1:]
        # "<=": a token without probability adds nothing to the sum, and must not be found. Nor must one behind the last
        # that adds something, should the product round up to the whole.
        chosen = (cumulative <= uniform[:, None] * whole).sum(-1, keepdim=True)
        chosen = chosen.minimum((cumulative < whole).sum(-1, keepdim=True))
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen, 0.0)


def _uniform(draw: Draw, sampling: Sampling) -> Float[np.ndarray, " tokens"]:
    identity = f"{sampling.seed}\0{draw.question}\0{draw.modality}\0{draw.sample_id}".encode("utf-8", "surrogatepass")
    generator = np.random.default_rng(xxhash.xxh3_128_intdigest(identity))
    return generator.random(sampling.max_new_tokens, dtype=np.float32)


@contextmanager
def _only(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """Take a checkpoint's own generation settings away: transformers fills ours up with its penalties and the like."""
    own, model.generation_config = model.generation_config, settings
    try:
        yield
    finally:
        model.generation_config = own


def _completion(model: SpeechModel, tokens: list[int]) -> Completion:
    stop = next((index for index, token in enumerate(tokens) if token in model.stop_ids), None)
    kept = tokens if stop is None else tokens[: stop + 1]
    text = model.detokenize(kept if stop is None else kept[:-1])
    return Completion(text, token_ids=tuple(kept), truncated=stop is None)
