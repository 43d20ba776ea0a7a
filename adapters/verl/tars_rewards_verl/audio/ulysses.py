"""Speech models under verl's Ulysses sequence parallelism.

verl cuts the token ids of a model without a vision tower, so that a clip's placeholders would lie on several ranks and no rank
would have as many as there are features. Of a vision model that it knows it cuts the embeddings instead, once features
are in their place; here the same is done for the speech models, whatever towers they have.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tars_rewards.integration.patching import after_import, check_signature, require_attribute
from tars_rewards.speech.families import TrainableFamily, find_trainable

if TYPE_CHECKING:
    from torch import nn


def install() -> None:
    """Arrange for the engine to be patched."""
    after_import("verl.workers.engine.fsdp.transformer_impl", _keep_ids_whole)


def _family(engine: Any) -> TrainableFamily | None:
    """The family of an engine's model, if the engine cuts sequences."""
    return find_trainable(getattr(engine.model_config.hf_config, "model_type", None)) if engine.use_ulysses_sp else None


def cut_embeddings(model: nn.Module, family: TrainableFamily) -> None:
    """Give a model's decoder this rank's stretch of what is put together before it."""
    model.get_submodule(family.decoder).register_forward_pre_hook(_cut, with_kwargs=True)


def _cut(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """This rank's stretch of a decoder's inputs, embeddings [1, tokens, hidden] and positions [..., 1, tokens]."""
    from verl.utils.ulysses import slice_input_tensor

    stretch = {name: slice_input_tensor(kwargs[name], dim=dim, padding=False) for name, dim in _TOKEN_DIMENSION.items()}
    return args, {**kwargs, **stretch}


_TOKEN_DIMENSION = {"inputs_embeds": 1, "position_ids": -1}


def _keep_ids_whole(module: ModuleType) -> None:
    engine = require_attribute(module, "FSDPEngineWithLMHead", module.__name__)
    stock = require_attribute(engine, "prepare_model_inputs", "verl FSDPEngineWithLMHead")
    check_signature(stock, ["self", "micro_batch"], "verl FSDPEngineWithLMHead.prepare_model_inputs")
    pad = require_attribute(module, "pad_packed_inputs", module.__name__)

    @functools.wraps(stock)
    def prepare_model_inputs(self: Any, micro_batch: Any) -> Any:
        inputs, arguments = stock(self, micro_batch)
        if _family(self) is not None:
            ids, positions = micro_batch["input_ids"].values()[None], micro_batch["position_ids"].values().unsqueeze(-2)
            inputs["input_ids"], inputs["position_ids"] = pad(ids, positions, arguments["pad_size"])
        return inputs, arguments

    engine.prepare_model_inputs = prepare_model_inputs
