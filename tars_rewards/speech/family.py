"""What a record of a Speech LLM family says, and how a prompt of one becomes model inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tars_rewards.errors import UnsupportedConfigError

if TYPE_CHECKING:
    from torch import nn

SAMPLING_RATE = 16_000
"""Samples per second that the audio encoders of most families were trained on (they derive from Whisper's)."""

Message = dict[str, Any]
"""``{"role": …, "content": parts}`` with parts ``{"type": "text", "text": …}`` and ``{"type": medium, medium: …}``."""


def auto_processor(path: str) -> Any:
    """The processor that the checkpoint names."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(path)


def whisper_window(processor: Any) -> float | None:
    """Seconds that Whisper's feature extractor takes before it cuts; None for a processor with another one."""
    extractor = getattr(processor, "feature_extractor", None)
    if extractor is None or not hasattr(extractor, "n_samples"):
        return None
    return float(extractor.n_samples / extractor.sampling_rate)


def decoder_layers(decoder: Any) -> list[nn.Module]:
    """The layers of a text decoder that calls them so, and whose layers return hidden states."""
    return list(decoder.layers)


def text_tokens(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, in which what reads like a special token is text as well."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    return ids


def any_length(_: Any) -> float | None:
    """No limit: the processor splits long clips, or takes them whole."""
    return None


def templated_inputs(
    family: SpeechModelFamily, processor: Any, messages: Sequence[Message], media: Any | None
) -> Mapping[str, Any]:
    """Model inputs of one conversation by the checkpoint's own chat template and processor.

    Args:
        family: The model's family; its ``marker`` says how the template wants a turn's content.
        processor: The checkpoint's processor.
        messages: The conversation.
        media: Samples of the clip at the processor's rate, or the image; None in a conversation without.

    Returns:
        What the processor makes of it as a batch of one.
    """
    text = render(processor, messages, marker=family.marker)
    arguments: dict[str, Any] = {}
    if media is not None and family.medium == "audio":
        arguments = {"audio": [media], "sampling_rate": sampling_rate(processor)}
    elif media is not None:
        arguments = {"images": [media]}
    bos = getattr(processor.tokenizer, "bos_token", None)
    if bos and text.startswith(bos):
        arguments["add_special_tokens"] = False  # the template has put it there
    result: Mapping[str, Any] = processor(text=[text], return_tensors="pt", **arguments)
    return result


def render(processor: Any, messages: Sequence[Message], *, marker: str | None, prompt: bool = True) -> str:
    """The conversation as text, by the chat template of the processor or else of its tokenizer.

    Args:
        processor: The checkpoint's processor.
        messages: The conversation.
        marker: What stands for the clip in a content that is plain text; None for a template that takes parts.
        prompt: Whether the assistant's turn is opened at the end.
    """
    if marker is not None:
        messages = [{**each, "content": _plain(each["content"], marker)} for each in messages]
    owner = processor if getattr(processor, "chat_template", None) else processor.tokenizer
    text: str = owner.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt)
    return text


def _plain(parts: Sequence[Mapping[str, Any]], marker: str) -> str:
    return "".join(part["text"] if part["type"] == "text" else marker for part in parts)


def sampling_rate(processor: Any) -> int:
    """Samples per second that a processor takes."""
    for name in ("feature_extractor", "audio_processor"):
        rate = getattr(getattr(processor, name, None), "sampling_rate", None)
        if rate is not None:
            return int(rate)
    return SAMPLING_RATE


@dataclass(frozen=True, kw_only=True)
class SpeechModelFamily:
    """One family of Speech LLMs, by the names of its Hugging Face implementation: what scoring needs of it.

    To add one, write a record and hand it to :func:`tars_rewards.speech.families.register_family`. The first seven
    fields nearly always suffice; find them in the model's ``modeling_*.py``: ``encoder`` is what its ``forward`` calls
    with the features, ``encoded`` what it reads of the answer. The model is loaded, prompted and scored by
    :class:`tars_rewards.speech.model.SpeechModel`, whose tests run over every tiny model in
    ``tests/support/tiny_families``: add yours there, and they say what the record still lacks.

    Attributes:
        name: How messages name it.
        checkpoint_type: ``model_type`` in a published checkpoint's ``config.json``.
        model_class: Name in ``transformers`` of the class that is loaded.
        placeholder: The token that stands for a clip's features: its name as an attribute of the processor or the
            tokenizer, or the token itself.
        decoder: Path of the text decoder in the model; its ``layers`` are the layers that are captured.
        encoder: Path of the method that the model's ``forward`` calls to turn features into embeddings
            (``get_audio_features``, ``model.audio_tower.forward``). It runs once per prompt, with that clip alone.
        encoded: What ``forward`` reads of the method's result: names of attributes, and the value by which each is
            padded to the longest of a batch. Nothing for a result that is itself a tensor or a list of tensors.
        reserved: Further tokens that mean something in a prompt only, named like ``placeholder``. Neither they nor the
            placeholder may be sampled, or occur in a question: no features would stand behind them.
        model_type: ``model_type`` of the part that is loaded; empty if that is ``checkpoint_type`` (it differs where
            the checkpoint holds more, such as a speech synthesiser).
        medium: What is asked in beside text.
        marker: What stands for the clip where the chat template wants plain text as content; None where it takes parts.
        token_inputs: Inputs beside ``input_ids`` that the processor gives for each token of a prompt (token types).
            They are 0 for padding and for completion tokens.
        own_positions: Whether the model derives right positions from the attention mask by itself. If not, it is given
            positions that count the tokens of a row and skip its padding.
        longest: Gives the seconds of the longest clip that the processor takes before it cuts; None if it never does.
        load_processor: Loads the checkpoint's processor.
        layers: Gives the modules, one per layer of the decoder, whose outputs [batch, tokens, hidden] are captured.
        adapter: Folder of the checkpoint with a LoRA adapter that the model listens through and does not read through;
            ``"."`` where it lies beside the weights.
        turn_end: The token that ends the assistant's turn, named like ``placeholder``; empty to find it in the chat
            template.
        tokenize: Makes a completion's token ids with the checkpoint's tokenizer.
        inputs: Makes model inputs of one conversation; see :func:`templated_inputs`, which suits chat templates that
            are used as Hugging Face means them to be.
    """

    name: str
    checkpoint_type: str
    model_class: str
    placeholder: str
    decoder: str
    encoder: str
    encoded: Mapping[str, float] = field(default_factory=lambda: {"last_hidden_state": 0.0}, hash=False)
    reserved: tuple[str, ...] = ()
    model_type: str = ""
    medium: Literal["audio", "image"] = "audio"
    marker: str | None = None
    token_inputs: tuple[str, ...] = ()
    own_positions: bool = False
    longest: Callable[[Any], float | None] = whisper_window
    load_processor: Callable[[str], Any] = auto_processor
    layers: Callable[[Any], list[nn.Module]] = decoder_layers
    adapter: str = ""
    turn_end: str = ""
    tokenize: Callable[[Any, str], list[int]] = text_tokens
    inputs: Callable[[SpeechModelFamily, Any, Sequence[Message], Any | None], Mapping[str, Any]] = templated_inputs

    def __post_init__(self) -> None:
        if not self.model_type:
            object.__setattr__(self, "model_type", self.checkpoint_type)

    def placeholder_id(self, processor: Any) -> int:
        """Id of the token that stands for a clip's features.

        Raises:
            UnsupportedConfigError: The checkpoint's vocabulary lacks it.
        """
        found = self.token_ids(processor, (self.placeholder,))
        if not found:
            raise UnsupportedConfigError(
                f"expected the checkpoint's tokenizer to have {self.name}'s placeholder {self.placeholder!r} (an attribute "
                f"of the processor or the tokenizer, or a token); it does not. Is it a checkpoint of {self.name}, with the "
                "processor's files beside the weights?"
            )
        return found[0]

    def never_sampled(self, processor: Any) -> list[int]:
        """Ids of the tokens that mean something in a prompt only, ascending."""
        return self.token_ids(processor, (self.placeholder, *self.reserved))

    def token_ids(self, processor: Any, names: Sequence[str]) -> list[int]:
        """Ids, ascending, of those tokens of these names that there are."""
        vocabulary = processor.tokenizer.get_vocab()
        tokens = {getattr(processor, name, None) or getattr(processor.tokenizer, name, None) or name for name in names}
        return sorted(vocabulary[token] for token in tokens if token in vocabulary)


@dataclass(frozen=True, kw_only=True)
class TrainableFamily(SpeechModelFamily):
    """A family that verl and OpenRLHF can train: what their adapters need beside.

    Attributes:
        part: Attribute of the checkpoint's config with the config of the part that is trained; empty if that is the
            whole.
        processor_class: Name in ``transformers`` of the checkpoint's processor.
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

    part: str = ""
    processor_class: str
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
