import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial import distance

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.errors import EmbedderFailedError, EmbeddingError

quick = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Untouchable:
    """An input of a term that is switched off."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"touched .{name}")


class UntouchableEmbedder:
    max_tokens = math.inf

    def encode(self, texts: list[str]) -> np.ndarray:
        raise AssertionError("the embedder was called")


def by_identity(rollouts: list[Rollout], result) -> dict:
    """What came out for each rollout, by who it is: numbers, validity, its reference's sample."""
    outcome = {}
    for index, rollout in enumerate(rollouts):
        reference = result.reference[index].item()
        outcome[rollout.pair_id, rollout.modality, rollout.sample_id] = (
            [result.total[index].item(), *(values[index].item() for values in result.components.values())],
            [values[index].item() for values in result.valid.values()],
            None if reference < 0 else rollouts[reference].sample_id,
        )
    return outcome


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for identity, (numbers, valid, reference) in first.items():
        assert numbers == pytest.approx(second[identity][0], abs=1e-5)
        assert (valid, reference) == second[identity][1:]


@quick
@given(st.integers(0, 500), st.floats(0, 2), st.floats(0, 2), st.floats(0, 1))
def test_the_whole_reward_against_an_oracle(
    tools: SimpleNamespace, seed: int, alpha: float, beta: float, weight: float
):
    """Every rollout by itself, in plain Python and scipy, from the result's own choice of references."""
    rollouts = tools.make_batch(seed, targets=3, anchors=2)
    config = TARSConfig(alpha=alpha, beta=beta, format_weight=weight)
    result = TARSReward(config, embedder=tools.HashEmbedder())(rollouts, step=seed)
    for index, rollout in enumerate(rollouts):
        correct = "is B." in rollout.completion
        expected = correct + weight
        reference = result.reference[index].item()
        pool = [
            n
            for n, other in enumerate(rollouts)
            if (other.pair_id, other.modality) == (rollout.pair_id, "text") and "is B." in other.completion
        ]
        if rollout.modality == "speech" and pool:
            assert reference in pool
            other = rollouts[reference]
            rep = np.mean(
                [
                    1 - distance.cosine(a, b)
                    for a, b in zip(rollout.hidden_states.astype(float), other.hidden_states, strict=True)
                ]
            )
            beh = 1 - distance.cosine(*tools.HashEmbedder().encode([rollout.completion, other.completion]))
            expected += alpha * rep + beta * beh
            assert bool(result.valid["representation"][index]) == (alpha > 0)
            assert bool(result.valid["behavior"][index]) == (beta > 0)
        else:
            assert reference == -1
            assert not result.valid["representation"][index]
            assert not result.valid["behavior"][index]
        assert result.total[index].item() == pytest.approx(expected, abs=1e-5)


@quick
@given(st.integers(0, 500), st.randoms(use_true_random=False), st.booleans())
def test_permutation(tools: SimpleNamespace, seed: int, shuffler: random.Random, center: bool) -> None:
    rollouts = tools.make_batch(seed, targets=3, anchors=2)
    shuffled = shuffler.sample(rollouts, len(rollouts))
    config = TARSConfig(center=center)
    first = TARSReward(config, embedder=tools.HashEmbedder())(rollouts, step=seed)
    second = TARSReward(config, embedder=tools.HashEmbedder())(shuffled, step=seed)
    assert_same(by_identity(rollouts, first), by_identity(shuffled, second))
    for name, value in first.metrics.items():
        assert name.startswith("tars/seconds/") or second.metrics[name] == pytest.approx(value, abs=1e-6)


@quick
@given(st.integers(0, 500), st.integers(1, 4), st.booleans())
def test_sharding_by_pair(tools: SimpleNamespace, seed: int, ranks: int, center: bool) -> None:
    rollouts = tools.make_batch(seed, pairs=5)
    config = TARSConfig(center=center)
    whole = by_identity(rollouts, TARSReward(config, embedder=tools.HashEmbedder())(rollouts, step=3))
    parts = {}
    for rank in range(ranks):
        shard = [rollout for rollout in rollouts if int(rollout.pair_id[1:]) % ranks == rank]
        parts.update(by_identity(shard, TARSReward(config, embedder=tools.HashEmbedder())(shard, step=3)))
    assert_same(parts, whole)


def test_result_shapes_and_types(tools: SimpleNamespace) -> None:
    rollouts = tools.make_batch(0, pairs=2, layers=4)
    result = TARSReward(TARSConfig(layers="last", return_layers=True), embedder=tools.HashEmbedder())(rollouts)
    assert result.total.dtype == torch.float32
    assert result.reference.dtype == torch.int64
    assert list(result.components) == list(result.valid) == ["accuracy", "format", "representation", "behavior"]
    assert all(values.dtype == torch.float32 for values in result.components.values())
    assert all(values.dtype == torch.bool for values in result.valid.values())
    assert all(values.shape == (16,) for values in (result.total, result.reference, *result.components.values()))
    assert all(name.startswith("tars/") and math.isfinite(value) for name, value in result.metrics.items())
    assert result.layer_similarity.shape == (16, 2)
    assert torch.allclose(result.layer_similarity.mean(1), result.components["representation"])
    assert TARSReward(embedder=tools.HashEmbedder())(rollouts).layer_similarity is None


