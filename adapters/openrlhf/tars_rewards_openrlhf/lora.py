"""A LoRA policy for those who know only the model that it adapts: vLLM, and whoever loads what is saved.

OpenRLHF pushes and saves a model by the names that its weights have in memory. PEFT gives them others and keeps an adapter's
two factors beside each weight. Here a weight and its adapter become one, under the weight's own name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import deepspeed
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

PUSHED_AT_ONCE = 8
"""Merged weights that are on the device at a time."""
ADAPTER = "adapter"
"""Directory in a saved model that holds the adapter by itself."""
_FACTOR = "lora_"


def is_lora(model: nn.Module) -> bool:
    """Whether a policy's model, without DeepSpeed's engine, trains adapters."""
    return isinstance(model, PeftModel)


def push_merged(trainer: Any) -> None:
    """OpenRLHF's push to vLLM, of the weights that have a trained adapter, merged with it.

    The others are those of the checkpoint, which vLLM has loaded. The policy itself stays as it is: weights in half precision
    do not come back when what was added is taken away again.

    Args:
        trainer: OpenRLHF's ``ActorPPOTrainer``. All ranks call this together.
    """
    policy = trainer.actor
    layers = [(name, layer) for name, layer in _layers(policy.model.module).items() if _trained(layer)]
    try:
        for start in range(0, len(layers), PUSHED_AT_ONCE):
            merged = [(f"{name}.weight", _parameter(layer)) for name, layer in layers[start : start + PUSHED_AT_ONCE]]
            # What the stock push asks of a policy.
            trainer.actor = SimpleNamespace(model=SimpleNamespace(module=_Weights(merged)))
            trainer.broadcast_to_vllm()
    finally:
        trainer.actor = policy


def save_merged(model: Any, directory: str, *, write: bool) -> None:
    """Turn a saved adapter into a whole model that loads like the one it was trained from.

    Args:
        model: ``PeftModel``. All ranks call this together.
        directory: Where OpenRLHF saved the adapter; it moves to a directory :data:`ADAPTER` there.
        write: Whether this rank does; the others only bring in their parts of the weights.
    """
    base = model.get_base_model()
    layers, state = _layers(model), {}
    for name, parameter in base.named_parameters():
        if _FACTOR in name:
            continue
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        whole = _whole(parameter) if layer is None else merged_weight(layer)
        if write:
            state[name.replace(".base_layer.", ".")] = whole.cpu()
    if not write:
        return
    state |= {name: value.cpu() for name, value in base.named_buffers() if name in base.state_dict()}
    adapter = os.path.join(directory, ADAPTER)
    os.makedirs(adapter, exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "README.md"):
        file = os.path.join(directory, name)
        if os.path.exists(file):
            shutil.move(file, os.path.join(adapter, name))
    base.save_pretrained(directory, state_dict=state)


def merged_weight(layer: Any) -> Float[Tensor, "out in"]:
    """Weight of a layer with its adapter added; added in float32, so that it is rounded once.

    Args:
        layer: ``LoraLayer``. All ranks call this together.
    """
    base = layer.get_base_layer().weight
    (adapter,) = layer.active_adapters
    factors = [parameter for name, parameter in layer.named_parameters() if name.startswith(_FACTOR)]
    with torch.no_grad(), deepspeed.zero.GatheredParameters([base, *factors]):
        merged: Tensor = (base.float() + layer.get_delta_weight(adapter).float()).to(base.dtype)
    return merged


def _whole(parameter: Tensor) -> Tensor:
    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def _parameter(layer: Any) -> Tensor:
    merged = torch.nn.Parameter(merged_weight(layer), requires_grad=False)
    merged.ds_shape = merged.shape  # type: ignore[attr-defined]  # what the stock push reads under ZeRO-3
    return merged


def _layers(model: Any) -> dict[str, LoraLayer]:
    base = model.get_base_model()
    return {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}


def _trained(layer: Any) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters())


class _Weights:
    def __init__(self, weights: list[tuple[str, Tensor]]) -> None:
        self._weights = weights

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        return iter(self._weights)
