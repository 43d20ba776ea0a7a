import math

import pytest
import torch

from tars_rewards.errors import AdapterError, IncompletePairError
from tars_rewards_verl.guards import check_rollout_kl, check_rows, k3_kl, rollout_kl_limit

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


def test_k3_is_the_mean_of_its_definition():
    rollout, actor = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    expected = sum(math.exp(a - r) - (a - r) - 1 for r, a in zip(rollout.tolist(), actor.tolist(), strict=True)) / 2
    assert k3_kl([rollout[:1], rollout[1:]], [actor[:1], actor[1:]]) == pytest.approx(expected, rel=1e-9)
    assert k3_kl([rollout], [rollout]) == 0


def test_k3_agrees_with_verl():
    from verl.trainer.ppo.rollout_corr_helper import compute_offpolicy_metrics

    generator = torch.Generator().manual_seed(0)
    rollout = -torch.rand(3, 5, generator=generator)
    actor = rollout + 0.1 * torch.randn(3, 5, generator=generator)
    theirs = compute_offpolicy_metrics(actor, rollout, torch.ones(3, 5))["k3_kl"]
    assert k3_kl(list(rollout), list(actor)) == pytest.approx(theirs, rel=1e-4)


def test_limits_by_dtype():
    assert rollout_kl_limit(None, "float32") == 1e-4
    assert rollout_kl_limit(None, "bfloat16") == 2e-2
    assert rollout_kl_limit(0.5, "float32") == 0.5


def test_a_lost_push_or_silenced_audio_stops_the_run_in_a_sentence():
    with pytest.raises(AdapterError, match=r"step 3: .*speech 3\.60e-02.*audio lost"):
        check_rollout_kl({"speech": 3.6e-2, "text": 0.0}, 1e-4, 3)
    check_rollout_kl({"speech": 5e-6, "text": 0.0}, 1e-4, 3)
    check_rollout_kl({"speech": 5.0, "text": 0.0}, 0, 3)


def test_nan_is_not_below_the_limit():
    with pytest.raises(AdapterError, match="disagree"):
        check_rollout_kl({"speech": float("nan")}, 1e-4, 1)
