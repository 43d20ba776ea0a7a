"""A clip is encoded once for each prompt, alone, however many rows and batches the prompt takes part in.

What a model makes of a clip stays in the model's own code: its ``forward`` runs as always, but the method that turns
features into embeddings answers with what it gave for the single clips, joined in the order of the rows.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch

from tars_rewards.errors import UnsupportedConfigError
from tars_rewards.speech.family import SpeechModelFamily

if TYPE_CHECKING:
    from torch import Tensor, nn

ENCODED = "encoded_media"
"""Keyword of the model's ``forward`` by which a batch brings what its clips were encoded to."""


class EncodedMedia(NamedTuple):
    """What the encoder's method would have returned for all clips of a batch; opaque to the model and to generate."""

    output: Any


class _EncoderReached(Exception):
    """No error: it ends a forward that is wanted up to here only."""

    def __init__(self, output: Any) -> None:
        self.output = output


class MediaMemo:
    """Stands in front of a loaded model's encoder, and of its ``forward``.

    Args:
        model: A model of the family. Its ``forward`` takes the keyword :data:`ENCODED` from now on.
        family: The model's family.
    """

    def __init__(self, model: nn.Module, family: SpeechModelFamily) -> None:
        self._model = model
        self._family = family
        self._outputs: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._probing = False
        self._given: EncodedMedia | None = None
        path, _, method = family.encoder.rpartition(".")
        owner = model.get_submodule(path)
        self._encode = getattr(owner, method)
        setattr(owner, method, self._answer)
        stock = model.forward

        @functools.wraps(stock)
        def forward(*args: Any, **kwargs: Any) -> Any:
            self._given = kwargs.pop(ENCODED, None)
            try:
                return stock(*args, **kwargs)
            finally:
                self._given = None

        # generate() refuses keywords that forward does not name.
        signature = inspect.signature(stock)
        keyword = inspect.Parameter(ENCODED, inspect.Parameter.KEYWORD_ONLY, default=None)
        several = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        rest = [each for each in signature.parameters.values() if each.kind is inspect.Parameter.VAR_KEYWORD]
        forward.__signature__ = signature.replace(parameters=[*several, keyword, *rest])  # type: ignore[attr-defined]
        model.forward = forward

    def __len__(self) -> int:
        return len(self._outputs)

    def clear(self) -> None:
        """Forget all outputs."""
        self._outputs.clear()

    def encode(self, prompt: Any, inputs: Mapping[str, Any]) -> None:
        """See to it that a prompt's clip is encoded.

        Args:
            prompt: The key; held weakly, and told from others by identity.
            inputs: The model's inputs for this prompt alone, features included.

        Raises:
            UnsupportedConfigError: The model's forward did not come by the encoder that the family's record names.
        """
        if prompt in self._outputs:
            return
        self._probing = True
        try:
            with torch.no_grad():
                self._model(**inputs)
        except _EncoderReached as reached:
            self._outputs[prompt] = self._kept(reached.output)
            return
        finally:
            self._probing = False
        raise UnsupportedConfigError(
            f"expected the forward of {type(self._model).__name__} to call {self._family.encoder!r} with a prompt's features, "
            f"as the record of {self._family.name} says; it did not. Name the method that it calls as the record's encoder"
        )

    def joined(self, prompts: Sequence[Any]) -> EncodedMedia:
        """What the encoder's method gives for these prompts' clips, in this order.

        Args:
            prompts: At least one; each was encoded before.
        """
        outputs = [self._outputs[prompt] for prompt in prompts]
        first = outputs[0]
        if not isinstance(first, dict):
            return EncodedMedia(_join(outputs, 0.0))
        kind = first["class"]
        fields = {name: _join([each[name] for each in outputs], pad) for name, pad in self._family.encoded.items()}
        return EncodedMedia(kind(**fields))

    def _answer(self, *args: Any, **kwargs: Any) -> Any:
        if self._given is not None and not self._probing:
            return self._given.output
        output = self._encode(*args, **kwargs)
        if self._probing:
            raise _EncoderReached(output)
        return output

    def _kept(self, output: Any) -> Any:
        """What is kept of an output: no more than the model's forward reads."""
        if isinstance(output, torch.Tensor | list | tuple):
            return output
        return {"class": type(output), **{name: getattr(output, name) for name in self._family.encoded}}


def _join(parts: Sequence[Any], pad: float) -> Any:
    if isinstance(parts[0], torch.Tensor):
        return join_padded(parts, pad)
    return type(parts[0])(each for part in parts for each in part)


def join_padded(tensors: Sequence[Tensor], pad: float = 0.0) -> Tensor:
    """Concatenated along the first dimension, padded at the end of the others to the longest.

    Args:
        tensors: At least one; all of one number of dimensions.
        pad: The padding's value.
    """
    shape = [max(sizes) for sizes in zip(*(each.shape[1:] for each in tensors), strict=True)]
    padded = []
    for each in tensors:
        missing = [size for have, want in zip(each.shape[1:], shape, strict=True) for size in (want - have, 0)]
        # pad() counts from the last dimension: (before, after) each
        padded.append(torch.nn.functional.pad(each, missing[::-1], value=pad) if any(missing) else each)
    return torch.cat(padded)
