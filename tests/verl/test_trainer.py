"""The trainer mixin on a stock trainer that does nothing: what it prints, keeps, and refuses."""

from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from hydra import compose, initialize_config_module
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from tars_rewards.errors import AdapterError, ConfigError, IncompletePairError
from tars_rewards_verl.trainer import TARSTrainerMixin

BASE = [
    "reward.custom=tars_rewards.verl:TARSReward",
    "data.train_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "algorithm.adv_estimator=grpo",
]


class Stock:
    """The part of verl's trainer that the mixin calls."""

    def __init__(self, config):
        self.config, self.global_steps, self.sent = config, 0, []

    def _build_replay_buffer(self):
        return ReplayBuffer("sync", None, None, "drop", None)

    def _submit_batch_to_rollout(self, batch):
        self.sent.append(batch)
        return len(batch["uid"])

    def _save_checkpoint(self):
        Path(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}").mkdir(parents=True)

    def _load_checkpoint(self):
        self.global_steps = 0 if self.config.trainer.resume_mode == "disable" else 2

    def _val_metrics_update(self, *args, **kwargs):
        return {}


class Trainer(TARSTrainerMixin, Stock):
    pass


def trainer(*overrides):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return Trainer(compose("ppo_trainer", overrides=[*BASE, *overrides]))


def test_the_banner_names_what_is_in_force(capsys):
    trainer("algorithm.norm_adv_by_std_in_grpo=False", "reward.custom_kwargs.alpha=0.5")
    said = capsys.readouterr().out
    assert "tars-rewards: speech = accuracy + 0.5 x format + 0.5 x representation" in said
    assert (
        "n = 4 per prompt, advantage grpo (norm_adv_by_std_in_grpo False), reward tars_rewards.verl:TARSReward" in said
    )


def test_how_often_the_trainer_looks_for_finished_rollouts_can_be_set():
    assert trainer()._build_replay_buffer().poll_interval == 2.0
    assert trainer("reward.custom_kwargs.rollout_poll=0.05")._build_replay_buffer().poll_interval == 0.05
    with pytest.raises(ConfigError, match="rollout_poll must be a positive number of seconds or null, got 0"):
        trainer("reward.custom_kwargs.rollout_poll=0")


def test_terms_of_ones_own_and_an_endpoint_by_verls_command_line(capsys):
    made = trainer(
        r"reward.custom_kwargs.terms={own_terms\:brevity:0.5}",
        "reward.custom_kwargs.embedder_url=http://host:8000/v1",
        "reward.custom_kwargs.on_embedder_failure=invalid",
    )
    assert (
        "(embedder Qwen/Qwen3-Embedding-0.6B at http://host:8000/v1) + 0.5 x brevity; text =" in capsys.readouterr().out
    )
    assert made.tars.config.terms == (("own_terms:brevity", 0.5),)
    assert made.tars.config.on_embedder_failure == "invalid"
    with pytest.raises(ConfigError, match="the module 'own_terms' has no 'brevty'"):
        trainer(r"reward.custom_kwargs.terms={own_terms\:brevty:0.5}")


# ---- pairs


def table(rows, **columns):
    pair_ids, modalities = zip(*rows, strict=True)
    return SimpleNamespace(
        dataframe=datasets.Dataset.from_dict({"pair_id": pair_ids, "modality": modalities, **columns})
    )


HALF = [("q1", "speech"), ("q1", "text"), ("q2", "speech")]


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ([], "check the columns pair_id and modality"),
        (["data.train_max_samples=3"], r"data\.train_max_samples=3 picks rows, not pairs: set it to -1"),
        (["data.filter_overlong_prompts=True"], r"data\.filter_overlong_prompts=True drops rows, not pairs"),
        # Not the cause: it kept more rows than there are.
        (["data.train_max_samples=100"], "check the columns pair_id and modality"),
    ],
)
def test_half_a_pair_in_the_data_is_told_by_its_cause(settings, cause):
    with pytest.raises(IncompletePairError, match=rf"pair 'q2' of data\.train_files must have .*; {cause}"):
        trainer(*settings)._tars_pairs(table(HALF), "train")


def test_validation_data_has_a_limit_of_its_own():
    with pytest.raises(IncompletePairError, match=r"data\.val_files .*data\.val_max_samples=3 picks rows"):
        trainer("data.val_max_samples=3")._tars_pairs(table(HALF), "val")
    assert trainer("data.val_max_samples=2")._tars_pairs(table(HALF[:2]), "val") == [(0, 1)]


def batch(rows):
    return {
        "uid": [str(number) for number in range(len(rows))],
        "pair_id": [pair for pair, _ in rows],
        "modality": [modality for _, modality in rows],
    }


def test_whole_pairs_are_sent():
    made = trainer()
    assert made._submit_batch_to_rollout(batch(HALF[:2])) == 2
    assert made._tars_prompts == {"0": ("q1", "speech"), "1": ("q1", "text")}


