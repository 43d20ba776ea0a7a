"""Evaluation by OpenRLHF's own hook: accuracy in both modalities and what follows from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from openrlhf.trainer.ppo_utils.experience import Experience

from tars_rewards.config import TARSConfig
from tars_rewards.metrics import modality_gap
from tars_rewards_openrlhf.flags import OpenRLHFOptions
from tars_rewards_openrlhf.label import Label
from tars_rewards_openrlhf.samples import EXTRAS

Metrics = dict[str, float]
StockMetrics = Callable[[Iterable[Any], list[Experience], int], Metrics]


def evaluation_metrics(
    stock: StockMetrics,
    samples: list[Experience],
    samples_per_prompt: int,
    *,
    config: TARSConfig,
    options: OpenRLHFOptions,
) -> Metrics:
    """OpenRLHF's metrics, and those of the modality reasoning gap under ``tars/``.

    Args:
        stock: OpenRLHF's ``compute_eval_metrics``. It tells datasources apart by the prompt's text, which spoken prompts
            share; so it is asked for one datasource at a time.
        samples: Completions, ordered by prompt.
        samples_per_prompt: Completions of each prompt.
        config: Names the modalities.
        options: Says what the recovery rate is measured against.
    """
    if not samples:
        return {}
    labels = [Label.load(sample.labels[0]) for sample in samples]
    logs = _of_datasource(stock, samples, "all", samples_per_prompt)
    by_source: dict[str, list[Experience]] = defaultdict(list)
    for label, sample in zip(labels, samples, strict=True):
        by_source[label.datasource].append(sample)
    for source, members in by_source.items():
        logs |= {
            key: value
            for key, value in _of_datasource(stock, members, source, samples_per_prompt).items()
            if key.startswith(f"eval_{source}_")
        }
    gap = modality_gap(
        [bool(sample.info[f"{EXTRAS}correct"].item()) for sample in samples],
        [label.modality for label in labels],
        backbone_accuracy=options.text_backbone_accuracy,
        backbone_name="text_backbone_accuracy",
        target_modality=config.target_modality,
        anchor_modality=config.anchor_modality,
    )
    print(f"tars-rewards: MRR denominator {gap.denominator} ({gap.denominator_name})", flush=True)
    return logs | gap.as_metrics("tars/")


def _of_datasource(stock: StockMetrics, samples: list[Experience], source: str, samples_per_prompt: int) -> Metrics:
    prompts = [sample.prompts[0] for sample in samples]
    return stock([([source] * len(prompts), prompts, [], [])], samples, samples_per_prompt)