def test_alpha_zero_leaves_hidden_states_alone(tools: SimpleNamespace) -> None:
    rollouts = [replace(rollout, hidden_states=Untouchable()) for rollout in tools.make_batch(0)]
    config = TARSConfig(alpha=0, return_layers=True, layers=[99])
    result = TARSReward(config, embedder=tools.HashEmbedder())(rollouts)
    assert not result.valid["representation"].any()
    assert result.valid["behavior"].any()
    assert result.layer_similarity is None
    with pytest.raises(AssertionError, match="touched"):  # the guard itself works
        TARSReward(TARSConfig(), embedder=tools.HashEmbedder())(rollouts)


def test_beta_zero_asks_no_embedder(tools: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    import tars_rewards.embedding as embedding

    def built(*_: object, **__: object) -> None:
        raise AssertionError("an embedder was built")

    monkeypatch.setattr(embedding, "SentenceTransformerEmbedder", built)
    rollouts = [replace(rollout, embedding=Untouchable()) for rollout in tools.make_batch(0)]
    for embedder in (None, UntouchableEmbedder()):
        result = TARSReward(TARSConfig(beta=0), embedder=embedder)(rollouts)
        assert result.valid["representation"].any()
        assert not result.valid["behavior"].any()
    with pytest.raises(AssertionError, match="an embedder was built"):
        TARSReward(TARSConfig())(tools.make_batch(0))
    with pytest.raises(EmbedderFailedError, match="AssertionError: the embedder was called"):
        TARSReward(TARSConfig(), embedder=UntouchableEmbedder())(tools.make_batch(0))


def test_both_off_is_standard_rl_and_still_records_the_reference(tools: SimpleNamespace) -> None:
    rollouts = tools.make_batch(0)
    bare = TARSReward(TARSConfig(alpha=0, beta=0))(rollouts)
    full = TARSReward(embedder=tools.HashEmbedder())(rollouts)
    assert torch.equal(bare.total, bare.components["accuracy"] + 0.5 * bare.components["format"])
    assert torch.equal(bare.reference, full.reference)  # the draw does not depend on the weights


def test_without_a_correct_anchor_the_total_is_the_base_reward(tools: SimpleNamespace) -> None:
    rollouts = [replace(r, correct=False) if r.modality == "text" else r for r in tools.make_batch(0)]
    embedder = tools.HashEmbedder()
    result = TARSReward(embedder=embedder)(rollouts)
    assert (result.reference == -1).all()
    assert not result.valid["representation"].any()
    assert torch.equal(result.total, result.components["accuracy"] + 0.5 * result.components["format"])
    assert result.metrics["tars/pairs/without_reference"] == 1.0
    assert embedder.calls == []


def test_given_verdicts_choose_the_references(tools: SimpleNamespace) -> None:
    rollouts = [replace(r, answer=None, correct=r.sample_id == 2) for r in tools.make_batch(0)]
    result = TARSReward(embedder=tools.HashEmbedder())(rollouts)
    assert {rollouts[i].sample_id for i in result.reference.tolist() if i >= 0} == {2}
    assert result.components["accuracy"].tolist() == [float(r.sample_id == 2) for r in rollouts]


def test_empty_completions_have_no_alignment_and_are_no_reference(tools: SimpleNamespace) -> None:
    state = np.ones((2, 3), np.float32)
    rollouts = [
        Rollout("q", "speech", completion="", correct=False),
        Rollout("q", "speech", completion="heard", correct=True, hidden_states=state),
        Rollout("q", "text", completion=" ", correct=True),
    ]
    reward = TARSReward(embedder=tools.HashEmbedder())
    assert reward(rollouts).reference.tolist() == [-1, -1, -1]
    result = reward([*rollouts, Rollout("q", "text", completion="read", correct=True, hidden_states=state)])
    assert result.reference.tolist() == [-1, 3, -1, -1]
    assert result.valid["behavior"].tolist() == [False, True, False, False]
    assert result.total[0] == 0


def test_truncated(tools: SimpleNamespace) -> None:
    rollouts = [replace(r, truncated=r.sample_id < 2, correct=True) for r in tools.make_batch(0)]
    kept = TARSReward(embedder=tools.HashEmbedder())(rollouts)
    assert kept.components["format"].tolist() == [float(r.sample_id >= 2) for r in rollouts]
    assert kept.valid["representation"].tolist() == [r.modality == "speech" for r in rollouts]
    assert any(rollouts[i].truncated for i in kept.reference.tolist() if i >= 0)
    states = [replace(r, hidden_states=None) if r.truncated else r for r in rollouts]
    left_out = TARSReward(TARSConfig(skip_truncated=True), embedder=tools.HashEmbedder())(states)
    assert left_out.valid["representation"].tolist() == [r.modality == "speech" and not r.truncated for r in rollouts]
    assert not any(rollouts[i].truncated for i in left_out.reference.tolist() if i >= 0)


def test_one_reference_for_all_terms(tools: SimpleNamespace) -> None:
    """States and embeddings name their rollout: both terms must have met the recorded one."""
    eye = np.eye(8, dtype=np.float32)
    rollouts = [
        Rollout("q", "text", n, "x", correct=True, hidden_states=eye[n][None], embedding=eye[n]) for n in range(8)
    ]
    rng = np.random.default_rng(0)
    for sample in range(40):
        mine = rng.random(8).astype(np.float32)
        rollouts.append(Rollout("q", "speech", sample, "y", correct=True, hidden_states=mine[None], embedding=mine))
    result = TARSReward(TARSConfig(embedder="never loaded"))(rollouts)
    assert torch.allclose(result.components["representation"], result.components["behavior"])
    for index in range(8, 48):
        mine, reference = rollouts[index].embedding, result.reference[index].item()
        assert result.components["behavior"][index].item() == pytest.approx(
            mine[reference] / np.linalg.norm(mine), abs=1e-6
        )
    assert set(result.reference[8:].tolist()) == set(range(8))


def test_references_are_drawn_anew_each_step(tools: SimpleNamespace) -> None:
    rollouts = tools.make_batch(0, right=1.0, pairs=8)
    reward = TARSReward(TARSConfig(alpha=0, beta=0))
    assert torch.equal(reward(rollouts, step=1).reference, reward(rollouts, step=1).reference)
    assert not torch.equal(reward(rollouts, step=1).reference, reward(rollouts, step=2).reference)
    other = TARSReward(TARSConfig(alpha=0, beta=0, seed=1))
    assert not torch.equal(reward(rollouts, step=1).reference, other(rollouts, step=1).reference)


def test_sample_ids_default_to_the_order_of_appearance(tools: SimpleNamespace) -> None:
    rollouts = tools.make_batch(0)
    unnamed = [replace(rollout, sample_id=None) for rollout in rollouts]
    reward = TARSReward(embedder=tools.HashEmbedder())
    assert torch.equal(reward(rollouts).total, reward(unnamed).total)


def test_base_is_the_same_as_in_the_batch(tools: SimpleNamespace) -> None:
    rollouts = tools.make_batch(0)
    reward = TARSReward(TARSConfig(alpha=0, beta=0, format_weight=0.3))
    scores = [reward.base(rollout.completion, rollout.answer) for rollout in rollouts]
    assert reward(rollouts).total.tolist() == pytest.approx([score.reward for score in scores])
    assert reward.base(rollouts[0].completion, "B", truncated=True).format is False


def test_embed_then_score_equals_scoring(tools: SimpleNamespace) -> None:
    """What a framework does: embed while others generate, hand the vectors in later."""
    rollouts = tools.make_batch(0)
    expected = TARSReward(embedder=tools.HashEmbedder())(rollouts)
    vectors = TARSReward(embedder=tools.HashEmbedder()).embed([rollout.completion for rollout in rollouts])
    assert vectors.dtype == np.float32
    handed = [replace(rollout, embedding=vector) for rollout, vector in zip(rollouts, vectors, strict=True)]
    assert torch.equal(TARSReward(embedder=UntouchableEmbedder())(handed).total, expected.total)


def test_embed_strips_tags_and_takes_nothing(tools: SimpleNamespace) -> None:
    embedder = tools.HashEmbedder()
    reward = TARSReward(TARSConfig(strip_tags=True), embedder=embedder)
    reward.embed(["<think>so</think>"])
    assert embedder.calls == [["so"]]
    assert reward.embed([]).shape[0] == 0
    with pytest.raises(EmbeddingError, match="one str"):
        reward.embed("so")


def test_disk_cache_spares_the_embedder(tools: SimpleNamespace, tmp_path) -> None:
    config = TARSConfig(embedding_cache=tmp_path)
    rollouts = tools.make_batch(0)
    first = TARSReward(config, embedder=tools.HashEmbedder())(rollouts)
    silent = UntouchableEmbedder()
    silent.model_id = "hash"
    assert torch.equal(TARSReward(config, embedder=silent)(rollouts).total, first.total)
    silent.model_id = "another"
    with pytest.raises(EmbedderFailedError, match="AssertionError: the embedder was called"):
        TARSReward(config, embedder=silent)(rollouts)
