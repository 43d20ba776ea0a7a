"""The real training loop of OpenRLHF on CPU cores, on audio: it reaches policy, reference, engine and checkpoints."""

import pytest
import torch
from launch import train
from tiny_models import AUDIO, VISION
from transformers import AutoTokenizer
from truth import LOG_PROBS, STATES, apart, check_advantages, hf_forward, largest, load, load_step

pytestmark = [pytest.mark.openrlhf, pytest.mark.training]


@pytest.fixture(scope="module")
def audio_runs(tiny, tmp_path_factory):
    runs = {}

    def run_of(name):
        if name not in runs:
            overrides = {
                "actor.freeze_visual_encoder": True,
                "rollout.micro_batch_size": 2,
                "train.micro_batch_size": 2,
                "algo.kl.init_coef": 0.001,
                "algo.kl.use_loss": True,
                "algo.kl.estimator": "k3",
            }
            runs[name] = train(tmp_path_factory.mktemp(name) / "run", tiny, name, steps=3, overrides=overrides).check()
        return runs[name]

    return run_of


@pytest.mark.parametrize("name", ["qwen2_audio", "qwen2_5_omni"])
def test_audio_reaches_actor_and_engine(audio_runs, tiny, name):
    run = audio_runs(name)
    assert [step["step"] for step in run.steps] == [1, 2, 3]
    for step in run.steps:
        assert step["tars/total/speech/count"] == step["tars/total/text/count"] == 4
        assert max(step["tars/rollout_k3_kl/speech"], step["tars/rollout_k3_kl/text"]) < 1e-3
    assert run.steps[2]["kl"] > 0  # the reference hears too, and the policy has moved away from it
    rows = load_step(run.directory, 1)
    check_advantages(rows)
    model = load(name, tiny / name)
    placeholder = model.config.audio_token_index if name == "qwen2_audio" else model.config.audio_token_id
    reserved = AUDIO if name == "qwen2_audio" else {**AUDIO, **VISION}
    banned = AutoTokenizer.from_pretrained(tiny / name).convert_tokens_to_ids(list(reserved.values()))
    for (_, modality, _), row in rows.items():
        spoken = modality == "speech"
        assert bool((row.ids[~row.generated] == placeholder).any()) == spoken
        assert not torch.isin(row.ids[row.generated], torch.tensor(banned)).any()
        pooled, log_probs = hf_forward(model, row, ban=banned)
        assert apart(pooled, row.pooled) < STATES
        for engine in (row.actor_log_probs, row.rollout_log_probs):
            assert largest(log_probs, engine) < LOG_PROBS
        if spoken:
            silent, silent_log_probs = hf_forward(model, row, ban=banned, silence=True)
            assert apart(silent, row.pooled) > 2 * STATES
            assert largest(silent_log_probs, row.actor_log_probs) > 2 * LOG_PROBS


@pytest.mark.parametrize("name", [pytest.param("qwen2_audio", marks=pytest.mark.variant), "qwen2_5_omni"])
def test_a_saved_checkpoint_loads_in_hugging_face_and_in_vllm(audio_runs, tiny, tmp_path, name):
    first = audio_runs(name).directory / "out"
    model = load(name, first)
    # vLLM loads the checkpoint by itself; the guard compares its log-probs with the actor's before any push.
    again = train(tmp_path, tiny, first, steps=1).check()
    assert max(again.steps[0]["tars/rollout_k3_kl/speech"], again.steps[0]["tars/rollout_k3_kl/text"]) < 1e-3
    for row in load_step(tmp_path, 1).values():
        assert apart(hf_forward(model, row)[0], row.pooled) < STATES


def test_two_ranks_of_which_one_may_have_no_audio_are_one_process(audio_runs, tiny, tmp_path):
    plain = audio_runs("qwen2_5_omni")
    overrides = {
        "ds.zero_stage": 2,
        "actor.num_gpus_per_node": 2,
        "rollout.micro_batch_size": 2,
        "train.micro_batch_size": 2,
    }
    train(tmp_path, tiny, "qwen2_5_omni", steps=2, replay=plain.directory, overrides=overrides).check()
    expected, found = load_step(plain.directory, 1), load_step(tmp_path, 1)
    for identity, row in expected.items():
        assert torch.equal(found[identity].pooled, row.pooled)
        assert found[identity].reward == pytest.approx(row.reward, abs=1e-5)


@pytest.mark.variant
def test_lora_reaches_the_engine_and_the_checkpoint(tiny, tmp_path):
    overrides = {
        "ds.lora.rank": 8,
        "ds.lora.alpha": 32,
        "ds.zero_stage": 2,
        "actor.freeze_visual_encoder": True,
        "ckpt.save_steps": 1,
        "ckpt.save_hf": True,
    }
    run = train(tmp_path, tiny, "qwen2_5_omni", steps=2, overrides=overrides).check()
    for step in run.steps:
        assert max(step["tars/rollout_k3_kl/speech"], step["tars/rollout_k3_kl/text"]) < 1e-3
    before, after = (
        load("qwen2_5_omni", each) for each in (tiny / "qwen2_5_omni", tmp_path / "checkpoints/global_step1_hf")
    )
    banned = AutoTokenizer.from_pretrained(tiny / "qwen2_5_omni").convert_tokens_to_ids(
        [*AUDIO.values(), *VISION.values()]
    )
    for row in load_step(tmp_path, 2).values():
        (_, untrained), (pooled, log_probs) = (hf_forward(model, row, ban=banned) for model in (before, after))
        assert apart(pooled, row.pooled) < 5 * STATES  # merged weights are rounded, adapters are not
        for engine in (row.actor_log_probs, row.rollout_log_probs):
            assert largest(log_probs, engine) < 2 * LOG_PROBS
            assert largest(untrained, engine) > 4 * LOG_PROBS


def test_audio_lost_on_its_way_to_vllm_stops_the_run(tiny, tmp_path):
    # A random model hears little: 3e-2 when silenced, against 1e-6 of rounding and a limit of 2e-2 for models of any size.
    limit = {"tars.max_rollout_kl": 1e-3}
    run = train(tmp_path, tiny, "qwen2_audio", steps=1, sabotage="silence", overrides=limit)
    assert run.returncode not in (0, None)
    assert "disagree about the completions of speech:" in run.log
