"""verl's look-ups of a checkpoint's processor, config and chat handling, taught the speech model families."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from tars_rewards.integration.patching import after_import, check_signature, replace, require_attribute
from tars_rewards.speech.checkpoint import checkpoint_family
from tars_rewards.speech.families import TrainableFamily, find_trainable, known_families
from tars_rewards_verl.version import require_verl


def install() -> None:
    """Arrange for the look-ups to be replaced."""
    # The function is imported by name from package to package; later importers get it from one of these.
    for module in ("verl.utils.tokenizer.tokenizer", "verl.utils.tokenizer", "verl.utils"):
        after_import(module, _find_processor)
    after_import("verl.workers.config.model", _find_config)
    after_import("verl.utils.tokenizer.continuous_token_wiring", _find_chat_handling)


def _find_processor(module: ModuleType) -> None:
    """Verl gives a model whose processor it does not know no processor, with a warning."""
    stock = module.hf_processor
    check_signature(stock, ["name_or_path", "kwargs"], f"{module.__name__}.hf_processor")

    @functools.wraps(stock)
    def hf_processor(name_or_path: str, **kwargs: Any) -> Any:
        family = checkpoint_family(name_or_path)
        if family is None:
            return stock(name_or_path, **kwargs)
        require_verl()
        from tars_rewards.speech.processors import load_processor

        return load_processor(name_or_path, family, **kwargs)

    replace(module, "hf_processor", hf_processor)


def _find_config(module: ModuleType) -> None:
    """Verl trains what the checkpoint's config describes; of Qwen2.5-Omni only a part is trained."""
    stock = require_attribute(module, "AutoConfig", module.__name__)

    class AutoConfig:
        """``transformers.AutoConfig`` for verl's model config."""

        @staticmethod
        def from_pretrained(path: str, **kwargs: Any) -> Any:
            config = stock.from_pretrained(path, **kwargs)
            family = find_trainable(getattr(config, "model_type", None))
            return config if family is None else trained_config(family, config)

    replace(module, "AutoConfig", AutoConfig)


def trained_config(family: TrainableFamily, checkpoint_config: Any) -> Any:
    """Config of the part that is trained, with what verl reads of a config, and its class known to Hugging Face.

    Args:
        family: The checkpoint's family.
        checkpoint_config: Hugging Face config of the checkpoint.
    """
    import transformers

    config = family.trained_config(checkpoint_config)
    if not hasattr(config, "tie_word_embeddings"):
        config.tie_word_embeddings = False
    # verl builds the model, and writes its checkpoints, through this class; of these families it knows Thinkers only.
    model_class = getattr(transformers, family.model_class)
    transformers.AutoModelForImageTextToText.register(type(config), model_class, exist_ok=True)
    return config


def _find_chat_handling(module: ModuleType) -> None:
    """Verl takes a processor without images for one of a text model, and does not know the models' turns."""
    stock = module._is_multimodal_processor
    check_signature(stock, ["processor"], f"{module.__name__}._is_multimodal_processor")

    @functools.wraps(stock)
    def is_multimodal_processor(processor: Any) -> bool:
        return stock(processor) or hasattr(processor, "speech_family")

    replace(module, "_is_multimodal_processor", is_multimodal_processor)
    families = require_attribute(module, "_MODEL_TYPE_TO_FAMILY", module.__name__)
    for family in known_families():
        if isinstance(family, TrainableFamily):
            families.setdefault(family.model_type, module.ContinuousTokenModelFamily.QWEN_VL)
