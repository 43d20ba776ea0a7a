"""Flags and settings: what is refused, and in what words; what the user need not set."""

import argparse
import dataclasses

import pytest

from tars_rewards.config import TARSConfig
from tars_rewards.errors import AdapterError, ConfigError, UnsupportedConfigError
from tars_rewards.integration import patching
from tars_rewards_openrlhf.cli import tars_settings
from tars_rewards_openrlhf.flags import OpenRLHFOptions, add_flags, read_flags
from tars_rewards_openrlhf.settings import OUR_REWARD, check_args, check_last_batch, prepare_args
from tars_rewards_openrlhf.stock import require_openrlhf

FINE = {
    "actor.model_name_or_path": None,
    "actor.num_nodes": 1,
    "algo.kl.init_coef": 0,
    "data.prompt_probs": None,
    "ref.num_gpus_per_node": 1,
    "ref.num_nodes": 1,
    "reward.model_name_or_path": None,
    "rollout.micro_batch_size": 4,
    "actor.num_gpus_per_node": 1,
    "algo.advantage.estimator": "dr_grpo",
    "algo.dynamic_filtering_enable": False,
    "ds.load_in_4bit": False,
    "ds.lora.rank": 0,
    "ds.packing_samples": False,
    "ds.ring_attn_size": 1,
    "ds.tensor_parallel_size": 1,
    "ds.use_liger_kernel": False,
    "ds.zero_stage": 2,
    "reward.remote_url": None,
    "rollout.batch_size": 4,
    "rollout.n_samples_per_prompt": 4,
    "rollout.vllm_generate_batch_size": None,
    "tars.run_log": None,
    "train.agent_func_path": None,
    "train.async_enable": False,
    "train.dynamic_batch_enable": False,
    "train.enable_ema": False,
    "vllm.num_engines": 1,
}


def args(tiny, model="text", **changes):
    return argparse.Namespace(**{**FINE, "actor.model_name_or_path": str(tiny / model), **changes})


def parsed(*flags):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return read_flags(tars_settings(parser.parse_args(flags)))


# ---- flags


def test_every_setting_has_a_flag_with_help_and_its_default(capsys):
    config, options = parsed()
    assert config == dataclasses.replace(TARSConfig(), embedder_device="cpu")
    assert options == OpenRLHFOptions()
    with pytest.raises(SystemExit):
        parsed("--help")
    help_text = capsys.readouterr().out
    for field in (*dataclasses.fields(TARSConfig), *dataclasses.fields(OpenRLHFOptions)):
        assert f"--tars.{field.name}" in help_text
    assert "Weight of the representation term, at least 0." in help_text


def test_flags_set_what_they_say():
    config, options = parsed(
        *("--tars.alpha", "0.5", "--tars.layers", "[0, -1]", "--tars.center", "--tars.embedder", "a/b"),
        *("--tars.embedder_device", "cuda:1", "--tars.max_rollout_kl", "0", "--tars.embedding_cache", "null"),
        *("--tars.embedder_dtype", "bfloat16"),
    )
    assert config.embedder_dtype == "bfloat16"
    assert (config.alpha, config.layers, config.center, config.embedder) == (0.5, (0, -1), True, "a/b")
    assert (config.embedder_device, config.embedding_cache, options.max_rollout_kl) == ("cuda:1", None, 0)
    assert parsed("--tars.layers", "[0.0, 0.5]")[0].layers == (0.0, 0.5)


def test_terms_of_ones_own_and_an_endpoint():
    from openrlhf.utils.config import hierarchize

    config, _ = parsed(
        *("--tars.terms", '{"own_terms:brevity": 0.5}', "--tars.embedder_url", "http://host:8000/v1"),
        *("--tars.on_embedder_failure", "invalid", "--tars.embedder_api_key_var", "MY_KEY"),
    )
    assert config.terms == (("own_terms:brevity", 0.5),)
    assert (config.embedder_url, config.embedder_api_key_var) == ("http://host:8000/v1", "MY_KEY")
    assert config.on_embedder_failure == "invalid"
    parser = argparse.ArgumentParser()
    add_flags(parser)
    nested = hierarchize(parser.parse_args(["--tars.terms", '{"own_terms:brevity": 0.5, "my.package:mine": 0}']))
    later, _ = read_flags(vars(nested.tars))  # as the trainer sees them
    assert later.terms == (("own_terms:brevity", 0.5), ("my.package:mine", 0.0))
    with pytest.raises(ConfigError, match=r"--tars\.…: terms names 'own_terms:brevty', and the module"):
        parsed("--tars.terms", '{"own_terms:brevty": 0.5}')


def test_a_bad_value_names_flag_and_value():
    with pytest.raises(ConfigError, match=r"--tars.*alpha must be a finite number of at least 0, got -1"):
        parsed("--tars.alpha=-1")


# ---- what cannot work


