"""What the trainer leaves for a report; OpenRLHF's own forwards and steps are stood in for."""

import json
import types

import pytest
import torch
from transformers import AutoTokenizer

from tars_rewards.integration.rollout_kl import RolloutKLGuard
from tars_rewards.reward import TARSReward
from tars_rewards.transport import pack_states
from tars_rewards_openrlhf import cpu
from tars_rewards_openrlhf.flags import read_flags
from tars_rewards_openrlhf.label import Label
from tars_rewards_openrlhf.stock import OPENRLHF

cpu.install()
from openrlhf.trainer.ppo_utils.experience import Experience  # noqa: E402
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker  # noqa: E402

from tars_rewards.integration.run_log import open_run_log  # noqa: E402
from tars_rewards_openrlhf import trainer as trainer_module  # noqa: E402
from tars_rewards_openrlhf.experience import TARSExperienceMaker  # noqa: E402
from tars_rewards_openrlhf.trainer import TARSPPOTrainer  # noqa: E402

PROMPT = 3


def micro_batch(pair):
    """All rollouts of a question; what the base reward's executor says of them is among the info."""
    who = [(modality, sample) for modality in ("speech", "text") for sample in range(2)]
    lengths = torch.arange(len(who)) + 2
    action = torch.zeros(len(who), PROMPT + 5 - 1, dtype=torch.long)
    for mask, length in zip(action, lengths, strict=True):
        mask[PROMPT - 1 : PROMPT - 1 + length] = 1
    log_probs = torch.full(action.shape, -0.25)
    return Experience(
        index=list(range(len(who))),
        sequences=torch.randint(3, 200, (len(who), PROMPT + 5)),
        action_mask=action,
        action_log_probs=log_probs,
        rollout_log_probs=log_probs,
        labels=[Label(pair, modality, {"ground_truth": "B"}).dump() for modality, _ in who],
        rewards=torch.tensor([0.0, 0.5, 0.0, 1.5]),
        truncated=torch.tensor([True, False, False, False]),
        info={
            "tars_sample": torch.tensor([float(sample) for _, sample in who]),
            "tars_correct": torch.tensor([0.0, 0.0, 0.0, 1.0]),
            "tars_format": torch.tensor([0.0, 1.0, 0.0, 1.0]),
        },
    )


class Maker(TARSExperienceMaker):
    def _fetch_pooled(self, experiences):
        return [pack_states(torch.randn(len(each.index), 2, 4)) for each in experiences]


@pytest.fixture
def made(tiny, tmp_path, monkeypatch):
    """A trainer and its experience maker, with the log that the flags ask for."""
    config, options = read_flags({"beta": 0, "run_log": str(tmp_path / "log"), "run_log_rate": 1})
    monkeypatch.setattr(RemoteExperienceMaker, "make_experience", lambda self, samples: samples)
    maker = Maker.__new__(Maker)
    maker.reward, maker.tokenizer = TARSReward(config), AutoTokenizer.from_pretrained(tiny / "text")
    maker._guard = RolloutKLGuard(0.0, ["float32"], "--tars.max_rollout_kl")
    trainer = TARSPPOTrainer.__new__(TARSPPOTrainer)
    trainer.experience_maker = maker
    trainer._run_log = maker.run_log = open_run_log(config, options, framework=OPENRLHF, model="models/tiny")

    def train_step(self, samples, step):
        return {"kl": 0.0, "rewards": self.experience_maker.make_experience(samples)}, step + 1

    stock = trainer_module._Base
    monkeypatch.setattr(stock, "train_step", train_step)
    monkeypatch.setattr(stock, "evaluate", lambda self, step, **_: {"eval_all_pass1": 0.5, "tars/gap": 0.25})
    return types.SimpleNamespace(trainer=trainer, log=tmp_path / "log")


def lines(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def test_steps_and_evaluations_are_written_as_they_are_logged(made):
    rewarded = {}
    for step in range(2):
        status, after = made.trainer.train_step([micro_batch("q2"), micro_batch("q1")], step)
        rewarded[after] = status
    made.trainer.evaluate(2)
    metrics = {row["step"]: row["data"] for row in lines(made.log / "metrics.jsonl")}
    for step, status in rewarded.items():
        expected = {name: value for name, value in status.items() if name.startswith("tars/")}
        assert len(expected) > 10
        assert metrics[step] == expected | ({"eval_all_pass1": 0.5, "tars/gap": 0.25} if step == 2 else {})

    rows = [row for row in lines(made.log / "rollouts.jsonl") if row["step"] == 2]
    assert [(row["id"], row["modality"], row["sample_id"]) for row in rows] == [
        (pair, modality, sample) for pair in ("q1", "q2") for modality in ("speech", "text") for sample in range(2)
    ]
    q2, q1 = rewarded[2]["rewards"]
    tokenizer = made.trainer.experience_maker.tokenizer
    for index, row in enumerate(rows):
        batch, place = (q1, q2)[index // 4], index % 4
        assert row["total"] == float(batch.rewards[place])
        assert row["tokens"] == place + 2
        assert row["log_prob"] == -0.25 * row["tokens"]
        tokens = batch.sequences[place][PROMPT : PROMPT + place + 2]
        assert row["completion"] == tokenizer.decode(tokens, skip_special_tokens=True)
        assert (row["answer"], row["truncated"]) == ("B", place == 0)
        assert (row["accuracy"], row["format"]) == (float(place == 3), float(place % 2))
        assert (row["representation"] is not None) == (row["modality"] == "speech")
        assert row["reference"] == (1 if row["modality"] == "speech" else None)
    run = json.loads((made.log / "run.json").read_text())
    assert (run["framework"], run["model"], run["options"]["audio_key"]) == ("openrlhf 0.11.2", "models/tiny", "audios")


def test_without_a_log_nothing_is_written(made):
    made.trainer._run_log = made.trainer.experience_maker.run_log = None
    made.trainer.train_step([micro_batch("q1")], 0)
    made.trainer.evaluate(1)
    assert [path.read_text() for path in (made.log / "metrics.jsonl", made.log / "rollouts.jsonl")] == ["", ""]
