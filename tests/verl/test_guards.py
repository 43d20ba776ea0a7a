import pytest
import torch

from tars_rewards.errors import AdapterError, IncompletePairError
from tars_rewards.integration.rollout_kl import rollout_kl
from tars_rewards_verl.guards import check_rows

PROMPTS = {"u": ("q1", "speech"), "v": ("q1", "text")}
COMPLETE = [f"{uid}_{sample}_0" for uid in PROMPTS for sample in range(2)]


def test_complete_rows_pass():
    check_rows(COMPLETE, PROMPTS, 2)


def test_dropped_speech_rollouts_are_counted_and_named():
    with pytest.raises(IncompletePairError, match=r"1 speech completions are missing \(first: pair 'q1', speech\)"):
        check_rows(COMPLETE[1:], PROMPTS, 2)


def test_a_prompt_without_any_rollout_is_missing_not_ignored():
    with pytest.raises(IncompletePairError, match="2 speech"):
        check_rows(COMPLETE[2:], PROMPTS, 2)


def test_rows_of_another_step_are_refused():
    with pytest.raises(IncompletePairError, match="not of this step"):
        check_rows([*COMPLETE, "w_0_0"], PROMPTS, 2)


def test_several_outputs_of_one_sample_are_refused():
    with pytest.raises(AdapterError, match="single output"):
        check_rows(["u_0_1", *COMPLETE], PROMPTS, 2)


def test_the_cores_k3_agrees_with_verls():
    from verl.trainer.ppo.rollout_corr_helper import compute_offpolicy_metrics

    generator = torch.Generator().manual_seed(0)
    rollout = -torch.rand(3, 5, generator=generator)
    actor = rollout + 0.1 * torch.randn(3, 5, generator=generator)
    theirs = compute_offpolicy_metrics(actor, rollout, torch.ones(3, 5))["k3_kl"]
    assert rollout_kl(["speech"] * 3, list(rollout), list(actor))["speech"] == pytest.approx(theirs, rel=1e-4)
