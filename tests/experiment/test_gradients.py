"""Policy gradients, against one backward pass a rollout and reward."""

import pytest
import torch


@pytest.fixture(scope="module")
def policy(base):
    from policies import load_policy

    return load_policy(base)


def test_gradients_are_those_of_the_loss_written_out(policy):
    from gradients import policy_gradients
    from inference import embed
    from policies import trained_parameters

    thinker, processor = policy
    texts = ["first one", "and so the second", "Sunday", "the last of all"] * 5  # more than one micro batch
    completions = [[7 + index % 3, 9, 10 + index][: 1 + index % 3] for index in range(len(texts))]
    generator = torch.Generator().manual_seed(0)
    standard, first, second = torch.randn(3, len(texts), generator=generator, dtype=torch.float64)
    first[10:] = second[10:] = 0  # as of written completions
    advantage = {
        "standard": standard,
        "representation": standard + first,
        "behavior": standard + second,
        "tars": standard + first + second,
    }
    vectors, log_probs = policy_gradients(
        thinker, [embed(thinker, processor, text) for text in texts], completions, advantage
    )

    total = sum(map(len, completions))
    parameters = list(trained_parameters(thinker).values())
    for name, weights in advantage.items():
        thinker.zero_grad()
        for text, tokens, weight, found in zip(texts, completions, weights.tolist(), log_probs, strict=True):
            ids = processor.tokenizer(text).input_ids + tokens
            logits = thinker(input_ids=torch.tensor([ids])).logits[0, -len(tokens) - 1 : -1]
            log_prob = -torch.nn.functional.cross_entropy(logits, torch.tensor(tokens), reduction="none")
            torch.testing.assert_close(found, log_prob.detach(), atol=1e-4, rtol=1e-4)
            (-weight * log_prob.sum() / total).backward()
        expected = torch.cat([parameter.grad.flatten() for parameter in parameters]).double()
        assert float((vectors[name] - expected).norm() / expected.norm()) < 1e-4
    thinker.zero_grad()


def test_advantages_that_are_not_a_sum_are_refused(policy):
    from gradients import policy_gradients
    from inference import embed

    wrong = {
        name: torch.ones(1) * value
        for name, value in (("standard", 1.0), ("representation", 2.0), ("behavior", 3.0), ("tars", 3.0))
    }
    with pytest.raises(ValueError, match="two terms add"):
        policy_gradients(policy[0], [embed(*policy, "one")], [[7]], wrong)


def test_the_rewards_differ_by_the_terms_alone():
    import numpy as np
    from gradients import WEIGHTS, advantages, score

    from tars_rewards import Rollout

    generator = np.random.default_rng(0)
    rollouts = [
        Rollout(
            f"q{question}",
            modality,
            sample_id=sample,
            completion=f"<think>{question} {sample} words of a thought</think><answer>The answer is {'AB'[sample % 2]}.</answer>",
            answer="A",
            hidden_states=generator.normal(size=(4, 8)).astype(np.float32),
        )
        for question in range(3)
        for modality in ("speech", "text")
        for sample in range(4)
    ]
    rewards = score(rollouts, seed=0)
    assert rewards["standard"].total.tolist() == [1.5, 0.5] * 12
    found = advantages(rollouts, rewards)
    speech = torch.tensor([rollout.modality == "speech" for rollout in rollouts])
    for name, (alpha, beta) in WEIGHTS.items():
        terms = rewards["tars"].components
        total = rewards["standard"].total + alpha * terms["representation"] + beta * terms["behavior"]
        torch.testing.assert_close(rewards[name].total, total)
        assert torch.equal(found[name][~speech], found["standard"][~speech])
        by_group = total.double().unflatten(0, (6, 4))
        torch.testing.assert_close(found[name].unflatten(0, (6, 4)), by_group - by_group.mean(1, keepdim=True))


def test_a_checkpoints_gradients(base, data, heard_cache):
    from gradients import gradients

    found = gradients(base, data=data, heard_cache=heard_cache, questions=6)
    assert found["questions"] == 6
    assert found["cosine"]["standard"] == 1
    assert set(found["norm"]) == {"standard", "representation", "behavior", "tars"}
    assert min(found["norm"].values()) > 0
    assert all(-1 <= value <= 1 for value in found["cosine"].values())
    assert 0 < found["entropy"]["text"] < found["entropy"]["speech"]  # it is surer of what it reads
    assert 0 <= found["all_wrong"] <= 1
    assert found["spread/representation"] > 0
    assert gradients(base, data=data, heard_cache=heard_cache, questions=6) == found