def test_a_configuration_that_can_work_is_left_alone(tiny):
    fine = args(tiny)
    check_args(fine)
    assert fine == args(tiny)
    for estimator in ("group_norm", "rloo"):
        check_args(args(tiny, **{"algo.advantage.estimator": estimator}))
    check_args(args(tiny, **{"ds.lora.rank": 8, "ds.zero_stage": 3}))
    check_args(args(tiny, **{"ds.packing_samples": True, "train.dynamic_batch_enable": True}))


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        ("text", {"train.async_enable": True}, "train.async_enable True: completions would be older"),
        ("text", {"algo.dynamic_filtering_enable": True}, "drops one prompt of a pair"),
        ("text", {"ds.ring_attn_size": 2}, "ring_attn_size 2: each rank would pool its part.*set it to 1"),
        ("text", {"ds.tensor_parallel_size": 2}, "spread over ranks.*zero_stage"),
        ("text", {"train.agent_func_path": "a.py"}, "base reward by --reward.remote_url"),
        ("text", {"vllm.num_engines": None}, "num_engines None.*set it to 1 or more"),
        ("text", {"ds.lora.rank": 8, "train.enable_ema": True}, "enable_ema True: with --ds.lora.rank.*leave it out"),
        (
            "text",
            {"ds.lora.rank": 8, "ds.load_in_4bit": True},
            "load_in_4bit True: with --ds.lora.rank.*no 4 bits hold",
        ),
        ("text", {"algo.advantage.estimator": "gae"}, "estimator gae.*take dr_grpo"),
        ("text", {"algo.advantage.estimator": "flash_reinforce"}, "mixes spoken and written"),
        ("text", {"algo.advantage.estimator": "reinforce_baseline"}, "mixes spoken and written"),
        ("text", {"rollout.n_samples_per_prompt": 1}, "set 2 or more"),
        ("text", {"reward.model_name_or_path": "rm"}, "reward model beside it.*serve it"),
        ("text", {"data.prompt_probs": "0.5,0.5"}, "repeats rows"),
        ("text", {"actor.num_gpus_per_node": 3}, "make 4 micro-batches of 4, which 3 ranks cannot share evenly"),
        (
            "qwen2_5_omni",
            {"ds.zero_stage": 3, "algo.kl.init_coef": 0.1, "ref.num_gpus_per_node": 2},
            "zero_stage 3.*set it to 2",
        ),
        ("text", {"rollout.batch_size": 3}, "batch_size 3: a batch counts prompts, two for a question.*even"),
        ("text", {"rollout.vllm_generate_batch_size": 5}, "vllm_generate_batch_size 5"),
        ("qwen2_audio", {"ds.packing_samples": True}, "packing_samples True: packed rows.*Qwen2-Audio"),
        ("qwen2_5_omni", {"train.dynamic_batch_enable": True}, "dynamic_batch_enable True: packed rows"),
        ("qwen2_5_omni", {"ds.use_liger_kernel": True}, "language models only"),
        ("qwen2_5_omni", {"ds.zero_stage": 3, "actor.num_gpus_per_node": 2}, "zero_stage 3.*set it to 2"),
    ],
)
def test_what_cannot_work_is_named_with_what_to_set_instead(tiny, model, changes, words):
    with pytest.raises(UnsupportedConfigError, match=f"TARS cannot run with --.*{words}"):
        check_args(args(tiny, model, **changes))


def test_a_last_batch_that_ranks_cannot_share_is_refused_with_the_number_that_would_do(tiny):
    from types import SimpleNamespace

    nested = SimpleNamespace(
        actor=SimpleNamespace(num_nodes=1, num_gpus_per_node=4),
        rollout=SimpleNamespace(batch_size=16, n_samples_per_prompt=4, micro_batch_size=4),
        train=SimpleNamespace(dynamic_batch_enable=False),
    )
    with pytest.raises(
        UnsupportedConfigError, match=r"leave a last batch of 2, whose 2 micro-batches 4 ranks.*max_samples 19904"
    ):
        check_last_batch(19906, nested)
    check_last_batch(19904, nested)
    check_last_batch(19908, nested)  # 4 micro-batches
    nested.actor.num_gpus_per_node = 1
    check_last_batch(19906, nested)


def test_without_a_reward_function_ours_is_named_and_a_users_stays(tiny):
    mine, ours = args(tiny, **{"reward.remote_url": "mine.py"}), args(tiny)
    for each in (mine, ours):
        prepare_args(each)
    assert getattr(mine, "reward.remote_url") == "mine.py"
    assert getattr(ours, "reward.remote_url") == OUR_REWARD


def test_the_run_logs_directory_is_made_before_anything_is_started(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = args(tiny, **{"tars.run_log": "runs/log"})
    prepare_args(made)
    assert getattr(made, "tars.run_log") == str(tmp_path / "runs" / "log")
    assert (tmp_path / "runs" / "log").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="run_log is 'file/log', where nothing can be written"):
        prepare_args(args(tiny, **{"tars.run_log": "file/log"}))


def test_another_openrlhf_is_refused_with_the_tested_versions(monkeypatch):
    require_openrlhf()
    monkeypatch.setattr(patching, "installed_version", lambda _: "0.11.3")
    with pytest.raises(
        AdapterError, match=r"tested with openrlhf 0\.11\.2, found 0\.11\.3; install 'openrlhf==0\.11\.2'"
    ):
        require_openrlhf()
