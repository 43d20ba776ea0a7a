"""Records of the families that are scored but not trained by the adapters, and the little code that some of them need."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tars_rewards.errors import AdapterError
from tars_rewards.speech.family import Message, SpeechModelFamily, any_length, sampling_rate, templated_inputs
from tars_rewards.speech.gemma4_processor import gemma4_processor, gemma4_unified_processor

if TYPE_CHECKING:
    from torch import nn


def half_a_minute(_: Any) -> float:
    """Extractors of the Gemma families cut a clip after 30 s."""
    return 30.0


def longest_of_processor(processor: Any) -> float:
    """Seconds after which a processor that splits clips into windows cuts the rest."""
    return float(processor.max_audio_len)


def without_images(path: str) -> Any:
    """A checkpoint's processor; without torchvision, with its image part left empty, which would need it unused."""
    import transformers
    from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer, PreTrainedConfig
    from transformers.image_processing_base import ImageProcessingMixin
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        return AutoProcessor.from_pretrained(path)
    config, _ = PreTrainedConfig.get_config_dict(path)
    kind = getattr(transformers, PROCESSOR_MAPPING_NAMES[config["model_type"]])
    settings, _ = kind.get_processor_dict(path)
    parts = {
        "tokenizer": AutoTokenizer.from_pretrained,
        "feature_extractor": AutoFeatureExtractor.from_pretrained,
        "audio_processor": AutoFeatureExtractor.from_pretrained,
        "image_processor": lambda _: ImageProcessingMixin(),
    }
    return kind.from_args_and_dict([parts[name](path) for name in kind.get_attributes()], settings)


def windows_with_vectors(
    family: SpeechModelFamily, processor: Any, messages: Sequence[Message], media: Any | None
) -> Mapping[str, Any]:
    """Model inputs without a last window of one or two frames, of which no vector is left and Music Flamingo fails."""
    inputs = dict(templated_inputs(family, processor, messages, media))
    if media is not None:
        kept = inputs["input_features_mask"].sum(dim=-1) > 2
        for name in ("input_features", "input_features_mask"):
            inputs[name] = inputs[name][kept]
    return inputs


def mistral_inputs(
    _: SpeechModelFamily, processor: Any, messages: Sequence[Message], media: Any | None
) -> Mapping[str, Any]:
    """Model inputs by Mistral's own tokenizer, which has no chat template as text and takes clips as files.

    Raises:
        AdapterError: The tokenizer refuses the conversation, as those of Voxtral do with a system turn before a clip.
    """
    import soundfile

    def part(each: Mapping[str, Any]) -> Mapping[str, Any]:
        if each["type"] != "audio":
            return each
        file = io.BytesIO()
        soundfile.write(file, media, sampling_rate(processor), format="WAV", subtype="FLOAT")
        return {"type": "audio", "base64": base64.b64encode(file.getvalue()).decode()}

    turns = [{**message, "content": [part(each) for each in message["content"]]} for message in messages]
    try:
        result: Mapping[str, Any] = processor.apply_chat_template(turns)
    except ValueError as error:
        raise AdapterError(
            f"expected a conversation that this checkpoint's tokenizer takes; it says: {error} If it is the system turn, "
            "give its text as the instruction, which both modalities can have"
        ) from error
    return result


