"""OpenRLHF's remote reward: what ``--reward.remote_url`` sends and expects.

OpenRLHF posts ``{"query": […], "prompts": […], "labels": […]}`` (`openrlhf.utils.agent`). A query is prompt and completion in one
text, decoded with special tokens; a prompt is the text that was tokenized; a label is what stands in the column
``--data.label_key``. The answer is ``{"rewards": […], "scores": […], "extra_logs": {…}}``. Whether a completion was cut off at the
length limit is not sent: the format of one that was cut off just after its end counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tars_rewards.answers import check_answer
from tars_rewards.errors import MissingAnswerError
from tars_rewards.server.body import parse_json
from tars_rewards.server.questions import check_text
from tars_rewards.server.queue import Judgement
from tars_rewards.server.refusal import invalid, too_large
from tars_rewards.server.settings import ServerSettings

if TYPE_CHECKING:
    from tars_rewards.protocol import BaseScore
    from tars_rewards.speech.model import SpeechModel

_FIELDS = ("query", "prompts", "labels")
# Qwen's, Llama's, Phi's and Granite's; DeepSeek's; then what stands for itself.
_PATTERNS = (r"<\|[^<>|\s]+\|>", r"<｜[^<>｜\s]+｜>")
_KNOWN = ("<s>", "</s>", "<pad>", "<unk>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]")


def special_tokens(model: SpeechModel | None, settings: ServerSettings) -> re.Pattern[str]:
    """What is taken out of a query: the well-known special tokens, the model's, and those of the settings."""
    tokenizer = getattr(model.processor, "tokenizer", model.processor) if model is not None else None
    tokens = {*_KNOWN, *settings.special_tokens, *getattr(tokenizer, "all_special_tokens", ())}
    literal = [re.escape(token) for token in sorted(tokens, key=len, reverse=True)]
    return re.compile("|".join([*_PATTERNS, *literal]))


def read_judgements(body: bytes, special: re.Pattern[str], settings: ServerSettings) -> list[Judgement]:
    """The completions of a body, each with its right answer.

    Raises:
        Refusal: The body is malformed or over a limit, a query does not begin with its prompt, or a label cannot be judged.
    """
    given = parse_json(body)
    columns: list[list[Any]] = []
    for name in _FIELDS:
        column = given.get(name)
        if not isinstance(column, list):
            raise invalid(f"expected a list, got {type(column).__name__}", name)
        if len(column) > settings.max_completions:
            raise too_large(f"expected at most {settings.max_completions} entries, got {len(column)}", name)
        columns.append(column)
    queries, prompts, labels = columns
    if not len(queries) == len(prompts) == len(labels):
        lengths = f"{len(queries)} queries, {len(prompts)} prompts and {len(labels)} labels"
        raise invalid(f"expected one prompt and one label a query, got {lengths}", "query")
    rows = enumerate(zip(queries, prompts, labels, strict=True))
    return [_judgement(index, *row, special=special, settings=settings) for index, row in rows]


def answer(scores: Sequence[BaseScore]) -> bytes:
    """The body of the answer: `rewards` is accuracy and weighted format, `scores` accuracy alone."""
    correct = [float(score.correct) for score in scores]
    logs = {"correct": correct, "format": [float(score.format) for score in scores]}
    return json.dumps({"rewards": [score.reward for score in scores], "scores": correct, "extra_logs": logs}).encode()


def _judgement(
    index: int, query: Any, prompt: Any, label: Any, *, special: re.Pattern[str], settings: ServerSettings
) -> Judgement:
    for name, text in (("query", query), ("prompts", prompt)):
        if not isinstance(text, str):
            raise invalid(f"expected a text, got {type(text).__name__}", f"{name}[{index}]")
    check_text(prompt, f"prompts[{index}]", settings)
    # Without special tokens on both sides, because media's placeholders stand once in a prompt and often in a query.
    read, asked = special.sub("", query), special.sub("", prompt)
    if not read.startswith(asked):
        raise invalid(
            "expected a query that begins with its prompt; was the prompt cut? Raise --data.max_len, or leave it out",
            f"query[{index}]",
        )
    completion = read[len(asked) :]
    check_text(completion, f"query[{index}]", settings)
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    check_text(label if isinstance(label, str) else "", f"labels[{index}]", settings)
    try:
        check_answer(label)
    except MissingAnswerError as error:
        raise invalid(
            f"{error}; labels come from the column that --data.label_key names", f"labels[{index}]"
        ) from error
    return Judgement(completion, label)
