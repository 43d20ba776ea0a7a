"""The guard against lost weight pushes and silenced audio."""

import math

import pytest
import torch

from tars_rewards.errors import AdapterError
from tars_rewards.integration.rollout_kl import check_rollout_kl, rollout_kl, rollout_kl_limit

SETTING = "reward.custom_kwargs.max_rollout_kl"


def test_k3_is_the_mean_of_its_definition_by_modality():
    rollout, actor = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    expected = sum(math.exp(a - r) - (a - r) - 1 for r, a in zip(rollout.tolist(), actor.tolist(), strict=True)) / 2
    kl = rollout_kl(["speech", "text", "speech"], [rollout[:1], rollout, rollout[1:]], [actor[:1], rollout, actor[1:]])
    assert kl == {"speech": pytest.approx(expected, rel=1e-9), "text": 0}


def test_limits_by_dtype():
    assert rollout_kl_limit(None, "float32") == 1e-4
    assert rollout_kl_limit(None, "bfloat16") == 2e-2
    assert rollout_kl_limit(0.5, "float32") == 0.5


def test_a_lost_push_or_silenced_audio_stops_the_run_in_a_sentence():
    with pytest.raises(
        AdapterError, match=r"step 3: .*completions of speech: k3 KL speech 3\.60e-02.*raise reward\.custom"
    ):
        check_rollout_kl({"speech": 3.6e-2, "text": 0.0}, 1e-4, step=3, setting=SETTING)
    check_rollout_kl({"speech": 5e-6, "text": 0.0}, 1e-4, step=3, setting=SETTING)
    check_rollout_kl({"speech": 5.0, "text": 0.0}, 0, step=3, setting=SETTING)


@pytest.mark.parametrize("order", [("speech", "text"), ("text", "speech")])
def test_nan_is_not_below_the_limit(order):
    kl = dict(zip(order, (0.0, float("nan")), strict=True))
    with pytest.raises(AdapterError, match="disagree"):
        check_rollout_kl(kl, 1e-4, step=1, setting=SETTING)
