"""The Speech LLM families that are known, one record each, and those that a user registers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tars_rewards.errors import UnsupportedConfigError
from tars_rewards.speech.family import SAMPLING_RATE, SpeechModelFamily, TrainableFamily, any_length, templated_inputs
from tars_rewards.speech.scored_families import SCORED

__all__ = [
    "LLAVA",
    "QWEN2_5_OMNI",
    "QWEN2_AUDIO",
    "QWEN3_OMNI",
    "SAMPLING_RATE",
    "SpeechModelFamily",
    "TrainableFamily",
    "family_of",
    "find_family",
    "find_trainable",
    "known_families",
    "register_family",
    "trainable_of",
]


def _qwen2_5_omni_processor(path: str) -> Any:
    from tars_rewards.speech.omni_processors import qwen2_5_omni_class

    return qwen2_5_omni_class().from_pretrained(path)


def _qwen3_omni_processor(path: str) -> Any:
    from tars_rewards.speech.omni_processors import qwen3_omni_class

    return qwen3_omni_class().from_pretrained(path)


def _trimmed_inputs(family: SpeechModelFamily, processor: Any, messages: Any, media: Any) -> Mapping[str, Any]:
    """Features of a clip's own frames only: the processor pads each clip to the 300 s that the encoder may take."""
    inputs = dict(templated_inputs(family, processor, messages, media))
    if media is not None:
        frames = int(inputs["feature_attention_mask"].sum())
        for name in ("input_features", "feature_attention_mask"):
            inputs[name] = inputs[name][..., :frames].contiguous()
    return inputs


QWEN2_AUDIO = TrainableFamily(
    name="Qwen2-Audio",
    checkpoint_type="qwen2_audio",
    model_class="Qwen2AudioForConditionalGeneration",
    placeholder="audio_token",
    decoder="model.language_model",
    encoder="model.audio_tower.forward",
    reserved=("audio_bos_token", "audio_eos_token"),
    processor_class="Qwen2AudioProcessor",
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

QWEN2_5_OMNI = TrainableFamily(
    name="Qwen2.5-Omni (Thinker)",
    checkpoint_type="qwen2_5_omni",
    model_type="qwen2_5_omni_thinker",
    part="thinker_config",
    model_class="Qwen2_5OmniThinkerForConditionalGeneration",
    placeholder="audio_token",
    decoder="model",
    encoder="get_audio_features",
    reserved=(
        "audio_bos_token",
        "audio_eos_token",
        "image_token",
        "video_token",
        "vision_bos_token",
        "vision_eos_token",
    ),
    own_positions=True,
    load_processor=_qwen2_5_omni_processor,
    inputs=_trimmed_inputs,
    processor_class="Qwen2_5OmniProcessor",
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

QWEN3_OMNI = SpeechModelFamily(
    name="Qwen3-Omni (Thinker)",
    checkpoint_type="qwen3_omni_moe",
    model_type="qwen3_omni_moe_thinker",
    model_class="Qwen3OmniMoeThinkerForConditionalGeneration",
    placeholder="audio_token",
    decoder="model",
    encoder="get_audio_features",
    reserved=QWEN2_5_OMNI.reserved,
    own_positions=True,
    longest=any_length,
    load_processor=_qwen3_omni_processor,
)

LLAVA = SpeechModelFamily(
    name="LLaVA",
    checkpoint_type="llava",
    model_class="LlavaForConditionalGeneration",
    placeholder="image_token",
    decoder="model.language_model",
    encoder="model.get_image_features",
    encoded={"pooler_output": 0.0},
    medium="image",
)

_REGISTERED: dict[str, SpeechModelFamily] = {}


def register_family(family: SpeechModelFamily) -> None:
    """Make a family known, so that its checkpoints are loaded by their ``model_type`` alone.

    Args:
        family: Its record; one that is known under the same ``checkpoint_type`` is replaced.
    """
    _REGISTERED[family.checkpoint_type] = family


def known_families() -> tuple[SpeechModelFamily, ...]:
    """All families, in the order in which they were registered."""
    return tuple(_REGISTERED.values())


def find_family(model_type: str | None) -> SpeechModelFamily | None:
    """The family of a ``model_type`` (of a checkpoint or of the part that is loaded); None if it is not known."""
    return next((each for each in known_families() if model_type in (each.checkpoint_type, each.model_type)), None)


def find_trainable(model_type: str | None) -> TrainableFamily | None:
    """Like :func:`find_family`, among the families that the adapters can train."""
    family = find_family(model_type)
    return family if isinstance(family, TrainableFamily) else None


def family_of(model_type: str | None) -> SpeechModelFamily:
    """The family of a ``model_type``.

    Raises:
        UnsupportedConfigError: It is not known; the message says which are, and how to add one.
    """
    family = find_family(model_type)
    if family is None:
        raise UnsupportedConfigError(
            f"model_type {model_type!r} is none of the Speech LLM families that are known: {_listed(known_families())}. For "
            "another one, write a record (tars_rewards.speech.families.SpeechModelFamily, whose docstring says what goes "
            "in) and call tars_rewards.speech.families.register_family with it before the model is loaded, or pass it as "
            "family= to SpeechModel.load"
        )
    return family


def trainable_of(model_type: str | None) -> TrainableFamily:
    """Like :func:`find_trainable`, for callers that need audio.

    Raises:
        UnsupportedConfigError: The model is not of a family that can be trained.
    """
    family = find_trainable(model_type)
    if family is None:
        scored = find_family(model_type)
        known = _listed([each for each in known_families() if isinstance(each, TrainableFamily)])
        what = "none of the supported Speech LLMs" if scored is None else f"{scored.name}, which can be scored only"
        raise UnsupportedConfigError(
            f"the data has audio, but the model (model_type {model_type}) is {what}; those that can be trained on audio: "
            f"{known}. Use one of them, or add a TrainableFamily to tars_rewards.speech.families"
        )
    return family


def _listed(families: Any) -> str:
    return "; ".join(f"{each.name} (model_type {each.checkpoint_type})" for each in families)


for _family in (QWEN2_AUDIO, QWEN2_5_OMNI, QWEN3_OMNI, LLAVA, *SCORED):
    register_family(_family)
