"""A loaded Speech LLM: prompts of one question in both modalities, tokens, padded batches, decoder layers.

::

    speech = SpeechModel.load("Qwen/Qwen2.5-Omni-7B")
    heard = speech.prompt(question=None, media="q1.wav", instruction="Answer with a letter.")
    read = speech.prompt(question="What is …?", media=None, instruction="Answer with a letter.")
    completions = [speech.tokenize("<think>…"), speech.tokenize("<think>…")]
    batch = speech.batch([heard, read], completions, padding="right")
    logits = speech.model(**batch).logits
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jinja2 import TemplateError

from tars_rewards.errors import AdapterError, UnsupportedConfigError
from tars_rewards.speech.adapters import adapt_rows
from tars_rewards.speech.family import Message, SpeechModelFamily, render
from tars_rewards.speech.loading import checkpoint_family, choose_device, choose_dtype, load_model, load_processor
from tars_rewards.speech.media import load_media
from tars_rewards.speech.memo import ENCODED, MediaMemo, join_padded
from tars_rewards.speech.rope import choose_by_row

if TYPE_CHECKING:
    from torch import Tensor, nn

_TOKENS = ("input_ids", "attention_mask")


@dataclass(frozen=True, eq=False)
class Prompt:
    """One prompt of one question, ready for the model; two are the same only if they are one object.

    Attributes:
        token_ids: Token ids, a placeholder for every vector of the clip, no padding; ends where the completion begins.
        features: What the processor made of the clip or image, a batch of one on the CPU; empty for a written prompt.
        token_inputs: Further inputs of the model for each token [1, tokens]; empty for most families.
    """

    token_ids: tuple[int, ...]
    features: Mapping[str, Tensor]
    token_inputs: Mapping[str, Tensor]


class SpeechModel:
    """A loaded model with its processor, made by :meth:`load`. Not for several threads at once.

    Attributes:
        family: Record of the model's family.
        model: The model, in eval mode on ``device``. Its ``forward`` takes what :meth:`batch` gives.
        processor: The checkpoint's processor.
        device: Where the model is.
        dtype: Of its weights.
        layers: The text decoder's layers, shallow to deep, for ``capture_hidden_states(…, layers=…)``.
        stop_ids: Ids of all tokens that end a completion.
        end_of_turn: The one among them by which the chat template ends the assistant's turn; a completion that was not
            truncated ends with it.
        pad_id: Id of the padding token.
        never_sampled: Ids of tokens that mean something in a prompt only, ascending.
        vocabulary: Number of token ids that the model both reads and says.
    """

    def __init__(self, model: Any, processor: Any, family: SpeechModelFamily) -> None:
        """Take over a model that is loaded already; :meth:`load` is the usual way.

        Args:
            model: Hugging Face model of the family, with the weights in place.
            processor: The checkpoint's processor.
            family: The model's family.
        """
        self.family = family
        self.model = model.eval()
        self.processor = processor
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.layers: list[nn.Module] = family.layers(model.get_submodule(family.decoder))
        self.never_sampled = family.never_sampled(processor)
        embeddings = model.get_input_embeddings(), model.get_output_embeddings()
        self.vocabulary: int = min(each.weight.shape[0] for each in embeddings)
        self._placeholder = family.placeholder_id(processor)
        tokenizer = processor.tokenizer
        eos = model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, *(eos if isinstance(eos, Sequence) else [eos])} - {None}
        if not ends:
            raise UnsupportedConfigError(
                f"neither the tokenizer nor the generation config of this {family.name} checkpoint names an end-of-sequence "
                "token, so that no completion could end; set eos_token_id in generation_config.json"
            )
        self.end_of_turn = self._end_of_turn(ends)
        self.stop_ids = frozenset(ends | {self.end_of_turn})
        self.pad_id: int = self.end_of_turn if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        model.generation_config.eos_token_id = sorted(self.stop_ids)
        model.generation_config.pad_token_id = self.pad_id
        adapt_rows(model, self._placeholder)
        choose_by_row(model)
        self._memo = MediaMemo(model, family)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        family: SpeechModelFamily | None = None,
    ) -> SpeechModel:
        """Load a checkpoint.

        Args:
            path: Checkpoint directory, or name on the Hugging Face hub.
            device: ``"auto"`` is CUDA where there is one, else MPS, else the CPU; or a device of torch.
            dtype: ``"auto"`` is the checkpoint's own, and float32 on the CPU; or ``"float32"``, ``"bfloat16"``,
                ``"float16"``.
            family: Record of the model's family; None finds it by the checkpoint's ``model_type``.

        Raises:
            ConfigError: No such device, dtype or checkpoint, or the hub is out of reach.
            UnsupportedConfigError: No family is known for the model, or its checkpoint lacks something.
        """
        path = os.fspath(path)
        chosen = choose_device(device)
        kind = choose_dtype(dtype, chosen)
        family = family or checkpoint_family(path)
        processor = load_processor(path, family)
        return cls(load_model(path, family, device=chosen, dtype=kind), processor, family)

    def prompt(
        self, *, question: str | None, media: Any | None, system: str | None = None, instruction: str | None = None
    ) -> Prompt:
        """A question as the model is asked it: written, or heard (seen).

        Args:
            question: The question as it is read; None for one that is heard.
            media: The question as it is heard, or the image: see :func:`tars_rewards.speech.media.load_media`; None for
                one that is read.
            system: Text of a system turn before; None leaves it to the chat template.
            instruction: Text that follows the question in the same turn, the same in both modalities.

        Raises:
            AdapterError: Not exactly one of question and media is given; the clip or image cannot be read or encoded
                whole; a text has a token that means something in a prompt only; the checkpoint's chat template or
                processor refuses the conversation.
        """
        if (question is None) == (media is None):
            raise AdapterError(
                f"expected a prompt to be either written or {'heard' if self.family.medium == 'audio' else 'seen'}: give "
                "exactly one of question= and media="
            )
        self._refuse_reserved(question=question, system=system, instruction=instruction)
        loaded = None if media is None else load_media(media, self.family, self.processor)
        text = "\n".join(each for each in (question, instruction) if each)
        medium: str = self.family.medium
        content = [] if media is None else [{"type": medium, medium: medium}]
        content += [{"type": "text", "text": text}] if text else []
        turn: Message = {"role": "user", "content": content}
        before: list[Message] = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        try:
            made = dict(self.family.inputs(self.family, self.processor, [*before, turn], loaded))
        except (ValueError, TemplateError) as error:
            raise AdapterError(
                f"{self.family.name}'s chat template or processor refuses the prompt (system turn: {system!r}, text: {text!r}, "
                f"{medium}: {'no' if media is None else 'yes'}): {error}"
            ) from error
        token_ids = tuple(torch.as_tensor(made["input_ids"])[0].tolist())
        if media is not None and self._placeholder not in token_ids:
            raise AdapterError(
                f"a prompt with {self.family.medium} came out of {self.family.name}'s processor without a single placeholder: "
                f"the {self.family.medium} is too short to be encoded, or the checkpoint's chat template leaves it out"
            )
        token_inputs = {name: torch.as_tensor(made.pop(name)) for name in self.family.token_inputs if name in made}
        features = {
            name: torch.as_tensor(value) for name, value in made.items() if name not in _TOKENS and value is not None
        }
        return Prompt(token_ids, features if media is not None else {}, token_inputs)

    def tokenize(self, completion: str) -> list[int]:
        """Token ids of a completion: nothing added, and text that reads like a special token stays text."""
        return self.family.tokenize(self.processor.tokenizer, completion)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """Text of a completion, without special tokens."""
        text: str = self.processor.tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def batch(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[int]] | None = None,
        *,
        padding: Literal["left", "right"],
    ) -> dict[str, Any]:
        """Inputs of the model for one row per prompt, on its device.

        A prompt's clip is encoded the first time that the prompt occurs. For several completions of a question, give its
        prompt several times.

        Args:
            prompts: At least one, with and without media in any mixture.
            completions: Token ids that follow each prompt, as many as there are prompts; None for the prompts alone.
            padding: ``"left"`` for ``model.generate``, ``"right"`` for a forward.

        Returns:
            Keywords for ``model(**…)`` and ``model.generate(**…)``: input_ids and attention_mask [rows, tokens], and
            whatever else the family takes.

        Raises:
            AdapterError: No prompts, or not as many completions.
        """
        if not prompts or (completions is not None and len(completions) != len(prompts)):
            raise AdapterError(
                f"expected at least one prompt and as many completions, got {len(prompts)} prompts and "
                f"{'none' if completions is None else len(completions)} completions"
            )
        for prompt in prompts:
            if prompt.features:
                self._memo.encode(prompt, self._inputs([prompt], [()], "right"))
        batch = self._inputs(prompts, completions or [()] * len(prompts), padding)
        if with_media := [prompt for prompt in prompts if prompt.features]:
            batch[ENCODED] = self._memo.joined(with_media)
        return batch

    def forget(self) -> None:
        """Drop what is kept of encoded clips; a prompt that occurs again is encoded again."""
        self._memo.clear()

    def _inputs(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]], padding: Literal["left", "right"]
    ) -> dict[str, Any]:
        rows = [[*prompt.token_ids, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.pad_id)
        mask = torch.zeros_like(ids)
        extra = {name: torch.zeros_like(ids) for name in self.family.token_inputs}
        for row, (tokens, prompt) in enumerate(zip(rows, prompts, strict=True)):
            start = longest - len(tokens) if padding == "left" else 0
            ids[row, start : start + len(tokens)] = torch.tensor(tokens)
            mask[row, start : start + len(tokens)] = 1
            for name, values in prompt.token_inputs.items():
                extra[name][row, start : start + values.shape[1]] = values[0]
        inputs: dict[str, Tensor] = {"input_ids": ids, "attention_mask": mask, **extra}
        if not self.family.own_positions:
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        features = [prompt.features for prompt in prompts if prompt.features]
        for name in features[0] if features else ():
            joined = join_padded([each[name] for each in features])
            inputs[name] = joined.to(self.dtype) if joined.is_floating_point() else joined
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def _refuse_reserved(self, **texts: str | None) -> None:
        tokens = self.processor.tokenizer.convert_ids_to_tokens(self.never_sampled)
        for name, text in texts.items():
            if found := next((token for token in tokens if token in (text or "")), None):
                raise AdapterError(
                    f"the {name} has the text {found!r}, which {self.family.name} takes for a place of "
                    f"{self.family.medium} and not for text; take it out (the {self.family.medium} goes in by media=)"
                )

    def _end_of_turn(self, ends: set[int]) -> int:
        """The token that follows an assistant's words in the chat template, if it is one that ends a completion."""
        if self.family.turn_end:
            return self.family.token_ids(self.processor, (self.family.turn_end,))[0]
        words, tokenizer = "quite", self.processor.tokenizer
        turns = [{"role": role, "content": [{"type": "text", "text": words}]} for role in ("user", "assistant")]
        text = render(self.processor, turns, marker=self.family.marker, prompt=False)
        after = tokenizer(text.rpartition(words)[2], add_special_tokens=False).input_ids
        usual = tokenizer.eos_token_id
        return next((token for token in after if token in ends), min(ends) if usual is None else usual)
