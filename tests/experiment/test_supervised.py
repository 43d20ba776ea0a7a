"""The supervised arms: order, optimizer and losses as said, and a short training of each."""

import json

import pandas as pd
import pytest
import torch
import yaml
from torchdata.stateful_dataloader import StatefulDataLoader


@pytest.fixture(scope="module")
def step(base, data, heard_cache):
    """The first step's questions and samples."""
    import supervised
    import supervised_arms
    from evaluate import read_table
    from heard import heard

    trainer = supervised_arms.Distillation(base)
    table = read_table(data, "train")
    audio = heard(trainer.policy, trainer.processor, table, heard_cache / "train.safetensors")
    picks = next(supervised.question_batches(data / "train.parquet", 0))
    return supervised._sample(trainer, table.iloc[picks], [audio[pick] for pick in picks], 0, 1)


def test_the_order_of_the_questions_is_that_of_verls_loader(data):
    from supervised import question_batches

    from tars_rewards_verl.pairs import PairSampler

    frame = pd.read_parquet(data / "train.parquet")
    sampler = PairSampler([(row, row + 1) for row in range(0, len(frame), 2)], shuffle=True, seed=3)
    loader = StatefulDataLoader(
        frame["pair_id"].tolist(), batch_size=16, num_workers=0, drop_last=True, sampler=sampler, collate_fn=list
    )
    speech = frame[frame["modality"] == "speech"].reset_index(drop=True)
    expected = [batch[::2] for _ in range(2) for batch in loader]
    assert len(expected) == 4  # 18 questions: two steps an epoch
    batches = question_batches(data / "train.parquet", 3)
    assert [speech["pair_id"][next(batches)].tolist() for _ in range(4)] == expected


def test_the_optimizer_is_verls():
    from pathlib import Path

    import supervised
    import verl
    from transformers import get_cosine_schedule_with_warmup
    from verl.utils import torch_functional

    settings = yaml.safe_load((Path(verl.__file__).parent / "trainer/config/optim/fsdp.yaml").read_text())
    assert settings["optimizer"] == "AdamW"
    assert settings["override_optimizer_config"] is None
    ours = (supervised.BETAS, supervised.WEIGHT_DECAY, supervised.CLIP_NORM)
    assert ours == (tuple(settings["betas"]), settings["weight_decay"], settings["clip_grad"])
    rates = []
    for make in (
        lambda optimizer: get_cosine_schedule_with_warmup(optimizer, 0, 20),
        lambda optimizer: torch_functional.get_cosine_schedule_with_warmup(
            optimizer, 0, 20, settings["min_lr_ratio"], settings["num_cycles"]
        ),
    ):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
        schedule, found = make(optimizer), []
        for _ in range(20):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        rates.append(found)
    assert rates[0] == pytest.approx(rates[1])


def test_reverse_kl_is_torchs():
    from supervised_arms import reverse_kl

    student, teacher = torch.randn(2, 5, 7)
    student[:, 3] = teacher[:, 3] = -1e4  # a token that is never sampled
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=student), torch.distributions.Categorical(logits=teacher)
    )
    torch.testing.assert_close(reverse_kl(student, teacher), expected)
    assert reverse_kl(student, student).abs().max() == 0


