"""OpenRLHF's prompt dataset with a question's two prompts as one item, so that no shuffling parts them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from openrlhf.datasets import PromptDataset

from tars_rewards.errors import AdapterError, MissingAnswerError, RolloutError, UnsupportedConfigError
from tars_rewards.integration.pairs import CHECK_ROWS, find_pairs
from tars_rewards.speech.checkpoint import checkpoint_family
from tars_rewards.speech.families import trainable_of
from tars_rewards.speech.waveform import clip_name, clip_seconds, undecoded
from tars_rewards_openrlhf.flags import read_flags
from tars_rewards_openrlhf.label import Label
from tars_rewards_openrlhf.settings import OUR_REWARD

AUDIO_TAG = "<audio>"


class PairDataset(PromptDataset):
    """``PromptDataset`` over the same rows, two of which are one item.

    Besides OpenRLHF's columns a row has ``pair_id`` and ``modality``, and a spoken one its clips in ``--tars.audio_key``
    and ``<audio>`` in its prompt where they go. What can be wrong with a row is said here, before training.

    Raises:
        UnsupportedConfigError: A column is missing, there are images, or there are clips and the model cannot hear.
        IncompletePairError: A question does not have exactly one prompt of each modality.
        MissingAnswerError: There is no label to compare answers with.
        AdapterError: A prompt and its clips do not match, a clip cannot be read or is too long, a prompt is too long, or a
            label is not what JSON can carry.
    """

    def __init__(self, dataset: Any, tokenizer: Any, strategy: Any, input_template: str | None = None) -> None:
        args = strategy.args
        self.config, self.options = read_flags(vars(args.tars))
        self.validation = False
        missing = {"pair_id", "modality"} - set(dataset.column_names)
        if missing:
            raise UnsupportedConfigError(
                f"the dataset must have the columns pair_id (the question) and modality ({self.config.target_modality!r} or "
                f"{self.config.anchor_modality!r}); {sorted(missing)} missing, add to the dataset"
            )
        self._rows = undecoded(dataset)
        pair_ids, modalities = (list(map(str, dataset[name])) for name in ("pair_id", "modality"))
        self.pairs = find_pairs(
            pair_ids,
            modalities,
            target_modality=self.config.target_modality,
            anchor_modality=self.config.anchor_modality,
            advice=f"{CHECK_ROWS}; --data.max_samples counts rows, two for a question",
        )
        family = checkpoint_family(args.actor.model_name_or_path)
        self._processor = None
        if family is not None:
            from tars_rewards.speech.processors import load_processor

            # Its chat template knows where audio goes.
            tokenizer = self._processor = load_processor(args.actor.model_name_or_path, family)
        super().__init__(_WithAudioParts(self._rows, args.data.input_key), tokenizer, strategy, input_template)
        ours = OUR_REWARD in (args.reward.remote_url or ())
        self.metadata = [
            Label(pair_id, modality, ground_truth(label) if ours else label, datasource)
            for pair_id, modality, label, datasource in zip(
                pair_ids, modalities, self.labels, self.datasources, strict=True
            )
        ]
        if any(self.images):
            raise UnsupportedConfigError(
                f"the dataset has images in {self.image_key!r}, which TARS would leave out; name another column by "
                "--data.image_key, or drop it"
            )
        for row, label in enumerate(self.metadata):
            try:
                self._check(row, label, ours=ours)
            except (AdapterError, RolloutError) as error:
                raise type(error)(f"pair {label.pair_id!r}, {label.modality}: {error}") from error

    def clips(self, row: int) -> list[Any] | None:
        """Clips of a row, read from the table when they are needed; None without any."""
        return self._rows[row].get(self.options.audio_key) or None

    def _check(self, row: int, label: Label, *, ours: bool) -> None:
        label.dump()
        if ours and (not isinstance(label.answer, str) or not label.answer.strip()):
            raise MissingAnswerError(
                f"expected the right answer as text (or as verl's reward_model, {{'ground_truth': …}}), got {label.answer!r}; "
                "name its column by --data.label_key, or give a reward function of your own by --reward.remote_url"
            )
        clips = self.clips(row)
        if clips is not None and not isinstance(clips, list):
            raise AdapterError(f"expected a list of clips in {self.options.audio_key!r}, got {type(clips).__name__}")
        if self._processor is None:
            if clips:
                trainable_of(_model_type(self.strategy.args.actor.model_name_or_path))
            return
        places = self.prompts[row].count(self._processor.tokenizer.decode([self._processor.placeholder_id()]))
        if places != len(clips or ()):
            raise AdapterError(
                f"the prompt has {places} places for audio and the column {self.options.audio_key!r} {len(clips or ())} clips; "
                f"put {AUDIO_TAG} where each clip goes (with --data.apply_chat_template), and name the clips' column by "
                "--tars.audio_key"
            )
        for clip in clips or ():
            seconds, window = clip_seconds(clip), self._processor.window
            if seconds > window:
                raise AdapterError(
                    f"clip {clip_name(clip)} of {seconds:.1f} s is longer than the {window:g} s that the model hears; split it or "
                    "drop the question"
                )

    def __len__(self) -> int:
        """Questions."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> list[tuple[str, str, str, Any]]:
        """Datasource, prompt, label and clips of a question's two prompts, the spoken one first."""
        return [
            (
                self.datasources[row],
                self.prompts[row],
                dataclasses.replace(self.metadata[row], validation=self.validation).dump(),
                self.clips(row),
            )
            for row in self.pairs[index]
        ]

    def collate_fn(self, item_list: list[list[tuple[str, str, str, Any]]]) -> tuple[list[Any], ...]:
        """Prompts of some questions as the four lists that OpenRLHF draws from; pairs stay adjacent."""
        return tuple(list(column) for column in zip(*(prompt for pair in item_list for prompt in pair), strict=True))


class _WithAudioParts:
    """Rows of a dataset whose ``<audio>`` tags are parts of the message, as chat templates expect them."""

    def __init__(self, dataset: Any, key: str) -> None:
        self._dataset, self._key = dataset, key

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self._dataset:
            prompt = row[self._key]
            if isinstance(prompt, str) and AUDIO_TAG in prompt:
                prompt = [{"role": "user", "content": prompt}]
            if isinstance(prompt, list):
                prompt = [{**turn, "content": audio_parts(turn["content"])} for turn in prompt]
            yield {**row, self._key: prompt}


def audio_parts(content: Any) -> Any:
    """A message's text with ``<audio>`` tags as a list of parts; anything else as it is.

    Example:
        >>> audio_parts("Listen: <audio>")
        [{'type': 'text', 'text': 'Listen: '}, {'type': 'audio'}]
    """
    if not isinstance(content, str) or AUDIO_TAG not in content:
        return content
    parts: list[dict[str, str]] = []
    for position, text in enumerate(content.split(AUDIO_TAG)):
        parts += [{"type": "audio"}] if position else []
        parts += [{"type": "text", "text": text}] if text else []
    return parts


def ground_truth(label: Any) -> Any:
    """The right answer in a label that is one, or that is a `reward_model` of verl's datasets."""
    return label.get("ground_truth") if isinstance(label, Mapping) else label


def _model_type(path: str) -> str | None:
    from transformers import PreTrainedConfig

    config, _ = PreTrainedConfig.get_config_dict(path)
    model_type: str | None = config.get("model_type")
    return model_type
