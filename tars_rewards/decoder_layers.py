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
        CaptureError: no text decoder or more than one is found, or one into which the prompt does not go; or `layers`
            does not name distinct modules of `model`; or an argument is of another type.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(f"expected the model to be a torch.nn.Module, got a {type(model).__name__}.")
    if layers is None:
        found: Iterable[nn.Module] = _search(model)
    elif isinstance(layers, str):
        found = _by_name(model, layers)
    elif isinstance(layers, Iterable):
        found = layers
    else:
        raise CaptureError(
            f"expected layers= to be None, a name or several modules, got a {type(layers).__name__}. {_advice(model)}"
        )
    chosen = list(found)
    inside = set(chosen if layers is None else model.modules())
    strangers = [index for index, layer in enumerate(chosen) if not isinstance(layer, nn.Module) or layer not in inside]
    if not chosen or strangers:
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


def ends_after_norm(model: nn.Module, chosen: Sequence[nn.Module]) -> bool:
    """Whether the last of the chosen modules stands behind the decoder's layers, as its final norm does.

    Told by its place in the model, not by its name: layers have names such as `PreNormBlock`, and a norm may be wrapped.

    Args:
        model: the model.
        chosen: what `decoder_layers` returned.
    """
    decoders = list(_decoders(model))
    layers = {child for module in model.modules() if isinstance(module, nn.ModuleList) for child in module}
    layers.update(inner for decoder in decoders for layer in decoder.layers for inner in layer.modules())
    # A model that keeps its layers in no list at all gives no reason to think of a norm.
    return chosen[-1] not in layers and (bool(decoders) or not layers.isdisjoint(chosen))


class _Decoder(NamedTuple):
    name: str
    embedding: nn.Module
    layers: nn.ModuleList


def _search(model: nn.Module) -> nn.ModuleList:
    found = list(_decoders(model))
    # A talker, a speech synthesiser or a speech recogniser's decoder is a decoder too, but the prompt's tokens go into
    # only one of them, and that one may be of a kind that is not known here.
    prompt = _input_embeddings(model, around=found[0].name if len(found) == 1 else None) if found else None
    decoders = [decoder for decoder in found if prompt is None or _is_same(decoder.embedding, prompt)]
    if len(decoders) != 1:
        seen = ", ".join(repr(decoder.name) for decoder in decoders or found) or "none"
        if found and not decoders:
            seen += ", which the model's prompt does not go into"
        raise CaptureError(
            f"expected one text decoder inside the {type(model).__name__} (a module with a ModuleList called one of "
            f"{_LAYER_LISTS} beside token embeddings called one of {_TOKEN_EMBEDDINGS}); found {seen}. {_advice(model)}"
        )
    return decoders[0].layers


def _decoders(model: nn.Module) -> Iterator[_Decoder]:
    for name, module in model.named_modules():
        if module._modules.keys().isdisjoint(_LAYER_LISTS):
            continue  # nearly all of them, and this runs once per micro-batch
        # Children, not attributes: wrappers answer for the attributes of what they wrap, which would count it twice.
        children = dict(module.named_children())
        embedding = next((children[key] for key in _TOKEN_EMBEDDINGS if key in children), None)
        layers = next((children[key] for key in _LAYER_LISTS if key in children), None)
        # Codec language models keep a ModuleList of embeddings, one for each codebook, under the same name.
        if embedding is not None and not isinstance(embedding, nn.ModuleList) and isinstance(layers, nn.ModuleList):
            yield _Decoder(name, embedding, layers)


def _input_embeddings(model: nn.Module, *, around: str | None) -> nn.Module | None:
    """Ask the model what embeds its `input_ids`; the outermost module that knows answers (a DDP wrapper does not).

    With `around`, only modules that contain the one of this name are asked: a tower beside it knows nothing of it.
    """
    for name, module in model.named_modules():
        get = getattr(module, "get_input_embeddings", None)
        if callable(get) and (around is None or f"{around}.".startswith(f"{name}." if name else "")):
            try:
                embedding = get()
            except NotImplementedError:  # Hugging Face's way of saying "no single one": ask the modules inside
                continue
            return embedding if isinstance(embedding, nn.Module) else None
    return None


def _is_same(embedding: nn.Module, prompt: nn.Module) -> bool:
    """Whether two modules are one, or share their table."""
    table = getattr(prompt, "weight", None)
    return embedding is prompt or (table is not None and getattr(embedding, "weight", None) is table)


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
