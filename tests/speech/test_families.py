"""The registry of families, and which of them may be trained."""

import pickle

import pytest

from tars_rewards.errors import UnsupportedConfigError
from tars_rewards.speech.families import (
    LLAVA,
    QWEN2_5_OMNI,
    QWEN2_AUDIO,
    QWEN3_OMNI,
    TrainableFamily,
    find_family,
    find_trainable,
    known_families,
    trainable_of,
)


def test_a_family_is_found_by_the_checkpoint_and_by_the_part():
    assert find_family("qwen3_omni_moe") is find_family("qwen3_omni_moe_thinker") is QWEN3_OMNI
    assert find_family("llava") is LLAVA
    assert find_family("qwen2") is find_family(None) is None


def test_no_two_families_claim_one_model_type():
    claimed = [kind for each in known_families() for kind in {each.checkpoint_type, each.model_type}]
    assert len(claimed) == len(set(claimed))


def test_only_families_that_can_be_trained_are_found_for_training():
    assert find_trainable("qwen2_5_omni") is QWEN2_5_OMNI
    assert trainable_of("qwen2_audio") is QWEN2_AUDIO
    assert find_trainable("qwen3_omni_moe") is None
    assert {each.name for each in known_families() if isinstance(each, TrainableFamily)} == {
        "Qwen2-Audio",
        "Qwen2.5-Omni (Thinker)",
    }


def test_a_family_that_is_scored_only_is_refused_for_training_in_a_sentence():
    with pytest.raises(
        UnsupportedConfigError, match=r"Qwen3-Omni \(Thinker\), which can be scored only; .*: Qwen2-Audio"
    ):
        trainable_of("qwen3_omni_moe")
    with pytest.raises(UnsupportedConfigError, match=r"model_type qwen2\) is none of the supported Speech LLMs"):
        trainable_of("qwen2")


def test_records_go_to_other_processes():
    for family in known_families():
        assert pickle.loads(pickle.dumps(family)) == family
