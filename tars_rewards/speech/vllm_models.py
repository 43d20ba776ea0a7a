"""vLLM's speech models under verl: names of pushed weights, and Qwen2.5-Omni's processor without torchvision.

verl pushes weights by the names they have in the trained Hugging Face model. vLLM's models know the names of published
checkpoints.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from tars_rewards.integration.patching import after_import, check_signature, replace, require_attribute

# Prefix in the trained model (and in what save_pretrained writes) -> prefix in vLLM's model. Tried in this order.
QWEN2_AUDIO_PREFIXES = {
    "language_model.model.model.": "language_model.model.",
    "model.language_model.": "language_model.model.",
    "model.audio_tower.": "audio_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "lm_head.": "language_model.lm_head.",
}
THINKER_PREFIXES = {"model.": "language_model.model.", "lm_head.": "language_model.lm_head."}


def install() -> None:
    """Arrange for vLLM's models to be patched."""
    after_import("vllm.model_executor.models.qwen2_audio", _name_qwen2_audio)
    after_import("vllm.model_executor.models.qwen2_5_omni_thinker", _name_thinker)
    from transformers.utils import is_torchvision_available

    # vLLM proper brings torchvision; its CPU build runs without, and then Qwen2.5-Omni could not even be imported.
    if not is_torchvision_available():
        _resize_without_torchvision()
        after_import("vllm.model_executor.models.qwen2_5_omni_thinker", _process_without_video)


def _name_qwen2_audio(module: ModuleType) -> None:
    from vllm.model_executor.models.utils import WeightsMapper

    model = require_attribute(module, "Qwen2AudioForConditionalGeneration", module.__name__)
    stock = require_attribute(model, "load_weights", "vLLM Qwen2AudioForConditionalGeneration")
    check_signature(stock, ["self", "weights"], "vLLM Qwen2AudioForConditionalGeneration.load_weights")
    mapper = WeightsMapper(orig_to_new_prefix=QWEN2_AUDIO_PREFIXES)

    @functools.wraps(stock)
    def load_weights(self: Any, weights: Iterable[tuple[str, Any]]) -> Any:
        return stock(self, mapper.apply(weights))

    model.load_weights = load_weights


def _name_thinker(module: ModuleType) -> None:
    from vllm.model_executor.models.utils import WeightsMapper

    model = require_attribute(module, "Qwen2_5OmniThinkerForConditionalGeneration", module.__name__)
    mapper = require_attribute(model, "hf_to_vllm_mapper", "vLLM Qwen2_5OmniThinkerForConditionalGeneration")
    # In the mapper, because LoRA adapters are named through it too.
    model.hf_to_vllm_mapper = mapper | WeightsMapper(orig_to_new_prefix=THINKER_PREFIXES)


def _resize_without_torchvision() -> None:
    """VLLM takes one function on image sizes from a module that needs torchvision; its twin with PIL has it too."""
    package = "transformers.models.qwen2_vl"
    sys.modules.setdefault(
        f"{package}.image_processing_qwen2_vl", importlib.import_module(f"{package}.image_processing_pil_qwen2_vl")
    )


def _process_without_video(module: ModuleType) -> None:
    from tars_rewards.speech.omni_processors import OmniProcessorWithoutVideo

    replace(module, "Qwen2_5OmniProcessor", OmniProcessorWithoutVideo)