@pytest.mark.parametrize("rows", [HALF, [*HALF[:2], *HALF[:2]]], ids=["half", "twice"])
def test_what_is_not_one_whole_pair_stops_the_run_before_it_is_sent(rows):
    made = trainer()
    with pytest.raises(IncompletePairError, match=r"of the prompts of step 0 must have .*unset data\.gen_batch_size"):
        made._submit_batch_to_rollout(batch(rows))
    assert not made.sent


# ---- the denominator of the modality recovery rate


def validate(made, *, right, samples=1):
    """Two questions in both modalities, ``samples`` completions each; ``right`` of the text ones are."""
    made.val_dataset = [None] * 4
    modalities = ["speech", "text"] * (2 * samples)
    correct, left = [], right
    for modality in modalities:
        correct.append(float(modality == "speech" or left > 0))
        left -= modality == "text"
    return made._val_metrics_update([], [], {"acc": correct, "modality": modalities}, [])


@pytest.fixture
def before(tmp_path):
    """A run that validated before training (half of the text right) and saved a checkpoint at step 2."""
    made = trainer(f"trainer.default_local_dir={tmp_path}")
    assert validate(made, right=1)["val-tars/mrr_denominator"] == 0.5
    made.global_steps = 2
    made._save_checkpoint()
    return tmp_path


@pytest.mark.parametrize("mode", ["auto", "resume_path"])
def test_a_resumed_run_divides_by_the_text_accuracy_before_training(before, capsys, mode):
    where = [f"trainer.default_local_dir={before}"]
    if mode == "resume_path":
        where = [f"trainer.resume_from_path={before / 'global_step_2'}", "trainer.default_local_dir=elsewhere"]
    made = trainer(f"trainer.resume_mode={mode}", *where)
    made._load_checkpoint()
    found = validate(made, right=2)
    assert found["val-tars/text_accuracy"] == 1
    assert found["val-tars/mrr"] == 200
    assert "MRR denominator 0.5 (text accuracy before training)" in capsys.readouterr().out


def test_what_the_user_set_comes_before_what_was_kept(before):
    made = trainer(
        "trainer.resume_mode=auto",
        f"trainer.default_local_dir={before}",
        "reward.custom_kwargs.text_backbone_accuracy=0.8",
    )
    made._load_checkpoint()
    assert validate(made, right=2)["val-tars/mrr_denominator"] == 0.8


def test_where_it_was_never_known_the_line_says_own_text(tmp_path, capsys):
    made = trainer("trainer.resume_mode=auto", f"trainer.default_local_dir={tmp_path}")
    made._load_checkpoint()
    assert validate(made, right=2)["val-tars/mrr_denominator"] == 1
    made._save_checkpoint()
    assert "MRR denominator 1.0 (own text)" in capsys.readouterr().out
    assert not list((tmp_path / "global_step_2").iterdir())


def test_several_completions_a_question_in_validation():
    made = trainer("actor_rollout_ref.rollout.val_kwargs.n=3")
    found = validate(made, right=4, samples=3)
    assert found["val-tars/speech_n"] == found["val-tars/text_n"] == 6
    assert found["val-tars/text_accuracy"] == pytest.approx(4 / 6)
    with pytest.raises(IncompletePairError, match="validation expected 12 completions, got 4"):
        validate(made, right=4, samples=1)


def test_verls_own_validation_metrics_take_what_our_reward_loop_gives_them():
    """`modality` is a word among numbers; with several completions verl also draws subsets of them."""
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    infos = {"reward": [1.0, 0.0, 0.5, 1.5], "acc": [1.0, 0, 0, 1], "format": [0.0] * 4, "truncated": [0.0] * 4}
    infos["modality"] = ["speech", "speech", "text", "text"]
    found = process_validation_metrics(["x"] * 4, ["u", "u", "v", "v"], infos)["x"]
    assert found["acc"]["mean@2"] == 0.5
    assert found["reward"]["mean@2"] == 0.75


# ---- the guard


def rounded(made, kl):
    made._tars_guard.check({"speech": kl, "text": kl}, made.global_steps)


def test_the_guard_is_of_the_coarser_dtype_and_the_users_limit():
    fp32 = [
        "actor_rollout_ref.rollout.dtype=float32",
        "++actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32",
    ]
    rounded(trainer(), 1e-2)
    rounded(trainer(fp32[0]), 1e-2)
    with pytest.raises(AdapterError, match=r"expected at most 1e-04.*reward\.custom_kwargs\.max_rollout_kl"):
        rounded(trainer(*fp32), 1e-2)
    with pytest.raises(AdapterError, match="expected at most 2e-02"):
        rounded(trainer(), 3e-2)
    rounded(trainer("reward.custom_kwargs.max_rollout_kl=0.5"), 3e-2)


def test_the_guard_remembers_the_first_steps_of_the_run():
    made = trainer()
    for _ in range(3):
        rounded(made, 5e-4)
    with pytest.raises(AdapterError, match=r"expected at most 5\.0e-03 for speech \(median of the first 3 steps"):
        rounded(made, 9.7e-3)
