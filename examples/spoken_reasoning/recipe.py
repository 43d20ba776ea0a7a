"""How the base model comes about: data, loss and the two stages of supervised training.

1. **Text**: the decoder learns to reason on written questions.
2. **Listening**: the projector and the decoder learn to write down what was said (transcription), and, on a few clips,
   to answer what was said; text questions go on, so that nothing is forgotten.

This is the order in which real Speech LLMs are made, and the reason why they reason worse on speech: they have heard
much and reasoned about little of what they heard.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from inference import embed, hear, prompt_text, transcription_prompt
from model import Thinker, trained_parameters
from questions import Question, format_completion, stream
from speech import Speaker, speak
from transformers import Qwen2_5OmniProcessor


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the base model.

    Attributes:
        seed: Of questions, speakers, initial weights and batches.
        text_steps: Steps of stage 1.
        text_batch: Questions a step of stage 1.
        listen_steps: Steps of stage 2.
        clips: Spoken questions of the training split; all of them are transcribed.
        reasoned_clips: How many of them are also answered.
        direct_share: Share of the answered clips whose answer leaves its reasoning out.
        transcribed_per_step: Transcriptions a step of stage 2.
        reasoned_per_step: Spoken answers a step of stage 2.
        reasoned_from: Step of stage 2 at which spoken answers begin.
        text_per_step: Text questions a step of stage 2.
        prompt_weight: Weight of a prompt's tokens in stage 1.
        learning_rate: Peak in stage 1.
        listen_learning_rate: Peak of the decoder in stage 2.
        projector_learning_rate: Peak of the projector in stage 2.
    """

    seed: int = 0
    text_steps: int = 800
    text_batch: int = 48
    listen_steps: int = 400
    clips: int = 1600
    reasoned_clips: int = 240
    direct_share: float = 0.0
    transcribed_per_step: int = 14
    reasoned_per_step: int = 4
    reasoned_from: int = 0
    text_per_step: int = 10
    prompt_weight: float = 0.3
    learning_rate: float = 2e-3
    listen_learning_rate: float = 2e-3
    projector_learning_rate: float = 3e-3


@dataclass(frozen=True)
class Example:
    """A prompt, and the completion to learn; ``audio`` is what `hear` made of the clip, for spoken prompts."""

    prompt: str
    completion: str
    audio: torch.Tensor | None = None


def spoken_question(question: Question, seed: int) -> npt.NDArray[np.float32]:
    """The clip of a training question."""
    return speak(question.text, Speaker.draw(question.text, seed))


def clips_of(questions: Sequence[Question], seed: int, *, workers: int = 2) -> list[npt.NDArray[np.float32]]:
    """The clips of training questions, spoken in parallel."""
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(spoken_question, questions, [seed] * len(questions), chunksize=32))


def text_examples(processor: Qwen2_5OmniProcessor, seed: int) -> Iterator[Example]:
    """Endless written questions of the training split."""
    for question in stream("train", seed):
        yield Example(prompt_text(processor, question.text), question.completion)


def heard_clips(
    thinker: Thinker, processor: Qwen2_5OmniProcessor, recipe: Recipe
) -> list[tuple[Question, torch.Tensor]]:
    """The spoken questions of stage 2, and what the frozen tower makes of them; every clip is encoded once."""
    questions = list(islice(stream("train", recipe.seed + 1), recipe.clips))
    heard = [audio.half() for audio in hear(thinker, processor, clips_of(questions, recipe.seed))]
    return list(zip(questions, heard, strict=True))


def spoken_examples(
    processor: Qwen2_5OmniProcessor, recipe: Recipe, clips: Sequence[tuple[Question, torch.Tensor]]
) -> tuple[list[Example], list[Example]]:
    """Transcriptions of all clips, and answers to the first few of them."""
    transcribe, answer = transcription_prompt(processor), prompt_text(processor, None)
    transcribed = [Example(transcribe, question.text, audio) for question, audio in clips]
    reasoned = [
        Example(answer, format_completion("", question.answer) if direct else question.completion, audio)
        for (question, audio), direct in zip(clips, _spread(recipe.direct_share, recipe.reasoned_clips), strict=False)
    ]
    return transcribed, reasoned


def _spread(share: float, count: int) -> list[bool]:
    """True for a share of ``count``, evenly spread."""
    return [int((i + 1) * share + 1e-9) > int(i * share + 1e-9) for i in range(count)]


