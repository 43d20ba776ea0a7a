"""Gemma 3n: a conformer in front of a model whose layers carry several streams, with a vision tower from timm."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from tiny_parts import has_model, make_tokenizer

NAME = "gemma3n"
MODEL_TYPE = "gemma3n"
SPECIAL = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<start_of_audio>",
]
TEXT, EXTRA = 400, 8
# Behind the text's tokens come those of images and those of audio; the first two of each have a name.
LAST = ["<end_of_image>", "<image_soft_token>", *(f"<image_{index}>" for index in range(2, EXTRA))]
LAST += ["<end_of_audio>", "<audio_soft_token>", *(f"<audio_{index}>" for index in range(2, EXTRA))]
NAMED = {
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "audio_token": "<audio_soft_token>",
    "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>",
}
# A system prompt is the beginning of the first turn; the end-of-turn token is not the tokenizer's <eos>.
TEMPLATE = (
    "{{ bos_token }}{% set prefix = namespace(text='') %}"
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{% set prefix.text = (message['content'] if message['content'] is string "
    "else message['content'][0]['text']) + '\n\n' %}"
    "{% else %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ prefix.text }}{% set prefix.text = '' %}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<audio_soft_token>{% elif part['type'] == 'image' %}<image_soft_token>"
    "{% elif part['type'] == 'text' %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}{% endif %}<end_of_turn>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MELS, WIDTH, SOFT_TOKENS = 128, 32, 188


def available() -> bool:
    return has_model("gemma3n")


def make(directory: Path) -> Path:
    import torch
    from transformers import (
        Gemma3nAudioConfig,
        Gemma3nAudioFeatureExtractor,
        Gemma3nConfig,
        Gemma3nForConditionalGeneration,
        Gemma3nProcessor,
        Gemma3nTextConfig,
        Gemma3nVisionConfig,
        SiglipImageProcessorPil,
    )

    if importlib.util.find_spec("timm") is None:
        _provide_vision_standin()
    tokenizer = make_tokenizer(
        SPECIAL, eos="<eos>", bos="<bos>", pad="<pad>", template=TEMPLATE, named=NAMED, size=TEXT, last=LAST
    )
    tokenizer.padding_side = "left"
    token = tokenizer.convert_tokens_to_ids
    Gemma3nProcessor(
        Gemma3nAudioFeatureExtractor(feature_size=MELS), SiglipImageProcessorPil(), tokenizer, chat_template=TEMPLATE
    ).save_pretrained(directory)
    config = Gemma3nConfig(
        text_config=Gemma3nTextConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            vocab_size=TEXT + 2 * EXTRA,
            vocab_size_per_layer_input=TEXT,
            hidden_size_per_layer_input=16,
            laurel_rank=8,
            # As in the published models, the last layers take keys and values from earlier ones of their kind.
            layer_types=["sliding_attention", "full_attention"] * 2,
            num_kv_shared_layers=2,
            max_position_embeddings=4096,
            eos_token_id=token("<eos>"),
            pad_token_id=token("<pad>"),
            bos_token_id=token("<bos>"),
        ),
        audio_config=Gemma3nAudioConfig(
            vocab_size=EXTRA,
            vocab_offset=TEXT + EXTRA,
            input_feat_size=MELS,
            hidden_size=WIDTH,
            conf_num_attention_heads=2,
            conf_num_hidden_layers=2,
            sscp_conv_channel_size=(16, 8),
        ),
        vision_config=Gemma3nVisionConfig(hidden_size=WIDTH, vocab_size=EXTRA, vocab_offset=TEXT),
        audio_soft_tokens_per_image=SOFT_TOKENS,
        boi_token_id=token("<start_of_image>"),
        eoi_token_id=token("<end_of_image>"),
        image_token_id=token("<image_soft_token>"),
        boa_token_id=token("<start_of_audio>"),
        eoa_token_id=token("<end_of_audio>"),
        audio_token_id=token("<audio_soft_token>"),
    )
    torch.manual_seed(0)
    model = Gemma3nForConditionalGeneration(config)
    with torch.no_grad():
        model.model.audio_tower.subsample_conv_projection.input_proj_linear.weight *= 30
    model.generation_config.eos_token_id = [token("<eos>"), token("<end_of_turn>")]
    model.save_pretrained(directory)
    return directory


def _provide_vision_standin() -> None:
    """The published vision tower is made by timm. Without timm, one that sees nothing takes its place in the tests."""
    import torch
    import transformers
    from transformers import Gemma3nVisionConfig, PreTrainedModel

    class VisionStandin(PreTrainedModel):
        config_class = Gemma3nVisionConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.patch = torch.nn.Conv2d(3, config.hidden_size, 14, 14)
            self.post_init()

        def forward(self, pixel_values: Any, **_: Any) -> Any:
            raise NotImplementedError("images take timm")

    transformers.TimmWrapperModel = VisionStandin  # AutoModel.register leaves the library's own configs alone


def states(hidden_states: Any) -> Any:
    """Hugging Face gives all streams of a layer; attention works on the first."""
    return [streams[0] for streams in hidden_states[1:]]
