"""The real training loop of OpenRLHF on CPU cores: text and audio, what it computes, and what stops it."""

import ast
import re

import pytest
import torch
from launch import HERE, run_openrlhf
from tiny_models import AUDIO, VISION
from transformers import AutoTokenizer
from truth import check_advantages, hf_forward, largest, load_step

pytestmark = [pytest.mark.openrlhf, pytest.mark.training]

CLASSES = {
    "qwen2_audio": "Qwen2AudioForConditionalGeneration",
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
}
FAMILIES = pytest.mark.parametrize("name", CLASSES)
BF16 = 2e-2  # log-probs and states of a bfloat16 model by two ways of batching


def train(directory, tiny, model, *, replay=None, sabotage=None, overrides=None, **kwargs):
    environment = {"RECORD": str(directory)}
    environment |= {"REPLAY": str(replay), "STEPS": str(kwargs["steps"])} if replay else {}
    environment |= {"SABOTAGE": sabotage} if sabotage else {}
    return run_openrlhf(
        directory,
        model=model if hasattr(model, "parts") else tiny / model,
        data=tiny / ("text.parquet" if model == "text" else "audio.parquet"),
        overrides=overrides,
        environment=environment,
        program=[str(HERE / "recording.py")],
        **kwargs,
    )


def load(name, directory, dtype=torch.bfloat16):
    import transformers

    cls = "AutoModelForCausalLM" if name == "text" else CLASSES[name]
    return getattr(transformers, cls).from_pretrained(directory, dtype=dtype).eval()


# ---- text: pairs, evaluation, and what else a user may switch on


@pytest.fixture(scope="module")
def text_run(tiny, tmp_path_factory):
    overrides = {
        "eval.dataset": tiny / "text.parquet",
        "eval.steps": 3,
        "eval.n_samples_per_prompt": 2,
        "eval.temperature": 1.0,
        "algo.kl.init_coef": 0.001,
        "algo.kl.use_loss": True,
        "algo.kl.estimator": "k3",
        "data.max_samples": 12,
    }
    return train(tmp_path_factory.mktemp("text") / "run", tiny, "text", steps=3, overrides=overrides).check()


def test_every_step_has_whole_pairs_in_order(text_run):
    assert [step["step"] for step in text_run.steps] == [1, 2, 3]
    for step in (1, 2, 3):
        found = list(load_step(text_run.directory, step))
        pairs = sorted({pair for pair, _, _ in found})
        assert len(pairs) == 2
        assert found == [(p, m, s) for p in pairs for m in ("speech", "text") for s in range(2)]


def test_advantages_are_the_papers(text_run):
    for step in (1, 2, 3):
        check_advantages(load_step(text_run.directory, step))


def test_states_and_log_probs_of_the_first_step_are_those_of_a_plain_forward(text_run, tiny):
    model = load("text", tiny / "text")
    for row in load_step(text_run.directory, 1).values():
        pooled, log_probs = hf_forward(model, row)
        assert largest(pooled, row.pooled) < BF16
        assert largest(log_probs, row.actor_log_probs) < BF16


def test_vllm_and_the_actor_agree_after_every_push(text_run):
    assert largest(
        load_step(text_run.directory, 1).popitem()[1].pooled, load_step(text_run.directory, 3).popitem()[1].pooled
    )
    for step in text_run.steps:
        assert max(step["tars/rollout_k3_kl/speech"], step["tars/rollout_k3_kl/text"]) < 1e-4
    assert text_run.steps[2]["kl"] > 0  # the policy has moved away from the reference


def test_text_rows_never_get_alignment_and_every_term_is_logged_by_modality(text_run):
    for step in text_run.steps:
        for term in ("accuracy", "format", "total"):
            assert step[f"tars/{term}/speech/count"] == step[f"tars/{term}/text/count"] == 4
        assert "tars/representation/text/mean" not in step
    for (_, modality, _), row in load_step(text_run.directory, 1).items():
        assert modality == "speech" or row.reward in (0.25, 1.0)
    assert "speech = accuracy + 0.5 x format + 1 x representation (layers all) + 1 x behavior" in text_run.log


def test_evaluation_reports_the_gap(text_run):
    logs = ast.literal_eval(re.search(r"eval_metrics: (\{.*\})", text_run.log)[1])
    assert logs["eval_num_samples"] == 24
    assert logs["tars/speech_n"] == logs["tars/text_n"] == 12
    assert logs["tars/gap"] == pytest.approx(logs["tars/text_accuracy"] - logs["tars/speech_accuracy"])
    assert {"tars/mrr", "tars/own_text_ratio"} <= logs.keys()
    assert 0 < logs["eval_default_pass1"] <= 1


