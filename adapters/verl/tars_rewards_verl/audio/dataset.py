"""verl's dataset for rows with an ``audios`` column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tars_rewards.speech.families import trainable_of
from tars_rewards.speech.waveform import load_waveform, undecoded

if TYPE_CHECKING:

    class RLHFDataset:
        """verl's dataset, which is not typed."""

        processor: Any

        def maybe_filter_out_long_prompts(self, dataframe: Any = None) -> Any: ...  # noqa: D102  (verl's own, described there)

        def _build_messages(self, example: dict[str, Any], key: str) -> list[dict[str, Any]]: ...

        @classmethod
        def _extract_audio_info(cls, messages: list[dict[str, Any]]) -> list[Any] | None: ...
else:
    from verl.utils.dataset.rl_dataset import RLHFDataset


class SpeechDataset(RLHFDataset):
    """``RLHFDataset`` whose clips reach the processor and the rollout engine as samples.

    Derive from it to change more of the dataset (``data.custom_cls``). Rows without audio are as in verl's dataset.
    """

    def maybe_filter_out_long_prompts(self, dataframe: Any = None) -> Any:
        """Stock, on a table whose audio columns stay encoded: they are decoded when a rollout needs them."""
        return super().maybe_filter_out_long_prompts(undecoded(dataframe))

    def _build_messages(self, example: dict[str, Any], key: str) -> list[dict[str, Any]]:
        if example.get(getattr(self, "audio_key", "audios")):
            config = getattr(self.processor, "config", None)
            trainable_of(getattr(config, "model_type", "without a processor"))
        return super()._build_messages(example, key)

    @classmethod
    def _extract_audio_info(cls, messages: list[dict[str, Any]]) -> list[Any] | None:
        clips = super()._extract_audio_info(messages)
        return None if clips is None else [load_waveform(clip) for clip in clips]
