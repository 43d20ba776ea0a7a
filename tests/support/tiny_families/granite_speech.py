"""Granite Speech: a conformer and a Q-Former in front of a Granite model, with a LoRA adapter that is for audio only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_parts import SIZES, has_model, make_tokenizer
from torchaudio_standin import provide

NAME = "granite_speech"
MODEL_TYPE = "granite_speech"
SPECIAL = ["<|end_of_text|>", "<|pad|>", "<|start_of_role|>", "<|end_of_role|>", "<|audio|>"]
# As in the published checkpoints, contents are strings, and the placeholder stands in them.
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|start_of_role|>system<|end_of_role|>You are Granite.<|end_of_text|>\n"
    "{% endif %}{% for message in messages %}"
    "{{ '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
MELS, ENCODER_WIDTH = 80, 32  # the extractor forgets any other number of mel bins when it is saved


def available() -> bool:
    return has_model("granite_speech")


def make(directory: Path) -> Path:
    from transformers import GraniteSpeechConfig, GraniteSpeechEncoderConfig, GraniteSpeechForConditionalGeneration

    tokenizer = make_processor(directory)
    config = GraniteSpeechConfig(
        encoder_config=GraniteSpeechEncoderConfig(**encoder_sizes()), **other_parts(tokenizer, ENCODER_WIDTH)
    )
    save_with_adapter(GraniteSpeechForConditionalGeneration, config, directory)
    return directory


def make_processor(directory: Path) -> Any:
    """Write the processor; returns its tokenizer."""
    from transformers import GraniteSpeechFeatureExtractor, GraniteSpeechProcessor

    provide()
    tokenizer = make_tokenizer(SPECIAL, eos="<|end_of_text|>", pad="<|pad|>", template=TEMPLATE)
    tokenizer.padding_side = "left"
    processor = GraniteSpeechProcessor(
        GraniteSpeechFeatureExtractor(n_mels=MELS), tokenizer, audio_token="<|audio|>", chat_template=TEMPLATE
    )
    processor.save_pretrained(directory)
    return tokenizer


def encoder_sizes() -> dict[str, int]:
    return {
        "input_dim": 2 * MELS,
        "num_layers": 2,
        "hidden_dim": ENCODER_WIDTH,
        "feedforward_mult": 2,
        "num_heads": 2,
        "output_dim": 8,
        "context_size": 20,
        "max_pos_emb": 32,
        "conv_kernel_size": 3,
    }


def other_parts(tokenizer: Any, projector_input: int) -> dict[str, Any]:
    """What the config of the whole has beside the encoder's."""
    from transformers import Blip2QFormerConfig, GraniteConfig

    return {
        "projector_config": Blip2QFormerConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            encoder_hidden_size=projector_input,
        ),
        "text_config": GraniteConfig(
            **SIZES,
            vocab_size=len(tokenizer),
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        "audio_token_index": tokenizer.convert_tokens_to_ids("<|audio|>"),
        "has_lora_adapter": True,
    }


def save_with_adapter(model_class: Any, config: Any, directory: Path) -> None:
    """The weights, and beside them in the same directory an adapter that transformers loads with the model."""
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel

    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # The queries of a Q-Former initialised at random drown what they attend to.
            if name.endswith(("crossattention.attention.value.weight", "crossattention.output.dense.weight")):
                parameter *= 20
    model.save_pretrained(directory)
    model.add_adapter(
        LoraConfig(
            r=4,
            lora_alpha=16,
            target_modules=r".*language_model.*\.(q_proj|v_proj)",
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    PreTrainedModel.save_pretrained(model, directory)  # the class's own would write the weights again, as wrapped


def reference(directory: Path, text: str, clip: Any | None) -> Any:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(directory)
    turn = {"role": "user", "content": text if clip is None else f"<|audio|>{text}"}
    prompt = processor.tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    return processor([prompt], *([] if clip is None else [[clip]]), return_tensors="pt")


def prepare(model: Any, _: Path, heard: bool) -> None:
    """The adapter is for listening only, as the model's own ``generate`` has it."""
    model.enable_adapters() if heard else model.disable_adapters()
