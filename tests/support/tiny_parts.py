"""What the makers of tiny checkpoints share."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""Of every text decoder, by the names that nearly all configs have."""
CORPUS = [
    "system user assistant You are a helpful assistant.",
    *(
        f"What is {a} plus {b}? <think>{a}+{b}</think><answer>The answer is {a + b}.</answer>"
        for a in range(20)
        for b in range(20)
    ),
]


def has_model(name: str) -> bool:
    """Whether the installed transformers has this model."""
    return importlib.util.find_spec(f"transformers.models.{name}") is not None


def make_tokenizer(
    special: Sequence[str],
    *,
    eos: str,
    pad: str,
    template: str | None,
    bos: str | None = None,
    named: dict[str, str] | None = None,
    size: int = 400,
    last: Sequence[str] = (),
) -> Any:
    """Byte-level BPE of a few hundred tokens.

    Args:
        special: Special tokens; they get the first ids, in this order.
        eos: The one that ends a turn.
        pad: The padding token.
        template: Chat template.
        bos: The token that is put in front of a text, if there is one.
        named: Further attributes of the tokenizer, each a special token.
        size: Tokens, without ``last``.
        last: Special tokens with the last ids.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in last])
    if bos:
        pairs = [(bos, bpe.token_to_id(bos))]
        bpe.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=pairs)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        extra_special_tokens=named or {},
        chat_template=template,
    )