VARIANTS = {
    "packed, dynamic batches": {
        "train.dynamic_batch_enable": True,
        "rollout.max_tokens_per_gpu": 100,
        "train.max_tokens_per_gpu": 100,
    },
    # One rank: on two, DeepSpeed's CPU backend loads some weights wrong every other time, with stock OpenRLHF alone.
    "ZeRO-3, checkpointing": {"ds.zero_stage": 3, "actor.gradient_checkpointing_enable": True},
    "ZeRO-2, packed, two ranks": {
        "ds.zero_stage": 2,
        "ds.packing_samples": True,
        "actor.num_gpus_per_node": 2,
        "rollout.micro_batch_size": 2,
        "train.micro_batch_size": 2,
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_rollouts_get_the_same_rewards(text_run, tiny, tmp_path, variant):
    run = train(tmp_path, tiny, "text", steps=2, replay=text_run.directory, overrides=VARIANTS[variant]).check()
    assert [step["step"] for step in run.steps] == [1, 2]
    plain, other = load_step(text_run.directory, 1), load_step(tmp_path, 1)
    assert plain.keys() == other.keys()
    for identity, row in plain.items():
        assert torch.equal(row.ids, other[identity].ids)
        assert largest(row.pooled, other[identity].pooled) < BF16
        assert other[identity].reward == pytest.approx(row.reward, abs=2e-3)
    check_advantages(other)


# ---- audio


@pytest.fixture(scope="module")
def audio_runs(tiny, tmp_path_factory):
    runs = {}

    def run_of(name):
        if name not in runs:
            overrides = {
                "actor.freeze_visual_encoder": True,
                "algo.kl.init_coef": 0.001,
                "algo.kl.use_loss": True,
                "algo.kl.estimator": "k3",
            }
            runs[name] = train(tmp_path_factory.mktemp(name) / "run", tiny, name, steps=3, overrides=overrides).check()
        return runs[name]

    return run_of


@FAMILIES
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
        assert largest(pooled, row.pooled) < BF16
        for engine in (row.actor_log_probs, row.rollout_log_probs):
            assert largest(log_probs, engine) < 2 * BF16
        if spoken:
            silent, silent_log_probs = hf_forward(model, row, ban=banned, silence=True)
            assert largest(silent, row.pooled) > 2 * BF16
            assert largest(silent_log_probs, row.actor_log_probs) > 2 * BF16


@FAMILIES
def test_a_saved_checkpoint_loads_in_hugging_face_and_in_vllm(audio_runs, tiny, tmp_path, name):
    first = audio_runs(name).directory / "out"
    model = load(name, first)
    # vLLM loads the checkpoint by itself; the guard compares its log-probs with the actor's before any push.
    again = train(tmp_path, tiny, first, steps=1).check()
    assert max(again.steps[0]["tars/rollout_k3_kl/speech"], again.steps[0]["tars/rollout_k3_kl/text"]) < 1e-3
    for row in load_step(tmp_path, 1).values():
        assert largest(hf_forward(model, row)[0], row.pooled) < BF16


def test_two_ranks_of_which_one_may_have_no_audio(audio_runs, tiny, tmp_path):
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
        assert found[identity].reward == pytest.approx(row.reward, abs=2e-3)


# ---- what stops a run


def test_audio_lost_on_its_way_to_vllm_stops_the_run(tiny, tmp_path):
    limit = {"tars.max_rollout_kl": 1e-4}  # a random model hardly listens
    run = train(tmp_path, tiny, "qwen2_5_omni", steps=1, sabotage="silence", overrides=limit)
    assert run.returncode not in (0, None)
    assert "disagree about the completions of speech:" in run.log


def test_lost_pushes_stop_the_run(tiny, tmp_path):
    run = train(tmp_path, tiny, "text", steps=3, sabotage="push")
    assert run.returncode not in (0, None)
    assert "disagree about the completions of speech and text:" in run.log


def test_a_failing_reward_function_stops_the_run_with_its_own_traceback(tiny, tmp_path):
    run = train(tmp_path, tiny, "text", steps=1, overrides={"reward.remote_url": HERE / "failing_reward.py"})
    assert run.returncode not in (0, None)
    assert "no rubric for" in run.log
    assert "failing_reward.py" in run.log


def test_without_a_reward_function_completions_earn_accuracy_and_format(tiny, tmp_path):
    run = train(tmp_path, tiny, "text", steps=1, overrides={"reward.remote_url": None, "tars.beta": 0}).check()
    assert run.steps[0]["tars/total/text/mean"] == 0  # a random model never answers
    assert "no behavior" in run.log
