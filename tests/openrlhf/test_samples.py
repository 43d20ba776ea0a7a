"""Completions in order, with pairs whole, whatever order vLLM finishes them in."""

import random

import pytest
import torch

from tars_rewards.errors import IncompletePairError
from tars_rewards_openrlhf import cpu
from tars_rewards_openrlhf.label import Label

cpu.install()
from openrlhf.trainer.ppo_utils.experience import Experience  # noqa: E402

from tars_rewards_openrlhf.samples import order  # noqa: E402


def completions(pairs=3, samples=2):
    """Groups of one prompt's samples, as OpenRLHF returns them."""
    return [
        [Experience(labels=[Label(f"q{pair}", modality, "4").dump()], prompts=[f"{number}"], info={}) for number in range(samples)]
        for pair in range(pairs)
        for modality in ("speech", "text")
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_arrival_gives_one_order(seed):
    groups = completions()
    random.Random(seed).shuffle(groups)
    found = order([each for group in groups for each in group], samples=2, prompts=6)
    labels = [Label.load(each.labels[0]) for each in found]
    assert [(label.pair_id, label.modality) for label in labels] == [
        (f"q{pair}", modality) for pair in range(3) for modality in ("speech", "text") for _ in range(2)
    ]
    assert torch.cat([each.info["tars_sample"] for each in found]).tolist() == [0, 1] * 6
    assert [each.prompts[0] for each in found] == ["0", "1"] * 6


def test_a_missing_completion_stops_the_run():
    groups = completions()
    groups[2].pop()
    with pytest.raises(
        IncompletePairError, match=r"expected 2 completions of each of 6 prompts, got 11.*'q1', 'speech'\): 1"
    ):
        order([each for group in groups for each in group], samples=2, prompts=6)


def test_a_lost_prompt_stops_the_run():
    with pytest.raises(IncompletePairError, match="of each of 6 prompts, got 10 of 5"):
        order([each for group in completions()[1:] for each in group], samples=2, prompts=6)


def test_half_a_pair_stops_the_run():
    with pytest.raises(IncompletePairError, match=r"1 questions of the batch have one prompt only \(first: 'q0'\)"):
        order([each for group in completions()[1:] for each in group], samples=2, prompts=5)