def loss_of(
    thinker: Thinker, processor: Qwen2_5OmniProcessor, examples: Sequence[Example], *, prompt_weight: float = 0.0
) -> torch.Tensor:
    """Weighted mean cross-entropy of the tokens of prompts and completions, end of turn included.

    Rows are padded on the right: with a causal decoder nothing before the padding can see it.

    Args:
        thinker: The model.
        processor: Its processor.
        examples: What to learn.
        prompt_weight: Weight of a (written) prompt's token; a completion's weighs 1. The options repeat words of the
            question, which teaches to look words up.
    """
    rows, labels, weights = [], [], []
    for example in examples:
        prompt = embed(thinker, processor, example.prompt, example.audio)
        ids = processor.tokenizer(example.completion, add_special_tokens=False).input_ids
        target = torch.tensor([*ids, processor.tokenizer.eos_token_id])
        rows.append(torch.cat([prompt, thinker.get_input_embeddings()(target)]))
        before = torch.zeros(len(prompt), dtype=torch.long)
        if prompt_weight:
            before = torch.tensor(processor.tokenizer(example.prompt, add_special_tokens=False).input_ids)
        labels.append(torch.cat([before, target]))
        weights.append(torch.cat([torch.full((len(prompt),), prompt_weight), torch.ones(len(target))]))
    inputs, targets, weight = (
        torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in (rows, labels, weights)
    )
    learned = weight[:, 1:] > 0
    states = thinker.model(inputs_embeds=inputs, use_cache=False).last_hidden_state[:, :-1]
    losses = torch.nn.functional.cross_entropy(
        thinker.lm_head(states[learned]), targets[:, 1:][learned], reduction="none"
    )
    share = weight[:, 1:][learned]
    return (losses * share).sum() / share.sum()


def train_text(thinker: Thinker, processor: Qwen2_5OmniProcessor, recipe: Recipe) -> Iterator[tuple[int, float]]:
    """Stage 1; yields (step, loss)."""
    decoder = [p for name, p in trained_parameters(thinker).items() if not name.startswith("audio_tower.")]
    optimizer = torch.optim.AdamW([{"params": decoder, "lr": recipe.learning_rate}], betas=(0.9, 0.98))
    examples = text_examples(processor, recipe.seed)
    for step in range(recipe.text_steps):
        loss = loss_of(
            thinker, processor, list(islice(examples, recipe.text_batch)), prompt_weight=recipe.prompt_weight
        )
        _step(optimizer, loss, _schedule(step, recipe.text_steps))
        yield step, loss.item()


def train_listening(
    thinker: Thinker,
    processor: Qwen2_5OmniProcessor,
    recipe: Recipe,
    transcribed: Sequence[Example],
    reasoned: Sequence[Example],
) -> Iterator[tuple[int, dict[str, float]]]:
    """Stage 2; yields (step, loss of each kind of example)."""
    parameters = trained_parameters(thinker)
    projector = [p for name, p in parameters.items() if name.startswith("audio_tower.proj")]
    decoder = [p for name, p in parameters.items() if not name.startswith("audio_tower.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": projector, "lr": recipe.projector_learning_rate},
            {"params": decoder, "lr": recipe.listen_learning_rate},
        ],
        betas=(0.9, 0.98),
    )
    rng = random.Random(recipe.seed)
    texts = text_examples(processor, recipe.seed + 2)
    for step in range(recipe.listen_steps):
        losses = {
            "transcription": loss_of(thinker, processor, rng.sample(transcribed, recipe.transcribed_per_step)),
            "text": loss_of(thinker, processor, list(islice(texts, recipe.text_per_step))),
        }
        if recipe.reasoned_per_step and reasoned and step >= recipe.reasoned_from:
            losses["speech"] = loss_of(thinker, processor, rng.choices(reasoned, k=recipe.reasoned_per_step))
        _step(optimizer, torch.stack(list(losses.values())).sum(), _schedule(step, recipe.listen_steps))
        yield step, {name: loss.item() for name, loss in losses.items()}


def _schedule(step: int, steps: int, *, warmup: int = 50) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine to a twentieth."""
    cosine = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / warmup) * cosine


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, share: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = share * group.setdefault("peak", group["lr"])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
