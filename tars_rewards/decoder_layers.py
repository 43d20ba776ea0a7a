"""Find the layers of a model's text decoder, whatever audio or vision towers and wrappers surround them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import nn

from tars_rewards.errors import CaptureError

# What tells a text decoder from an audio or vision tower: the table of token embeddings sits right beside the layers.
# Towers embed frames and patches (`conv1`, `patch_embed`, `embed_positions`), never tokens.
_TOKEN_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
_LAYER_LISTS = ("layers", "h", "blocks", "block")


def decoder_layers(model: nn.Module, layers: str | Iterable[nn.Module] | None = None) -> list[nn.Module]:
    """Layers of the model's text decoder, shallow to deep.

    Works on the model itself and through wrappers that keep it as a submodule (PEFT, DDP, FSDP, `torch.compile`).

    Args:
        model: any module with the text decoder somewhere inside.
        layers: `None` searches. A name as in `model.named_modules()` (`"thinker.model.layers"`), or the modules
            themselves, settle it for a model that the search does not know.

    Returns:
        At least one module, each once.

    Raises:
        CaptureError: no text decoder or more than one is found; or `layers` does not name distinct modules of `model`.
    """
    if layers is None:
        found: Iterable[nn.Module] = _search(model)
    elif isinstance(layers, str):
        found = _by_name(model, layers)
    else:
        found = layers
    chosen = list(found)
    inside = set(model.modules())
    if not chosen or not inside.issuperset(chosen):
        strangers = [index for index, layer in enumerate(chosen) if layer not in inside]
        raise CaptureError(
            f"expected layers= to give at least one submodule of the {type(model).__name__}; got {len(chosen)}, of "
            f"which those at {strangers} are not inside it, so that its forward would not run them. {_advice(model)}"
        )
    if len(set(chosen)) < len(chosen):
        raise CaptureError(
            f"expected distinct layers; got {len(chosen)} of which {len(set(chosen))} differ, and a module that runs "
            "more than once in a forward has no single output. Pass layers= without the repetitions."
        )
    return chosen


class _Decoder(NamedTuple):
    name: str
    embedding: nn.Module
    layers: nn.ModuleList


def _search(model: nn.Module) -> nn.ModuleList:
    decoders = list(_decoders(model))
    if len(decoders) > 1:
        # A talker or a speech synthesiser is a decoder too, but the prompt's tokens go into only one of them.
        prompt = _input_embeddings(model)
        decoders = [decoder for decoder in decoders if decoder.embedding is prompt] or decoders
    if len(decoders) != 1:
        seen = ", ".join(repr(decoder.name) for decoder in decoders) or "none"
        raise CaptureError(
            f"expected one text decoder inside the {type(model).__name__} (a module with a ModuleList called one of "
            f"{_LAYER_LISTS} beside token embeddings called one of {_TOKEN_EMBEDDINGS}); found {seen}. {_advice(model)}"
        )
    return decoders[0].layers


def _decoders(model: nn.Module) -> Iterator[_Decoder]:
    for name, module in model.named_modules():
        # Children, not attributes: wrappers answer for the attributes of what they wrap, which would count it twice.
        children = dict(module.named_children())
        embedding = next((children[key] for key in _TOKEN_EMBEDDINGS if key in children), None)
        layers = next((children[key] for key in _LAYER_LISTS if key in children), None)
        # Codec language models keep a ModuleList of embeddings, one for each codebook, under the same name.
        if embedding is not None and not isinstance(embedding, nn.ModuleList) and isinstance(layers, nn.ModuleList):
            yield _Decoder(name, embedding, layers)


def _input_embeddings(model: nn.Module) -> nn.Module | None:
    """Ask the model what embeds its `input_ids`; the outermost module that knows answers (a DDP wrapper does not)."""
    for module in model.modules():
        get = getattr(module, "get_input_embeddings", None)
        if callable(get):
            try:
                embedding = get()
            except NotImplementedError:  # Hugging Face's way of saying "no single one": ask the modules inside
                continue
            return embedding if isinstance(embedding, nn.Module) else None
    return None


def _by_name(model: nn.Module, name: str) -> Sequence[nn.Module]:
    found = dict(model.named_modules()).get(name)
    if not isinstance(found, nn.ModuleList):
        got = "no module of that name" if found is None else f"a {type(found).__name__}"
        raise CaptureError(
            f"expected layers={name!r} to name a ModuleList of the {type(model).__name__}, got {got}. {_advice(model)}"
        )
    return list(found)


def _advice(model: nn.Module) -> str:
    seen = [
        f"{name!r} ({len(module)} x {type(module[0]).__name__})"
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    ]
    shown = ", ".join(seen[:20]) + (f" and {len(seen) - 20} more" if len(seen) > 20 else "")
    return f"Pass layers= the text decoder's ModuleList or its name; those seen: {shown or 'none'}."
