"""Audio in verl's agent loop and in its vLLM server."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from tars_rewards.integration.patching import after_import, check_signature, replace, require_attribute


def install() -> None:
    """Arrange for both to be patched."""
    after_import("verl.experimental.agent_loop.agent_loop", _compute_features)
    after_import("verl.workers.rollout.vllm_rollout.vllm_async_server", _send_audio)


def _compute_features(module: ModuleType) -> None:
    """Features for the training forward come from the clips alone.

    verl decodes the completed sequence to text and has the processor read it again; without its special tokens there is
    no placeholder left in it.
    """
    worker = require_attribute(module, "AgentLoopWorker", module.__name__)
    stock = require_attribute(worker, "_compute_multi_modal_inputs", "verl AgentLoopWorker")
    check_signature(stock, ["self", "output", "input_ids"], "verl AgentLoopWorker._compute_multi_modal_inputs")

    @functools.wraps(stock)
    def compute_multi_modal_inputs(self: Any, output: Any, input_ids: Any) -> Any:
        if not hasattr(self.processor, "speech_family"):
            return stock(self, output, input_ids)
        clips = (output.multi_modal_data or {}).get("audios")
        return self.processor.features(clips) if clips else {}

    worker._compute_multi_modal_inputs = compute_multi_modal_inputs


def _send_audio(module: ModuleType) -> None:
    """What vLLM gets: one placeholder per clip, no sampling rate, and tokens it must never sample.

    vLLM expands placeholders itself, and would expand those of an expanded prompt once more without a word. Its
    processors know their sampling rate and fail when they are told one.
    """
    server = require_attribute(module, "vLLMHttpServer", module.__name__)
    stock_generate = require_attribute(server, "generate", "verl vLLMHttpServer")
    expected = (
        "self prompt_ids sampling_params request_id image_data video_data audio_data mm_processor_kwargs priority "
        "kv_transfer_params"
    )
    check_signature(stock_generate, expected.split(), "verl vLLMHttpServer.generate")

    @functools.wraps(stock_generate)
    async def generate(
        self: Any,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        *args: Any,
        audio_data: list[Any] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        processor = self.model_config.processor
        if hasattr(processor, "speech_family"):
            prompt_ids = processor.collapse(module.normalize_token_ids(prompt_ids), len(audio_data or ()))
            mm_processor_kwargs = {
                name: value for name, value in (mm_processor_kwargs or {}).items() if name != "sampling_rate"
            }
        return await stock_generate(
            self,
            prompt_ids,
            sampling_params,
            request_id,
            *args,
            audio_data=audio_data,
            mm_processor_kwargs=mm_processor_kwargs,
            **kwargs,
        )

    server.generate = generate

    stock_banned = module.get_vision_placeholder_token_ids
    check_signature(stock_banned, ["processor"], f"{module.__name__}.get_vision_placeholder_token_ids")

    @functools.wraps(stock_banned)
    def get_vision_placeholder_token_ids(processor: Any) -> list[int]:
        if hasattr(processor, "speech_family"):
            return list(processor.never_sampled())
        return list(stock_banned(processor))

    replace(module, "get_vision_placeholder_token_ids", get_vision_placeholder_token_ids)
