"""What differs between the Speech LLM families that the adapters know, one record each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tars_rewards.errors import UnsupportedConfigError

SAMPLING_RATE = 16_000
"""Samples per second that the audio encoders of all families were trained on (they derive from Whisper's)."""


@dataclass(frozen=True)
class SpeechModelFamily:
    """One family of Speech LLMs, by the names of its Hugging Face implementation.

    Attributes:
        name: How messages name it.
        checkpoint_type: ``model_type`` in a published checkpoint's ``config.json``.
        model_type: ``model_type`` of the part that is trained; differs from ``checkpoint_type`` where the checkpoint
            holds more than that (a speech synthesiser).
        part: Attribute of the checkpoint's config with the config of the part that is trained; empty if that is the
            whole.
        model_class: Name in ``transformers`` of the class that is trained.
        processor_class: Name in ``transformers`` of the checkpoint's processor.
        placeholder: Attribute of the processor with the token that stands for a clip's features.
        reserved: Attributes of the processor with further tokens that mean something in a prompt only. The policy must
            never sample one of them, nor the placeholder: no features would stand behind it.
        decoder: Path of the text decoder in the model.
        audio_tower: Path of the audio encoder in the model.
        audio_path: Paths of everything that audio alone passes through: the encoder, and a projector beside it.
        towers: Paths of all encoders of other modalities, which "freeze the tower" means.
        layer_classes: Classes to shard one by one. None inside the audio tower: it runs only where a micro batch has
            audio, and ranks would wait for each other in the all-gather of a layer that not all of them run.
        fixed_window: Whether the encoder takes its whole window only, so that features must not be trimmed.
        mrope: Whether the decoder takes positions on three axes (for audio and text, three times the same).
        vllm_lora: Whether vLLM's class takes LoRA adapters beside the weights.
        published: Prefixes of weights as ``save_pretrained`` writes them, and as published checkpoints have them; the
            first that fits is replaced.
    """

    name: str
    checkpoint_type: str
    model_type: str
    part: str
    model_class: str
    processor_class: str
    placeholder: str
    reserved: tuple[str, ...]
    decoder: str
    audio_tower: str
    audio_path: tuple[str, ...]
    towers: tuple[str, ...]
    layer_classes: tuple[str, ...]
    fixed_window: bool
    mrope: bool
    vllm_lora: bool
    published: tuple[tuple[str, str], ...]

    def trained_config(self, checkpoint_config: Any) -> Any:
        """Config of the part that is trained.

        Args:
            checkpoint_config: Hugging Face config of the checkpoint, or of the part already.
        """
        config = getattr(checkpoint_config, self.part, checkpoint_config) if self.part else checkpoint_config
        config.architectures = [self.model_class]
        return config

    def published_name(self, name: str) -> str:
        """Name of a weight in a published checkpoint, from the one that ``save_pretrained`` gives it."""
        for written, published in self.published:
            if name.startswith(written):
                return published + name[len(written) :]
        return name


QWEN2_AUDIO = SpeechModelFamily(
    name="Qwen2-Audio",
    checkpoint_type="qwen2_audio",
    model_type="qwen2_audio",
    part="",
    model_class="Qwen2AudioForConditionalGeneration",
    processor_class="Qwen2AudioProcessor",
    placeholder="audio_token",
    reserved=("audio_bos_token", "audio_eos_token"),
    decoder="model.language_model",
    audio_tower="model.audio_tower",
    audio_path=("model.audio_tower", "model.multi_modal_projector"),
    towers=("model.audio_tower",),
    layer_classes=("Qwen2DecoderLayer",),
    fixed_window=True,
    mrope=False,
    vllm_lora=False,
    # transformers 5.15 puts "model." before what already has it.
    published=(("language_model.model.model.", "language_model.model."),),
)

QWEN2_5_OMNI = SpeechModelFamily(
    name="Qwen2.5-Omni (Thinker)",
    checkpoint_type="qwen2_5_omni",
    model_type="qwen2_5_omni_thinker",
    part="thinker_config",
    model_class="Qwen2_5OmniThinkerForConditionalGeneration",
    processor_class="Qwen2_5OmniProcessor",
    placeholder="audio_token",
    reserved=(
        "audio_bos_token",
        "audio_eos_token",
        "image_token",
        "video_token",
        "vision_bos_token",
        "vision_eos_token",
    ),
    decoder="model",
    audio_tower="audio_tower",
    audio_path=("audio_tower",),
    towers=("audio_tower", "visual"),
    # The vision tower never runs here; its blocks are sharded so that they are never gathered either.
    layer_classes=("Qwen2_5OmniDecoderLayer", "Qwen2_5OmniVisionBlock"),
    fixed_window=False,
    mrope=True,
    vllm_lora=True,
    published=(("thinker.", "thinker."), ("", "thinker.")),
)

FAMILIES = (QWEN2_AUDIO, QWEN2_5_OMNI)
"""All families, in no particular order."""


def find_family(model_type: str | None) -> SpeechModelFamily | None:
    """The family of a ``model_type`` (of a checkpoint or of its trained part); None if it is no known Speech LLM."""
    return next((each for each in FAMILIES if model_type in (each.checkpoint_type, each.model_type)), None)


def family_of(model_type: str | None) -> SpeechModelFamily:
    """Like :func:`find_family`, for callers that need audio.

    Raises:
        UnsupportedConfigError: The model is not of a known family.
    """
    family = find_family(model_type)
    if family is None:
        known = "; ".join(f"{each.name} (model_type {each.checkpoint_type})" for each in FAMILIES)
        raise UnsupportedConfigError(
            f"the data has audio, but the model (model_type {model_type}) is none of the supported Speech LLMs: "
            f"{known}. Use one of them, or add a record to tars_rewards.speech.families"
        )
    return family
