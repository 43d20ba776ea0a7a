"""A vision-language model, for a pair of image and text: LLaVA, whose processor needs no torchvision."""

from __future__ import annotations

from pathlib import Path

from tiny_models import SPECIAL, decoder_sizes, make_tokenizer

NAME = "vision"
MODEL_TYPE = "llava"
MEDIUM = "image"
SIDE, PATCH = 28, 14
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def available() -> bool:
    return True


def make(directory: Path) -> Path:
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        Qwen2Config,
    )

    tokenizer = make_tokenizer({"image_token": "<image>"})
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(directory)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=Qwen2Config(**decoder_sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    config.text_config.eos_token_id = tokenizer.convert_tokens_to_ids(SPECIAL[2])
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        model.model.vision_tower.embeddings.patch_embedding.weight *= 10
        model.model.multi_modal_projector.linear_2.weight *= 10
    model.save_pretrained(directory)
    return directory
