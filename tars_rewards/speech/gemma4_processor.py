"""Gemma 4's processor for audio and text: its stock class cannot be imported without torchvision, seen or unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Gemma4AudioProcessor:
    """Makes what the stock processor makes of texts and clips.

    Args:
        feature_extractor: The checkpoint's.
        tokenizer: The checkpoint's; it has the chat template and the names of the audio tokens.
        frames_per_token: How many of the extractor's frames become one vector.
    """

    def __init__(self, feature_extractor: Any, tokenizer: Any, *, frames_per_token: int) -> None:
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self._frames_per_token = frames_per_token

    def __call__(
        self,
        *,
        text: Sequence[str],
        audio: Sequence[Any] | None = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
        **options: Any,
    ) -> Mapping[str, Any]:
        """Model inputs of one conversation.

        Args:
            text: One rendered conversation, with one placeholder per clip.
            audio: At most one clip [samples].
            sampling_rate: Of the clip.
            return_tensors: As for the tokenizer.
            **options: For the tokenizer.
        """
        features: Mapping[str, Any] = {}
        if audio is not None:
            features = self.feature_extractor(audio, sampling_rate=sampling_rate, return_tensors=return_tensors)
            # Halved by each of the encoder's convolutions, with the first of two frames' mask.
            vectors = int(features["input_features_mask"][0, :: self._frames_per_token].sum())
            names = self.tokenizer
            whole = names.boa_token + names.audio_token * vectors + names.eoa_token
            text = [each.replace(names.audio_token, whole) for each in text]
        return {**self.tokenizer(list(text), return_tensors=return_tensors, **options), **features}


def gemma4_processor(path: str) -> Gemma4AudioProcessor:
    """Processor of a Gemma 4 checkpoint, whose conformer makes one vector of four frames of 10 ms."""
    return _load(path, frames_per_token=4)


def gemma4_unified_processor(path: str) -> Gemma4AudioProcessor:
    """Processor of a Gemma 4 checkpoint without an encoder, where a frame of 40 ms is a vector as it is."""
    return _load(path, frames_per_token=1)


def _load(path: str, *, frames_per_token: int) -> Gemma4AudioProcessor:
    from transformers import AutoFeatureExtractor, AutoTokenizer

    extractor, tokenizer = AutoFeatureExtractor.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    return Gemma4AudioProcessor(extractor, tokenizer, frames_per_token=frames_per_token)
