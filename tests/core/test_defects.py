"""The defects of the published code that concern the core, each with a test that the published behaviour would fail.

Capture and the adapters have tests of their own for the rest: whose prompt a row was forwarded with, which tokens are
averaged, whether a forward pass was added.
"""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.errors import HiddenStatesError, LayerSelectionError, RolloutError

ONE = np.array([[1.0, 0.0, 0.0]], np.float32)
TWO = np.array([[0.0, 1.0, 0.0]], np.float32)
THREE = np.array([[0.0, 0.0, 1.0]], np.float32)


def rollout(pair: str, modality: str, sample: int, state: np.ndarray, correct: bool = True, **more: object) -> Rollout:
    return Rollout(pair, modality, sample, completion="x", correct=correct, hidden_states=state, **more)


def test_text_rows_get_no_alignment_in_the_reward_and_in_no_mean() -> None:
    """Published: text rows are given the mean score of the speech rows."""
    result = TARSReward(TARSConfig(beta=0))([rollout("q", "speech", 0, ONE), rollout("q", "text", 0, ONE)])
    assert result.total.tolist() == [2.0, 1.0]
    assert result.components["representation"].tolist() == [1.0, 0.0]
    assert result.valid["representation"].tolist() == [True, False]
    assert result.metrics["tars/representation/speech/mean"] == 1.0
    assert not [name for name in result.metrics if name.startswith("tars/representation/text")]


def test_references_come_from_the_same_question() -> None:
    """Published: one pool of correct text states for the whole batch."""
    rollouts = [
        rollout(pair, "speech", sample, state) for pair, state in (("a", ONE), ("b", TWO)) for sample in range(9)
    ]
    rollouts += [rollout("a", "text", 0, ONE), rollout("b", "text", 0, TWO), rollout("c", "speech", 0, ONE)]
    result = TARSReward(TARSConfig(beta=0))(rollouts)
    assert result.components["representation"][:18].tolist() == [1.0] * 18
    assert result.reference[-1] == -1  # no correct text rollout of its own, though the batch has some


def test_modality_is_a_field_not_a_position() -> None:
    """Published: even rows are one modality, odd rows the other, in equal numbers."""
    rollouts = [
        rollout("q", "text", 0, ONE),
        rollout("q", "text", 1, ONE),
        rollout("q", "speech", 0, TWO),
        rollout("q", "text", 2, ONE),
        rollout("q", "speech", 1, ONE),
    ]
    result = TARSReward(TARSConfig(beta=0))(rollouts)
    assert result.valid["representation"].tolist() == [False, False, True, False, True]
    assert result.components["representation"].tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_one_reference_for_both_terms_and_it_is_recorded() -> None:
    """Published: each term draws its own, in turn."""
    rollouts = [rollout("q", "text", n, np.eye(4, dtype=np.float32)[n][None], embedding=np.eye(4)[n]) for n in range(4)]
    mark = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    rollouts += [rollout("q", "speech", n, mark[None], embedding=mark) for n in range(30)]
    result = TARSReward()(rollouts)
    norm = float(np.linalg.norm(mark))
    for index in range(4, 34):
        expected = pytest.approx(float(mark[result.reference[index]]) / norm, abs=1e-6)
        assert result.components["representation"][index].item() == expected
        assert result.components["behavior"][index].item() == expected
    counts = Counter(result.reference[4:].tolist())
    assert max(counts.values()) - min(counts.values()) > 1  # drawn, not dealt out in turn


def test_format_is_strict_and_weighs_one_half() -> None:
    """Published: weight 1.0, values {0, .5, 1}, a loose pattern that finds the block anywhere."""
    reward = TARSReward(TARSConfig(alpha=0, beta=0))
    block = "<think>so</think><answer>The answer is B.</answer>"
    assert reward.base(block, "B").reward == 1.5
    assert reward.base("Sure! " + block, "B").reward == 1.0
    assert reward.base(block + block, "B").reward == 0.0
    assert reward.base("<think>so</think> The answer is B", "B").reward == 0.0  # no half marks


def test_an_unscorable_row_is_absent_and_shifts_nobody() -> None:
    """Published: an empty slice is NaN, which reaches all text rows and is hidden by nansum."""
    rollouts = [
        rollout("q", "speech", 0, ONE),
        replace(rollout("q", "speech", 1, ONE, truncated=True), completion="", hidden_states=ONE * np.nan),
        rollout("q", "text", 0, ONE),
    ]
    result = TARSReward(TARSConfig(beta=0))(rollouts)
    assert torch.isfinite(result.total).all()
    assert result.total.tolist() == [2.0, 1.0, 1.0]
    assert result.valid["representation"].tolist() == [True, False, False]
    assert result.metrics["tars/representation/speech/mean"] == 1.0  # over one rollout, not over two
    assert result.metrics["tars/representation/speech/count"] == 1
    with pytest.raises(HiddenStatesError, match="NaN"):  # NaN where there is something to score is an error
        TARSReward(TARSConfig(beta=0))([replace(rollouts[0], hidden_states=ONE * np.nan), rollouts[2]])


def test_layers_are_those_of_the_model() -> None:
    """Published: layers 1 to 32, whatever the model."""
    states = np.stack([np.concatenate([ONE, TWO]), np.concatenate([ONE, THREE])])
    rollouts = [rollout("q", "speech", 0, states[0]), rollout("q", "text", 0, states[1])]
    assert TARSReward(TARSConfig(beta=0))(rollouts).components["representation"][0] == 0.5
    assert TARSReward(TARSConfig(beta=0, layers=[0]))(rollouts).components["representation"][0] == 1.0
    with pytest.raises(LayerSelectionError):
        TARSReward(TARSConfig(beta=0, layers=list(range(32))))(rollouts)


def test_each_distinct_text_is_embedded_once(tools: SimpleNamespace) -> None:
    """Published: one encode() a string, references again for every row that uses them."""
    embedder = tools.HashEmbedder()
    rollouts = [Rollout("q", "speech", n, f"heard {n % 3}", correct=True) for n in range(12)]
    rollouts += [Rollout("q", "text", 0, "read", correct=True)]
    TARSReward(TARSConfig(alpha=0), embedder=embedder)(rollouts)
    assert embedder.calls == [["read", "heard 0", "heard 1", "heard 2"]]


def test_bad_data_is_an_error_not_a_wrong_answer() -> None:
    """Published: any exception while the answer is read scores as wrong."""
    with pytest.raises(RolloutError):
        TARSReward(TARSConfig(alpha=0, beta=0))([Rollout("q", "text", completion="x", answer=None)])
    with pytest.raises(RolloutError):
        TARSReward(TARSConfig(alpha=0, beta=0))([Rollout("q", "text", completion=None, answer="B")])