def mistral_tokens(tokenizer: Any, text: str) -> list[int]:
    """Mistral's own tokenizer never reads special tokens in a text, and refuses to be told so."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def active_streams(decoder: Any) -> list[nn.Module]:
    """Where to hear what Gemma 3n's layers say: of several streams, they return the one that attention works on first.

    Each layer gets a module through which that stream [batch, tokens, hidden] goes on its own.
    """
    from torch import nn

    taps: list[nn.Module] = []
    for layer in decoder.layers:
        tap = nn.Identity()
        layer.add_module("active_stream", tap)
        index = layer.config.altup_active_idx

        def hook(_: nn.Module, __: Any, streams: Any, tap: nn.Module = tap, index: int = index) -> None:
            tap(streams[index])

        layer.register_forward_hook(hook)
        taps.append(tap)
    return taps


VOXTRAL = SpeechModelFamily(
    name="Voxtral",
    checkpoint_type="voxtral",
    model_class="VoxtralForConditionalGeneration",
    placeholder="audio_token",
    decoder="model.language_model",
    encoder="model.get_audio_features",
    encoded={"pooler_output": 0.0},
    reserved=("[BEGIN_AUDIO]",),
    longest=any_length,
    turn_end="eos_token",
    tokenize=mistral_tokens,
    inputs=mistral_inputs,
)

AUDIO_FLAMINGO_3 = SpeechModelFamily(
    name="Audio Flamingo 3",
    checkpoint_type="audioflamingo3",
    model_class="AudioFlamingo3ForConditionalGeneration",
    placeholder="audio_token",
    decoder="model.language_model",
    encoder="model.get_audio_features",
    encoded={"pooler_output": 0.0},
    longest=longest_of_processor,
)

MUSIC_FLAMINGO = replace(
    AUDIO_FLAMINGO_3,
    name="Music Flamingo",
    checkpoint_type="musicflamingo",
    model_type="musicflamingo",
    model_class="MusicFlamingoForConditionalGeneration",
    reserved=("audio_bos_token", "audio_eos_token"),
    inputs=windows_with_vectors,
)

GRANITE_SPEECH = SpeechModelFamily(
    name="Granite Speech",
    checkpoint_type="granite_speech",
    model_class="GraniteSpeechForConditionalGeneration",
    placeholder="audio_token",
    decoder="model.language_model",
    encoder="model.get_audio_features",
    encoded={"pooler_output": 0.0},
    marker="<|audio|>",
    longest=any_length,
    adapter=".",
)

GRANITE_SPEECH_PLUS = replace(
    GRANITE_SPEECH,
    name="Granite Speech Plus",
    checkpoint_type="granite_speech_plus",
    model_type="granite_speech_plus",
    model_class="GraniteSpeechPlusForConditionalGeneration",
)

PHI_4_MULTIMODAL = SpeechModelFamily(
    name="Phi-4-multimodal",
    checkpoint_type="phi4_multimodal",
    model_class="Phi4MultimodalForCausalLM",
    placeholder="audio_token",
    decoder="model",
    # Its mask adds one to the scores of what is no padding, instead of hiding what is: clips must be encoded alone.
    encoder="model.embed_tokens_extend.audio_embed.encoder.forward",
    reserved=("image_token",),
    longest=any_length,
    load_processor=without_images,
    adapter="speech-lora",
)

GEMMA_3N = SpeechModelFamily(
    name="Gemma 3n",
    checkpoint_type="gemma3n",
    model_class="Gemma3nForConditionalGeneration",
    placeholder="audio_token",
    decoder="model.language_model",
    layers=active_streams,
    encoder="model.get_audio_features",
    encoded={"pooler_output": 0.0, "audio_mel_mask": 1.0},
    reserved=("boa_token", "eoa_token", "image_token", "boi_token", "eoi_token"),
    token_inputs=("token_type_ids",),
    longest=half_a_minute,
)

GEMMA_4 = SpeechModelFamily(
    name="Gemma 4",
    checkpoint_type="gemma4",
    model_class="Gemma4ForConditionalGeneration",
    placeholder="audio_token",
    decoder="model.language_model",
    encoder="model.get_audio_features",
    encoded={"pooler_output": 0.0, "attention_mask": 0.0},
    reserved=("boa_token", "eoa_token", "image_token", "boi_token", "eoi_token", "<|video|>"),
    longest=half_a_minute,
    load_processor=gemma4_processor,
)

GEMMA_4_UNIFIED = replace(
    GEMMA_4,
    name="Gemma 4 (unified)",
    checkpoint_type="gemma4_unified",
    model_type="gemma4_unified",
    model_class="Gemma4UnifiedForConditionalGeneration",
    longest=any_length,
    load_processor=gemma4_unified_processor,
)

INKLING = SpeechModelFamily(
    name="Inkling",
    checkpoint_type="inkling_mm_model",
    model_class="InklingForConditionalGeneration",
    placeholder="audio_token",
    decoder="model.language_model",
    encoder="model.get_audio_features",
    reserved=("audio_bos_token", "image_token", "image_bos_token"),
    longest=any_length,
    load_processor=without_images,
)

SCORED = (
    VOXTRAL,
    AUDIO_FLAMINGO_3,
    MUSIC_FLAMINGO,
    GRANITE_SPEECH,
    GRANITE_SPEECH_PLUS,
    PHI_4_MULTIMODAL,
    GEMMA_3N,
    GEMMA_4,
    GEMMA_4_UNIFIED,
    INKLING,
)
"""All of them."""
