"""LoRA adapters that a family's language model has for audio only, on for the rows of a batch that have a clip.

Such a checkpoint reads without its adapter and listens with it. A batch has rows of both kinds, and PEFT can say for
each row which adapter is on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tars_rewards.errors import ConfigError, MissingDependencyError, UnsupportedConfigError
from tars_rewards.speech.family import SpeechModelFamily

if TYPE_CHECKING:
    from torch import nn

# transformers takes every weight whose name contains the adapter's name for one of the adapter's, and initialises it
# anew: an adapter called "speech" makes up Phi-4's speech projector at random.
_NAME = "tars_media_adapter"


def load_adapter(model: Any, path: str, family: SpeechModelFamily) -> None:
    """Give a loaded model the adapter that its family's record names.

    Args:
        model: The model with its weights in place; transformers has loaded an adapter that lies beside them already.
        path: Checkpoint directory or hub name.
        family: The model's family.

    Raises:
        MissingDependencyError: PEFT is not installed.
        ConfigError: The adapter is not within reach.
        UnsupportedConfigError: The config tells of an adapter that did not lie beside the weights.
    """
    if not family.adapter or (family.adapter == "." and not getattr(model.config, "has_lora_adapter", False)):
        return
    try:
        import peft  # noqa: F401 - transformers would leave the adapter out with no more than a warning
    except ImportError as error:
        raise MissingDependencyError(
            f"{family.name} listens through a LoRA adapter, which needs PEFT; it is not installed: pip install peft"
        ) from error
    if family.adapter == ".":
        if not model._hf_peft_config_loaded:
            raise UnsupportedConfigError(
                f"expected {path} to have the LoRA adapter that its config tells of (adapter_config.json and its weights "
                "beside the model's); it has none. Put them there as the published checkpoint has them, or set "
                "has_lora_adapter to false in config.json if the adapter was merged into the weights"
            )
        return
    inside = os.path.join(path, family.adapter)
    try:
        # transformers looks for a subfolder on the hub only.
        if os.path.isdir(path):
            model.load_adapter(inside, adapter_name=_NAME)
        else:
            model.load_adapter(path, adapter_name=_NAME, adapter_kwargs={"subfolder": family.adapter})
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"expected the LoRA adapter of {family.name} in {inside}, which cannot be loaded: {error}. Put it there as the "
            "published checkpoint has it"
        ) from error


def adapt_rows(model: Any, placeholder: int) -> None:
    """Switch a model's adapter on for the rows whose prompt has a clip, and off for the others.

    Args:
        model: A model, with or without an adapter; without, nothing changes.
        placeholder: Id of the token that stands for a clip's features.
    """
    if not getattr(model, "_hf_peft_config_loaded", False):
        return
    from peft.tuners.lora import LoraLayer

    (adapter,) = model.active_adapters()
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    rows: list[str] = []

    def before_model(_: nn.Module, __: Any, inputs: dict[str, Any]) -> None:
        cache = inputs.get("past_key_values")
        if cache is None or not cache.get_seq_length():  # later steps of generate have no prompt, but the same rows
            heard = (inputs["input_ids"] == placeholder).any(dim=1).tolist()
            rows[:] = [adapter if each else "__base__" for each in heard]
        for layer in layers:
            layer.enable_adapters(True)  # a model's own generate() may have switched them off, all rows at once

    def before_layer(_: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**inputs, "adapter_names": rows}

    model.register_forward_pre_hook(before_model, with_kwargs=True)
    for layer in layers:
        layer.register_forward_pre_hook(before_layer, with_kwargs=True)
