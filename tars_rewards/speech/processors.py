"""Hugging Face processors of the speech model families, for what verl asks of a processor.

The classes keep the names of the stock ones they derive from: verl and Hugging Face write and compare class names, and
a checkpoint's processor must load without this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import Qwen2AudioProcessor as _StockQwen2AudioProcessor

from tars_rewards.errors import AdapterError, UnsupportedConfigError
from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO, SAMPLING_RATE, TrainableFamily
from tars_rewards.speech.omni_processors import qwen2_5_omni_class
from tars_rewards.speech.waveform import load_waveform

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


class SpeechProcessor:
    """What the processors of all families share; goes in front of the stock class."""

    speech_family: TrainableFamily
    feature_extractor: Any
    tokenizer: Any

    def __call__(
        self,
        text: Any = None,
        images: Any = None,
        videos: Any = None,
        audio: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Stock, with clips of any form that :func:`load_waveform` takes.

        Raises:
            UnsupportedConfigError: Images or videos came.
            AdapterError: A clip is unreadable, too short, or longer than the encoder's window.
        """
        if images or videos:
            raise UnsupportedConfigError(
                f"images or videos came for {self.speech_family.name}, which is supported with audio and text only; "
                "remove the columns images and videos from the data"
            )
        if audio is not None:
            kwargs.setdefault("sampling_rate", SAMPLING_RATE)
            audio = [self._checked(load_waveform(clip)) for clip in audio]
        return super().__call__(text=text, audio=audio, **kwargs)  # type: ignore[misc]

    def features(self, clips: Sequence[Any]) -> dict[str, Tensor]:
        """Features of clips alone, as the model's forward takes them.

        Args:
            clips: At least one, in any form that :func:`load_waveform` takes.

        Returns:
            input_features float32 [clips, mel bins, frames] and feature_attention_mask int64 [clips, frames]; as many
            frames as the longest clip has, or as the encoder's window where it takes nothing else.
        """
        extractor = self.feature_extractor
        waveforms = [self._checked(load_waveform(clip)) for clip in clips]
        window = extractor.n_samples
        trimmed = not self.speech_family.fixed_window
        if trimmed:
            # Zeros for one more analysis window make the last frames what they are when padded to the whole window.
            longest = max(len(waveform) for waveform in waveforms) + extractor.n_fft
            window = min(window, -(-longest // extractor.hop_length) * extractor.hop_length)
        extracted = extractor(
            waveforms,
            sampling_rate=SAMPLING_RATE,
            padding="max_length",
            max_length=window,
            return_attention_mask=True,
            return_tensors="pt",
        )
        features, mask = extracted["input_features"], extracted["attention_mask"].long()
        if trimmed:
            frames = int(mask.sum(dim=1).max())
            features, mask = features[..., :frames].contiguous(), mask[:, :frames].contiguous()
        return {"input_features": features, "feature_attention_mask": mask}

    @property
    def window(self) -> float:
        """Seconds of the longest clip that the encoder takes."""
        return float(self.feature_extractor.n_samples / SAMPLING_RATE)

    def placeholder_id(self) -> int:
        """Id of the token that stands for a clip's features."""
        return int(self.tokenizer.convert_tokens_to_ids(getattr(self, self.speech_family.placeholder)))

    def never_sampled(self) -> list[int]:
        """Ids of the tokens that mean something in a prompt only, ascending."""
        names = (self.speech_family.placeholder, *self.speech_family.reserved)
        tokens = [getattr(self, name) for name in names if getattr(self, name, None)]
        vocabulary = self.tokenizer.get_vocab()
        return sorted({vocabulary[token] for token in tokens if token in vocabulary})

    def collapse(self, token_ids: Sequence[int], clips: int) -> list[int]:
        """A prompt with one placeholder per clip, from one in which each clip's is repeated for every feature vector.

        Args:
            token_ids: Prompt of verl's agent loop.
            clips: How many clips the prompt has.

        Raises:
            AdapterError: The placeholders do not form one run per clip.
        """
        placeholder = self.placeholder_id()
        collapsed = [
            token
            for position, token in enumerate(token_ids)
            if token != placeholder or not position or token_ids[position - 1] != placeholder
        ]
        runs = collapsed.count(placeholder)
        if runs != clips:
            raise AdapterError(
                f"a prompt has {clips} clips but {runs} runs of the placeholder "
                f"{self.tokenizer.decode([placeholder])}; clips must have at least one token between them (the models' chat "
                "templates put one before and one after each), and a prompt without clips must not contain the "
                "placeholder"
            )
        return collapsed

    def _checked(self, waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
        extractor = self.feature_extractor
        seconds, window = len(waveform) / SAMPLING_RATE, extractor.n_samples / SAMPLING_RATE
        if seconds > window:
            raise AdapterError(
                f"a clip of {seconds:.1f} s is longer than the {window:g} s that this {self.speech_family.name} "
                "processor takes, and the rest would be cut without a word; split it, drop it, or raise the "
                "processor's chunk_length if the model allows it"
            )
        # Two halvings, in the convolution and in the pooling, must leave a vector.
        if len(waveform) < 3 * extractor.hop_length:
            raise AdapterError(
                f"a clip of {len(waveform)} samples ({seconds:.3f} s) is too short to be encoded; drop it"
            )
        return waveform


class Qwen2AudioProcessor(SpeechProcessor, _StockQwen2AudioProcessor):
    """Processor of Qwen2-Audio."""

    speech_family = QWEN2_AUDIO


_OmniProcessor: Any = qwen2_5_omni_class()


class Qwen2_5OmniProcessor(SpeechProcessor, _OmniProcessor):
    """Processor of Qwen2.5-Omni, for its Thinker."""

    speech_family = QWEN2_5_OMNI

    @property
    def image_token_id(self) -> int:
        """Id of the image placeholder; verl expects it of whatever has Qwen2-VL's image processor."""
        return int(self.tokenizer.convert_tokens_to_ids(self.image_token))

    @property
    def video_token_id(self) -> int:
        """Id of the video placeholder; verl expects it of whatever has Qwen2-VL's image processor."""
        return int(self.tokenizer.convert_tokens_to_ids(self.video_token))

    def get_rope_index(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"], **_: Any
    ) -> tuple[Int[Tensor, "3 batch tokens"], None]:
        """Positions on three axes, which for text and audio are three times the place in the sequence.

        verl puts a fourth axis beside them, from which the model sees where a packed sequence ends and the next begins.
        """
        positions = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
        return positions.expand(3, *input_ids.shape), None


def join_features(features: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Features of several calls as those of one, padded on the right to the longest.

    Args:
        features: Each from :meth:`SpeechProcessor.features`; at least one.
    """
    import torch

    longest = max(each["input_features"].shape[-1] for each in features)
    return {
        name: torch.cat([torch.nn.functional.pad(each[name], (0, longest - each[name].shape[-1])) for each in features])
        for name in ("input_features", "feature_attention_mask")
    }


def load_processor(path: str, family: TrainableFamily, **kwargs: Any) -> Any:
    """Processor of a checkpoint, as verl expects it.

    Args:
        path: Checkpoint directory or hub id.
        family: The checkpoint's family.
        **kwargs: For Hugging Face's ``from_pretrained``.

    Raises:
        UnsupportedConfigError: The processor's sampling rate is not that of the encoders.
    """
    from transformers import AutoConfig

    classes: dict[str, Any] = {each.__name__: each for each in (Qwen2AudioProcessor, Qwen2_5OmniProcessor)}
    processor = classes[family.processor_class].from_pretrained(path, **kwargs)
    rate = processor.feature_extractor.sampling_rate
    if rate != SAMPLING_RATE:
        raise UnsupportedConfigError(
            f"the processor in {path} takes {rate} Hz, expected {SAMPLING_RATE}, which all supported encoders were "
            "trained on"
        )
    processor.config = family.trained_config(AutoConfig.from_pretrained(path, **kwargs))
    return processor


def get_speech_processor(processor: Any) -> SpeechProcessor | None:
    """``processor`` if it is one of a speech model family, else None."""
    return processor if isinstance(processor, SpeechProcessor) else None