def test_four_completions_of_each_question_in_both_modalities(step):
    assert {modality: len(done.tokens) for modality, done in step.samples.items()} == {"speech": 32, "text": 32}
    assert len(set(step.table["pair_id"])) == 8
    table, audio = step.questions([0, 3, 4, 31])
    assert table["pair_id"].tolist() == step.table["pair_id"].iloc[[0, 0, 1, 7]].tolist()
    assert audio[2] is step.audio[1]
    # A different answer to another draw of the same question, and the letter that is right is that of its own question.
    assert len(set(step.samples["speech"].text)) > 8
    for row, score in enumerate(step.scores["text"]):
        stated = step.samples["text"].text[row].partition("The answer is ")[2][:1]
        assert score.correct == (stated == step.table["answer"].iloc[row // 4])


def test_fine_tuning_learns_the_bases_correct_text_given_speech(base, step):
    from dataclasses import replace

    import supervised_arms

    trainer = supervised_arms.FineTuning(base)
    assert trainer.writer is trainer.base
    done = replace(step.samples["text"], truncated=[row == 5 for row in range(32)])
    cut = replace(step, samples={**step.samples, "text": done})
    learned = trainer.learned(cut)
    expected = [row for row, score in enumerate(step.scores["text"]) if score.correct and row != 5]
    assert [row for row, _ in learned] == expected
    assert len(expected) < 32
    rows, completions = zip(*learned[:3], strict=True)
    with torch.no_grad():
        loss = trainer.loss(step, rows, completions)
        reference = sum(
            torch.nn.functional.cross_entropy(
                logits(trainer.policy, trainer.processor, step, row, tokens, "speech"),
                torch.tensor(tokens),
                reduction="sum",
            )
            for row, tokens in zip(rows, completions, strict=True)
        )
    torch.testing.assert_close(loss, reference, rtol=1e-4, atol=1e-4)


def test_distillation_compares_hearing_with_the_bases_reading(base, step):
    import supervised_arms

    trainer = supervised_arms.Distillation(base)
    learned = trainer.learned(step)
    assert [tokens for _, tokens in learned] == step.samples["speech"].tokens
    rows, completions = zip(*learned[:3], strict=True)
    with torch.no_grad():
        trainer.policy.lm_head.weight.mul_(0.5)  # the policy has moved, the teacher has not
        loss = trainer.loss(step, rows, completions)
        expected = 0.0
        for row, tokens in zip(rows, completions, strict=True):
            student = logits(trainer.policy, trainer.processor, step, row, tokens, "speech").log_softmax(-1)
            teacher = logits(trainer.base, trainer.processor, step, row, tokens, "text").log_softmax(-1)
            expected += torch.nn.functional.kl_div(teacher, student, reduction="sum", log_target=True)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def logits(model, processor, step, row, tokens, modality):
    """Logits of a completion's tokens by a forward pass of Hugging Face's model over it alone."""
    from inference import embed, prompt_text

    question = step.table["extra_info"].iloc[row // 4]["question"]
    prompt = prompt_text(processor, None if modality == "speech" else question)
    embedded = embed(model, processor, prompt, step.audio[row // 4] if modality == "speech" else None)
    embedded = torch.cat([embedded, model.get_input_embeddings()(torch.tensor(tokens))])
    return model(inputs_embeds=embedded[None]).logits[0, -len(tokens) - 1 : -1]


@pytest.mark.parametrize("arm", ["sft", "distillation"])
def test_a_short_training(arm, base, data, heard_cache, tmp_path):
    import supervised
    from model import load
    from policies import load_policy, trained_parameters

    saved, log = supervised.train(
        arm, base, tmp_path, data=data, seed=0, steps=2, learning_rate=1e-3, save_at=[1, 2], heard_cache=heard_cache
    )
    assert sorted(saved) == [1, 2]
    assert {len(values) for values in log.values()} == {2}
    assert log["learning_rate"] == pytest.approx([1e-3, 5e-4])
    assert all(value > 0 for value in log["loss"] + log["gradient_norm"] + log["seconds"])
    assert ("accuracy/base_text" in log) == (arm == "sft")
    assert ("accuracy/text" in log) == (arm == "distillation")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]

    before, names = dict(load(base)[0].named_parameters()), set(trained_parameters(load_policy(base)[0]))
    after = dict(load(saved[2])[0].named_parameters())  # with its processor
    assert {name for name in before if not torch.equal(before[name], after[name])} == names
    first = dict(load(saved[1])[0].named_parameters())
    # Adam's first step moves a weight by the learning rate, whatever its gradient.
    moved = (first["lm_head.weight"] - before["lm_head.weight"]).detach().abs()
    assert 0.9e-3 < float(moved.max()) < 1.1e-3


def test_impossible_trainings_are_refused(base, data, tmp_path):
    import supervised

    settings = {"data": data, "seed": 0, "steps": 2, "learning_rate": 1e-4}
    with pytest.raises(ValueError, match="expected an arm of sft, distillation; got 'dpo'"):
        supervised.train("dpo", base, tmp_path, **settings)
    with pytest.raises(ValueError, match="steps of 1 to 2"):
        supervised.train("sft", base, tmp_path, **settings, save_at=[1, 3])
    with pytest.raises(ValueError, match="at least 8"):
        next(supervised.question_batches(data / "dev.parquet", 0))
