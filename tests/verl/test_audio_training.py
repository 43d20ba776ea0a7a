"""The real training loop of verl on CPU cores, on audio: it reaches policy, engine and checkpoint, or the run stops."""

import pytest
import torch
from launch import train
from safetensors import safe_open
from tiny_models import AUDIO, VISION
from transformers import AutoTokenizer
from truth import check_advantages, hf_forward, identities, largest, load_step, pooled_of, rounding

pytestmark = [pytest.mark.verl, pytest.mark.training]


def audio_model(name, directory):
    import transformers

    cls = {
        "qwen2_audio": "Qwen2AudioForConditionalGeneration",
        "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    }
    return getattr(transformers, cls[name]).from_pretrained(directory, dtype=torch.float32).eval()


# On two ranks the other family is in test_distributed_training.py.
@pytest.mark.parametrize("name", [pytest.param("qwen2_5_omni", marks=pytest.mark.variant), "qwen2_audio"])
def test_audio_end_to_end(name, tiny, tmp_path):
    overrides = {
        "actor_rollout_ref.actor.freeze_vision_tower": True,
        "actor_rollout_ref.actor.checkpoint.save_contents": ["hf_model"],
        "trainer.save_freq": 2,
    }
    run = train(tmp_path / name, tiny, name, overrides=overrides).check()
    assert [step["step"] for step in run.steps] == [1, 2]
    for step in run.steps:
        assert step["tars/total/speech/count"] == step["tars/total/text/count"] == 4
        assert max(step["tars/rollout_k3_kl/speech"], step["tars/rollout_k3_kl/text"]) < 1e-4
    rows = load_step(run.directory, 1)
    check_advantages(rows)
    model = audio_model(name, tiny / name)
    placeholder = model.config.audio_token_index if name == "qwen2_audio" else model.config.audio_token_id
    # Neither engine may give these a probability: no features stand behind a sampled placeholder.
    reserved = AUDIO if name == "qwen2_audio" else {**AUDIO, **VISION}
    tokenizer = AutoTokenizer.from_pretrained(tiny / name)
    banned = tokenizer.convert_tokens_to_ids(list(reserved.values()))
    for i, (_, modality, _) in enumerate(identities(rows)):
        spoken = modality == "speech"
        assert bool((rows["prompts"][i] == placeholder).any()) == spoken
        assert not (rows["responses"][i] == placeholder).any()
        pooled, log_probs = hf_forward(model, rows, i, ban=banned)
        assert ((pooled - pooled_of(rows, i)).abs() < rounding(pooled) + 1e-5).all()
        for engine in ("old_log_probs", "rollout_log_probs"):  # the actor's and vLLM's
            assert largest(log_probs, rows[engine][i]) < 1e-4
        if spoken:
            silent, silent_log_probs = hf_forward(model, rows, i, ban=banned, silence=True)
            assert largest(silent, pooled) > 1e-3
            assert largest(silent_log_probs, log_probs) > 1e-3
    # The trained model is published as the base model is, so that vLLM loads it; the towers stayed, the rest did not.
    directory = run.directory / "checkpoints" / "global_step_2" / "actor" / "huggingface"
    written = "language_model.model.model.", "language_model.model."  # save_pretrained made the base of Qwen2-Audio
    assert names_in(directory) == {label.replace(*written) for label in names_in(tiny / name)}
    after = audio_model(name, directory).state_dict()
    moved = {label for label, tensor in model.state_dict().items() if not torch.equal(after[label], tensor)}
    assert moved
    assert not [label for label in moved if "tower" in label or "visual" in label]


def names_in(directory):
    with safe_open(directory / "model.safetensors", "pt") as file:
        return set(file.keys())


# ---- what stops a run


def test_audio_lost_on_its_way_to_vllm_stops_the_run(tiny, tmp_path):
    run = train(tmp_path / "silent", tiny, "qwen2_5_omni", steps=1, sabotage="silence")
    assert run.returncode not in (0, None)
    assert "the rollout engine and the actor disagree" in run.log
    assert "disagree about the completions of speech:" in run.log


@pytest.mark.variant
def test_placeholders_expanded_twice_stop_the_run(tiny, tmp_path):
    run = train(tmp_path / "expanded", tiny, "qwen2_5_omni", steps=1, sabotage="expand")
    assert run.returncode not in (0, None)
    assert "step 1: the rollout engine and the actor disagree about the completions of speech:" in run.log


def test_a_dropped_speech_rollout_stops_the_run(tiny, tmp_path):
    run = train(tmp_path / "dropped", tiny, "qwen2_5_omni", steps=1, sabotage="drop")
    assert run.returncode not in (0, None)
    assert "1 speech completions are missing" in run.log
    assert "the encoder ran out of memory" in run.log
