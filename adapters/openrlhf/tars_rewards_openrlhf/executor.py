"""One completion: the prompt with its audio to vLLM, base reward and embedding back.

OpenRLHF's own executor knows images only, cuts prompts that are too long, and logs errors of a reward function instead of
raising them. This one is an `AgentExecutorBase` too; what a user's own reward function or server is asked goes through the
stock executor's calls.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from openrlhf.utils.agent import AgentExecutorBase, SingleTurnAgentExecutor

from tars_rewards.answers import has_format
from tars_rewards.errors import AdapterError
from tars_rewards.integration.completion_embedder import NOT_EMBEDDED, CompletionEmbedder
from tars_rewards.protocol import BaseScore
from tars_rewards.reward import TARSReward
from tars_rewards.speech.families import SAMPLING_RATE
from tars_rewards.speech.processors import SpeechProcessor
from tars_rewards.speech.waveform import load_waveform
from tars_rewards_openrlhf.label import Label

_PROMPTS_KEPT = 64
_BANNED = -100.0  # the lowest bias that vLLM takes


class Prompt(NamedTuple):
    """A prompt as the trained model reads it and as vLLM is to get it."""

    ids: list[int]  #: with a clip's placeholder once for each of its feature vectors
    sent: list[int]  #: with one placeholder a clip, which vLLM expands itself
    clips: list[Any]  #: float32 samples
    features: dict[str, Any] | None  #: for the forward of the trained model; None without clips


class TARSExecutor(AgentExecutorBase):
    """Single-turn executor.

    Args:
        reward: Base reward and embeddings.
        processor: Of a speech model; None for a model that only reads.
        endpoints: The user's reward function file or servers (``--reward.remote_url``); None: accuracy and format.
    """

    def __init__(
        self, reward: TARSReward, *, processor: SpeechProcessor | None, endpoints: Sequence[str] | None = None
    ) -> None:
        self._reward = reward
        self._processor = processor
        self._theirs = SingleTurnAgentExecutor(list(endpoints)) if endpoints else None
        self._embedder = CompletionEmbedder(reward)
        self._prompts: OrderedDict[str, asyncio.Task[Prompt]] = OrderedDict()
        self._banned = {token: _BANNED for token in processor.never_sampled()} if processor is not None else None

    async def execute(
        self,
        prompt: str,
        label: str,
        sampling_params: Any,
        max_length: int,
        hf_tokenizer: Any,
        llm_engine: Any,
        images: Sequence[Any] | None = None,
    ) -> dict[str, Any]:
        """Complete a prompt and score the completion; see ``AgentExecutorBase.execute``.

        Args:
            prompt: Chat-formatted.
            label: From the paired dataset.
            sampling_params: vLLM's.
            max_length: Prompt and completion together, in tokens.
            hf_tokenizer: OpenRLHF's tokenizer or processor.
            llm_engine: Has ``generate``.
            images: The clips of a spoken prompt: OpenRLHF's one slot for media.

        Raises:
            AdapterError: A clip is unreadable, a prompt leaves no room for the completion, or vLLM read another prompt.
        """
        about = Label.load(label)
        tokenizer = getattr(hf_tokenizer, "tokenizer", hf_tokenizer)
        try:
            read = await self._read(prompt, label, images, tokenizer)
        except AdapterError as error:
            raise AdapterError(f"pair {about.pair_id!r}, {about.modality}: {error}") from error
        params = self._sampling(sampling_params, max_length, read, about)
        media = {"audio": [(clip, SAMPLING_RATE) for clip in read.clips]} if read.clips else None
        output = await llm_engine.generate(read.sent, params, multi_modal_data=media)
        if list(output.prompt_token_ids) != read.ids:
            raise AdapterError(
                f"pair {about.pair_id!r}, {about.modality}: vLLM read a prompt of {len(output.prompt_token_ids)} tokens, the "
                f"processor's has {len(read.ids)}; the two disagree about how many vectors a clip becomes"
            )
        generated = output.outputs[0]
        tokens = list(generated.token_ids)
        completion = tokenizer.decode(tokens, skip_special_tokens=True)
        truncated = generated.finish_reason == "length"
        base, logs = await self._base(about, completion, truncated, prompt, read.ids + tokens, tokenizer)
        scores: dict[str, Any] = {"correct": base.correct, "format": base.format}
        if self._reward.config.beta and not about.validation:
            begun = time.perf_counter()
            # A written completion that is wrong is nobody's reference.
            compared = base.correct or about.modality == self._reward.config.target_modality
            embedded = await self._embedder.embed(completion) if compared else NOT_EMBEDDED
            # Numbers only, and of every completion the same: OpenRLHF puts them together, longer ones padded with zeros.
            scores["embedding"] = np.zeros(1, np.float32) if embedded.vector is None else embedded.vector
            scores["embedding_seconds"] = time.perf_counter() - begun
            scores["over_window"] = float("nan") if embedded.over_window is None else embedded.over_window
            scores["embedder_failed"] = embedded.failed
        log_probs = [step[token].logprob for token, step in zip(tokens, generated.logprobs, strict=True)]
        return {
            "prompt": prompt,
            "label": label,
            "images": images,
            "mm_train_inputs": read.features,
            "observation_tokens": read.ids + tokens,
            "action_ranges": [(len(read.ids), len(read.ids) + len(tokens))],
            "rollout_log_probs": [0.0] * len(read.ids) + log_probs,
            "truncated": truncated,
            "reward": base.reward,
            "scores": float(base.correct),
            "extra_logs": logs,
            "tars": scores,
        }

    async def _read(self, prompt: str, label: str, clips: Sequence[Any] | None, tokenizer: Any) -> Prompt:
        # All samples of a prompt are asked for at once: the first reads it, the others wait for that.
        if label not in self._prompts:
            self._prompts[label] = asyncio.create_task(asyncio.to_thread(self._tokenize, prompt, clips, tokenizer))
            while len(self._prompts) > _PROMPTS_KEPT:
                self._prompts.popitem(last=False)
        return await self._prompts[label]

    def _tokenize(self, prompt: str, clips: Sequence[Any] | None, tokenizer: Any) -> Prompt:
        if not clips:
            ids = [int(token) for token in tokenizer(text=prompt, add_special_tokens=False)["input_ids"]]
            return Prompt(ids, ids, [], None)
        if self._processor is None:
            raise AdapterError("a prompt came with audio for a model that cannot hear")
        waveforms = [load_waveform(clip) for clip in clips]
        ids = self._processor(text=[prompt], audio=waveforms, return_tensors="np")["input_ids"][0].tolist()
        features = self._processor.features(waveforms)
        return Prompt(ids, self._processor.collapse(ids, len(waveforms)), waveforms, features)

    def _sampling(self, given: Any, max_length: int, prompt: Prompt, about: Label) -> Any:
        params = deepcopy(given)
        if params.max_tokens is None:
            params.max_tokens = max(1, max_length - len(prompt.ids))
        if len(prompt.ids) + params.max_tokens > max_length:
            raise AdapterError(
                f"pair {about.pair_id!r}, {about.modality}: a prompt of {len(prompt.ids)} tokens leaves no room for "
                f"{params.max_tokens} new ones within {max_length}; cutting it would change the question. Raise "
                "--data.max_len, lower --rollout.max_new_tokens, or leave the question out"
            )
        params.logprobs = 1
        params.logit_bias = self._banned
        return params

    async def _base(
        self, about: Label, completion: str, truncated: bool, prompt: str, tokens: list[int], tokenizer: Any
    ) -> tuple[BaseScore, dict[str, Any]]:
        if self._theirs is None:
            return self._reward.base(completion, about.answer, truncated=truncated), {}
        query = tokenizer.decode(tokens, skip_special_tokens=False)
        ask = self._theirs._fetch_rewards_via_func if self._theirs.reward_func else self._theirs._fetch_rewards_via_http
        return user_score((await ask([query], [prompt], [about.answer]))[0], has_format(completion) and not truncated)


def user_score(answer: Any, formatted: bool) -> tuple[BaseScore, dict[str, Any]]:
    """Base score from what a user's reward function returned.

    A completion counts as correct, and may then be a reference, if ``extra_logs["correct"]`` says so; without that if
    ``scores`` (or else ``rewards``) is at least 1.

    Args:
        answer: ``{"rewards": …, "scores": …, "extra_logs": {…}}``, the latter two optional.
        formatted: Whether the completion has the paper's format.

    Raises:
        AdapterError: There is no finite reward in it.
    """
    if not isinstance(answer, Mapping) or "rewards" not in answer:
        raise AdapterError(f'expected the reward function to return {{"rewards": number, …}}, got {answer!r}')
    reward, logs = _number(answer["rewards"], "rewards"), dict(answer.get("extra_logs") or {})
    if "correct" in logs:
        correct = bool(_number(logs["correct"], "extra_logs['correct']"))
    else:
        correct = (reward if answer.get("scores") is None else _number(answer["scores"], "scores")) >= 1
    return BaseScore(correct, formatted, reward), logs


def _number(value: Any, name: str) -> float:
    try:
        number = float(np.asarray(value, dtype=np.float64).reshape(-1)[0])
    except (IndexError, TypeError, ValueError) as error:
        raise AdapterError(f"expected {name} of the reward function to be a number, got {value!r}") from error
    if not np.isfinite(number):
        raise AdapterError(f"expected {name} of the reward function to be finite, got {number}")
    return number
