import statistics
from types import SimpleNamespace

import numpy as np
import pytest

from tars_rewards import ModalityGap, Rollout, TARSConfig, TARSReward, modality_gap
from tars_rewards.errors import RolloutError


def gap_of(target: tuple[int, int], anchor: tuple[int, int], **settings: object) -> ModalityGap:
    """(right, asked) in each modality."""
    correct = [n < target[0] for n in range(target[1])] + [n < anchor[0] for n in range(anchor[1])]
    return modality_gap(correct, ["speech"] * target[1] + ["text"] * anchor[1], **settings)


def test_numbers_of_the_gap() -> None:
    gap = gap_of((615, 1000), (679, 1000))
    assert (gap.target_accuracy, gap.target_n, gap.anchor_accuracy, gap.anchor_n) == (0.615, 1000, 0.679, 1000)
    assert gap.gap == pytest.approx(0.064)
    assert gap.own_ratio == pytest.approx(615 / 679)
    assert gap.recovery_rate == pytest.approx(100 * 615 / 679)
    assert gap.denominator_name == "own text"


def test_recovery_rate_against_the_published_figures() -> None:
    """TARS-Phi: 79.80 speech, 83.82 text, MRR 100.45 of 79.44, own-text ratio 95.21 (arXiv 2601.05543)."""
    gap = gap_of((7980, 10_000), (8382, 10_000), backbone_accuracy=0.7944, backbone_name="Phi-4-mini, text")
    assert gap.recovery_rate == pytest.approx(100.45, abs=0.01)
    assert 100 * gap.own_ratio == pytest.approx(95.21, abs=0.01)
    assert (gap.denominator, gap.denominator_name) == (0.7944, "Phi-4-mini, text")


def test_what_does_not_exist_is_none_and_left_out() -> None:
    only_speech = gap_of((1, 2), (0, 0))
    assert (only_speech.anchor_accuracy, only_speech.gap, only_speech.own_ratio, only_speech.recovery_rate) == (
        None,
    ) * 4
    assert only_speech.as_metrics("val/") == {"val/speech_accuracy": 0.5, "val/speech_n": 2.0, "val/text_n": 0.0}
    none_right = gap_of((1, 2), (0, 3))
    assert none_right.own_ratio is None
    assert none_right.recovery_rate is None
    assert none_right.gap == -0.5


def test_as_metrics() -> None:
    assert gap_of((3, 4), (4, 4), backbone_accuracy=0.5).as_metrics() == {
        "speech_accuracy": 0.75,
        "speech_n": 4.0,
        "text_accuracy": 1.0,
        "text_n": 4.0,
        "gap": 0.25,
        "mrr": 150.0,
        "mrr_denominator": 0.5,
        "own_text_ratio": 0.75,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([True], []), "1 answers, 0 modalities"),
        (([True], ["audio"]), "expected 'speech' or 'text', got audio"),
    ],
)
def test_bad_answers(given: tuple, message: str) -> None:
    with pytest.raises(RolloutError, match=message):
        modality_gap(*given)


@pytest.mark.parametrize("backbone", [0.0, -1, 79.44, float("nan")])
def test_bad_backbone(backbone: float) -> None:
    with pytest.raises(RolloutError, match=r"share in \(0, 1\]"):
        gap_of((1, 1), (1, 1), backbone_accuracy=backbone)


def test_reward_metrics_against_plain_python(tools: SimpleNamespace) -> None:
    rollouts = tools.make_batch(5, pairs=6, targets=3, anchors=2, right=0.4)
    result = TARSReward(embedder=tools.HashEmbedder())(rollouts)
    for term, values in {**result.components, "total": result.total}.items():
        for modality in ("speech", "text"):
            chosen = [
                value
                for value, rollout, valid in zip(
                    values.tolist(), rollouts, result.valid.get(term, [True] * len(rollouts)), strict=True
                )
                if rollout.modality == modality and valid
            ]
            key = f"tars/{term}/{modality}"
            if term in ("representation", "behavior") and modality == "text":
                assert not [name for name in result.metrics if name.startswith(key)]
                continue
            assert result.metrics[f"{key}/count"] == len(chosen)
            assert result.metrics[f"{key}/mean"] == pytest.approx(statistics.fmean(chosen))
            assert result.metrics[f"{key}/std"] == pytest.approx(statistics.pstdev(chosen), abs=1e-7)
    assert 0 < result.metrics["tars/representation/speech/count"] < 18
    without = [
        pair
        for pair in {rollout.pair_id for rollout in rollouts}
        if not any(r.pair_id == pair and r.modality == "text" and "is B" in r.completion for r in rollouts)
    ]
    assert 0 < len(without) < 6
    assert result.metrics["tars/pairs/without_reference"] == pytest.approx(len(without) / 6)
    assert result.metrics["tars/pairs/count"] == 6
    base = [
        result.components["accuracy"][n].item() + 0.5 * result.components["format"][n].item()
        for n in range(len(rollouts))
    ]
    by = {m: np.mean([b for b, r in zip(base, rollouts, strict=True) if r.modality == m]) for m in ("speech", "text")}
    assert result.metrics["tars/reward_gap"] == pytest.approx(by["text"] - by["speech"])
    assert result.metrics["tars/behavior/over_window"] == 0
    stages = {name for name in result.metrics if name.startswith("tars/seconds/")}
    assert stages == {f"tars/seconds/{name}" for name in ("base", "reference", "representation", "behavior")}


def test_truncation_and_window_are_counted() -> None:
    class Windowed:
        max_tokens = 3

        def encode(self, texts: list[str]) -> np.ndarray:
            return np.ones((len(texts), 2))

        def count_tokens(self, texts: list[str]) -> list[int]:
            return [len(text.split()) for text in texts]

    rollouts = [
        Rollout("q", "speech", completion="one two three four", correct=False, truncated=True),
        Rollout("q", "speech", completion="one two three four", correct=False),
        Rollout("q", "text", completion="one", correct=True),
    ]
    with pytest.warns(UserWarning, match="window"):
        metrics = TARSReward(TARSConfig(alpha=0), embedder=Windowed())(rollouts).metrics
    assert metrics["tars/behavior/over_window"] == 1
    assert metrics["tars/truncated/speech"] == 0.5
    assert metrics["tars/truncated/text"] == 0.0


def test_no_mean_over_nothing() -> None:
    metrics = TARSReward(TARSConfig(alpha=0, beta=0))([Rollout("q", "text", completion="x", correct=True)]).metrics
    assert metrics["tars/accuracy/speech/count"] == 0
    assert "tars/accuracy/speech/mean" not in metrics
    assert "tars/reward_gap" not in metrics
    assert "tars/pairs/without_reference" not in metrics
    assert "tars/truncated/speech" not in metrics
    assert all(np.isfinite(value) for value in metrics.values())


def test_modalities_take_the_configs_names(tools: SimpleNamespace) -> None:
    config = TARSConfig(alpha=0, beta=0, target_modality="image", anchor_modality="caption")
    rollouts = [
        Rollout("q", "image", completion="x", correct=True),
        Rollout("q", "caption", completion="x", correct=True),
    ]
    metrics = TARSReward(config)(rollouts).metrics
    assert metrics["tars/accuracy/image/mean"] == metrics["tars/accuracy/caption/mean"] == 1.0
    gap = modality_gap([True, False], ["caption", "image"], target_modality="image", anchor_modality="caption")
    assert gap.as_metrics()["own_caption_ratio"] == 0.0
