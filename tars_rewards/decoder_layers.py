"""Find the layers of a model's text decoder, whatever audio or vision towers and wrappers surround them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from tars_rewards.errors import CaptureError

# What tells a text decoder from an audio or vision tower: the table of token embeddings sits right beside the layers.
# Towers embed frames and patches (`conv1`, `patch_embed`, `embed_positions`), never tokens.
_TOKEN_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
_LAYER_LISTS = ("layers", "h", "blocks", "block")


def decoder_layers(model: nn.Module, layers: str | Sequence[nn.Module] | None = None) -> list[nn.Module]:
    """Layers of the model's text decoder, shallow to deep.

    Works on the model itself and through wrappers that keep it as a submodule (PEFT, DDP, FSDP, `torch.compile`).

    Args:
        model: any module whose text decoder is somewhere inside.
        layers: `None` searches. A name as in `model.named_modules()` (`"thinker.model.layers"`) or the modules
            themselves settle a model that the search does not know.

    Returns:
        At least one module, each only once.

    Raises:
        CaptureError: no text decoder or more than one is found, or `layers` is no list of distinct modules of `model`.
    """
    if layers is None:
        found: Sequence[nn.Module] = _search(model)
    elif isinstance(layers, str):
        found = _by_name(model, layers)
    else:
        found = list(layers)
    if not found or not all(isinstance(layer, nn.Module) for layer in found):
        raise CaptureError(f"expected at least one layer, each a torch.nn.Module; got layers={layers!r}. {_advice(model)}")
    inside = {id(module) for module in model.modules()}
    if strangers := [index for index, layer in enumerate(found) if id(layer) not in inside]:
        raise CaptureError(
            f"expected layers that belong to the {type(model).__name__}; those at {strangers} of the {len(found)} given "
            f"do not, so its forward would not run them. {_advice(model)}"
        )
    if len({id(layer) for layer in found}) < len(found):
        raise CaptureError(
            f"expected distinct layers; {len(found)} were listed but only {len({id(layer) for layer in found})} differ, "
            "and a module that runs twice in a forward has no single output. Pass `layers=` without the repetitions."
        )
    return list(found)


def _search(model: nn.Module) -> nn.ModuleList:
    candidates = [
        (name, children)
        for name, module in model.named_modules()
        # `named_children`, not `hasattr`: wrappers answer for the attributes of what they wrap, which would count it twice
        if (children := dict(module.named_children())).keys() & set(_TOKEN_EMBEDDINGS)
        and _child(children, _LAYER_LISTS) is not None
        # codec language models keep a list of embeddings, one for each codebook, under the same name
        and not isinstance(_child(children, _TOKEN_EMBEDDINGS), nn.ModuleList)
    ]
    if len(candidates) > 1:
        # a talker or a text-to-speech head is a decoder too; the model's own prompt goes into only one of them
        prompt = _input_embeddings(model)
        candidates = [c for c in candidates if _child(c[1], _TOKEN_EMBEDDINGS) is prompt] or candidates
    if len(candidates) == 1:
        layers = _child(candidates[0][1], _LAYER_LISTS)
        assert isinstance(layers, nn.ModuleList)  # noqa: S101 - for the type checker, `_child` has already looked
        return layers
    if candidates:
        names = ", ".join(repr(name) for name, _ in candidates)
        raise CaptureError(f"expected one text decoder in the {type(model).__name__}, found {names}. {_advice(model)}")
    raise CaptureError(
        f"expected a text decoder in the {type(model).__name__} (a module with token embeddings called one of "
        f"{_TOKEN_EMBEDDINGS} beside a ModuleList called one of {_LAYER_LISTS}), found none. {_advice(model)}"
    )
