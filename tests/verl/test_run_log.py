"""What the trainer mixin leaves for a report; verl's queue is a dictionary here, and its stock trainer does nothing."""

import json

import pytest
import torch
import transfer_queue
from hydra import compose, initialize_config_module
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

from tars_rewards.errors import ConfigError
from tars_rewards_verl.trainer import TARSTrainerMixin

QUESTIONS = ("q1", "q2")
IDENTITIES = [(pair, modality, sample) for pair in QUESTIONS for modality in ("speech", "text") for sample in range(2)]
PADDED = {4}  # rows that verl added


class Tokenizer:
    def decode(self, tokens, skip_special_tokens):
        return " ".join(str(int(token)) for token in tokens)


class Stock:
    """The part of verl's trainer that the mixin calls."""

    def __init__(self, config):
        self.config, self.global_steps, self.tokenizer = config, 0, Tokenizer()
        self.val_dataset = [None] * 2

    def step(self, metrics, timing_raw):
        keys = [f"{pair}-{modality}_{sample}_0" for pair, modality, sample in IDENTITIES]
        keys.insert(4, "padding_0_0")
        tags = [{"is_padding": row in PADDED} for row in range(len(keys))]
        metrics["actor/lr"] = 1.0
        return self._compute_advantage(KVBatchMeta(keys=keys, tags=tags, partition_id="train"), metrics)

    def _compute_advantage(self, batch, metrics):
        return batch

    def _val_metrics_update(self, *args, **kwargs):
        return {"val-core/x/acc/mean@1": torch.tensor(0.5).numpy()[()]}


class Trainer(TARSTrainerMixin, Stock):
    pass


def nested(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


@pytest.fixture
def queue(monkeypatch):
    """Gives what stands here; what is put into it is a list."""
    lengths = [2 + row % 3 for row in range(len(IDENTITIES))]
    right = [modality == "text" and sample == 1 for _, modality, sample in IDENTITIES]
    columns = {
        "pair_id": NonTensorStack(*[pair for pair, _, _ in IDENTITIES]),
        "modality": NonTensorStack(*[modality for _, modality, _ in IDENTITIES]),
        "responses": nested([torch.arange(10 * row, 10 * row + n + 1) for row, n in enumerate(lengths)]),
        # The last token is one that a tool added, say.
        "response_mask": nested([torch.tensor([1] * n + [0]) for n in lengths]),
        "rm_scores": nested([torch.tensor([0.0] * n + [float(each)]) for n, each in zip(lengths, right, strict=True)]),
        "old_log_probs": nested([torch.full((n + 1,), -0.25) for n in lengths]),
        "rollout_log_probs": nested([torch.full((n + 1,), -0.25) for n in lengths]),
        "reward_model": NonTensorStack(*[{"ground_truth": "B"}] * len(lengths)),
        "extra_fields": NonTensorStack(
            *[
                {"reward_extra_info": {"acc": float(each), "format": 0.0, "truncated": float(row == 0)}}
                for row, each in enumerate(right)
            ]
        ),
        "tars_pooled": torch.randint(-32767, 32767, (len(lengths), 6), dtype=torch.int16),
        "tars_pooled_scales": torch.full((len(lengths), 2), 1e-4),
    }
    table, put = TensorDict(columns, batch_size=len(lengths)), []
    monkeypatch.setattr(
        transfer_queue, "kv_batch_get", lambda keys, partition_id, select_fields: table.select(*select_fields)
    )
    monkeypatch.setattr(transfer_queue, "kv_batch_put", lambda keys, partition_id, fields: put.append(fields))
    return put


def trainer(log, *overrides):
    base = [
        "reward.custom=tars_rewards.verl:TARSReward",
        "reward.custom_kwargs.beta=0",
        f"reward.custom_kwargs.run_log={log}",
        "data.train_batch_size=4",
        "actor_rollout_ref.rollout.n=2",
        "actor_rollout_ref.model.path=models/tiny",
        "algorithm.adv_estimator=grpo",
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return Trainer(compose("ppo_trainer", overrides=[*base, *overrides]))


def lines(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def validate(made):
    return made._val_metrics_update([], [], {"acc": [0.0, 1.0], "modality": ["speech", "text"]}, [])


def test_steps_and_validations_are_written_as_they_are_logged(queue, tmp_path):
    made = trainer(tmp_path, "reward.custom_kwargs.run_log_rate=1")
    logged = {0: validate(made)}
    for step in (1, 2):
        made.global_steps, logged[step] = step, {}
        made.step(logged[step], {})
    logged[2] |= validate(made)
    rows = lines(tmp_path / "metrics.jsonl")
    assert {row["step"]: row["data"] for row in rows} == {
        step: {name: float(value) for name, value in data.items() if not name.startswith("actor/")}
        for step, data in logged.items()
    }
    assert {"val-core/x/acc/mean@1", "val-tars/gap", "tars/total/speech/mean"} <= rows[2]["data"].keys()
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["framework"], run["model"], run["kind"]) == ("verl 0.9.1", "models/tiny", "training")
    assert run["options"]["weight_push_deadline"] == 300
    assert run["settings"]["embedder_device"] == "cpu"

    rows = [row for row in lines(tmp_path / "rollouts.jsonl") if row["step"] == 2]
    assert [(row["id"], row["modality"], row["sample_id"]) for row in rows] == IDENTITIES
    for index, (row, scores) in enumerate(zip(rows, queue[-1]["rm_scores"].unbind(), strict=True)):
        assert row["total"] == float(scores.sum())
        assert row["tokens"] == 2 + index % 3
        assert row["log_prob"] == -0.25 * row["tokens"]
        assert row["completion"] == " ".join(str(10 * index + place) for place in range(row["tokens"] + 1))
        assert (row["answer"], row["truncated"]) == ("B", index == 0)
        assert (row["representation"] is not None) == (row["modality"] == "speech")
        assert row["reference"] == (1 if row["modality"] == "speech" else None)
        assert row["behavior"] is None


def test_the_usual_rate_keeps_few_questions_and_all_metrics(queue, tmp_path):
    made = trainer(tmp_path)
    for step in range(1, 41):
        made.global_steps = step
        made.step({}, {})
    found = {(row["step"], row["id"]) for row in lines(tmp_path / "rollouts.jsonl")}
    assert 0 < len(found) < 15  # of 80; expected are 4
    assert len(lines(tmp_path / "rollouts.jsonl")) == 4 * len(found)
    assert [row["step"] for row in lines(tmp_path / "metrics.jsonl")] == list(range(1, 41))


def test_without_the_option_nothing_is_written_and_a_bad_rate_is_refused(queue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = trainer("null")
    made.global_steps = 1
    made.step({}, {})
    validate(made)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"run_log_rate must be a share of the questions in \(0, 1\], got 0"):
        trainer(tmp_path, "reward.custom_kwargs.run_log_rate=0")
