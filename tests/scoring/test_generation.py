"""Sampling: the right distribution, the same completions however they are batched, nothing that may not be said."""

import numpy as np
import pytest
import scipy.stats
import torch

from tars_rewards import Scorer, TARSConfig
from tars_rewards.errors import ConfigError
from tars_rewards.scoring.generation import _InverseTransform
from tars_rewards.scoring.sampling import Sampling


def drawn(scores, uniform):
    left = _InverseTransform(np.asarray(uniform, np.float32)[:, None])(None, scores)
    assert (left == 0).sum() == len(scores)
    return left.argmax(-1)


def test_tokens_come_with_their_probability():
    scores = torch.tensor([0.3, -torch.inf, 2.0, 1.0, -3.0, 0.0])
    uniform = np.random.default_rng(0).random(20_000)
    tokens = drawn(scores.expand(len(uniform), -1), uniform)
    counts = torch.bincount(tokens, minlength=6).numpy()
    expected = scores.double().softmax(-1).numpy() * len(uniform)
    assert counts[1] == 0
    possible = expected > 0
    assert scipy.stats.chisquare(counts[possible], expected[possible] / expected.sum() * counts.sum()).pvalue > 0.01


@pytest.mark.parametrize("uniform", [0.0, 0.5, float(np.nextafter(np.float32(1), np.float32(0)))])
def test_a_token_without_probability_is_never_drawn(uniform):
    for scores in (
        [-torch.inf, 0.0, -torch.inf],
        [-torch.inf, -torch.inf, 5.0],
        [1e4, 0.0, -1e4],
        [-torch.inf, 0.1, 0.1, -torch.inf],
    ):
        row = torch.tensor([scores])
        assert row[0, drawn(row, [uniform])[0]] > -torch.inf


def completions(scorer, questions, **settings):
    sampled = scorer.sample(questions, **{"n": 3, "max_new_tokens": 12, **settings})
    return {question.id: question.completions for question in sampled}


def test_completions_do_not_depend_on_the_batch(speech_model, questions):
    together = completions(Scorer(speech_model), questions, seed=3)
    alone = completions(Scorer(speech_model, token_budget=1), questions, seed=3)
    assert together == alone
    assert {len(each) for by_modality in together.values() for each in by_modality.values()} == {3}
    assert completions(Scorer(speech_model), questions, seed=4) != together
    texts = {each.text for by_modality in together.values() for several in by_modality.values() for each in several}
    assert len(texts) > 20


def test_temperature_0_takes_what_hugging_face_takes(speech_model, questions):
    sampled = completions(Scorer(speech_model), questions[:2], n=1, temperature=0)
    for question in questions[:2]:
        for modality, given in (
            ("speech", {"media": question.audio, "question": None}),
            ("text", {"media": None, "question": question.prompt}),
        ):
            batch = speech_model.batch([speech_model.prompt(**given)], padding="left")
            ids = speech_model.model.generate(
                **batch, do_sample=False, max_new_tokens=12, suppress_tokens=speech_model.never_sampled
            )
            (completion,) = sampled[question.id][modality]
            assert (
                list(completion.token_ids)
                == ids[0, batch["input_ids"].shape[1] :][: len(completion.token_ids)].tolist()
            )


def test_a_completion_ends_at_a_stop_token_or_is_truncated(speech_model, questions, monkeypatch):
    every_tenth = frozenset(range(0, 400, 10)) - set(speech_model.never_sampled) | speech_model.stop_ids
    monkeypatch.setattr(speech_model, "stop_ids", every_tenth)
    found = [
        each
        for by in completions(Scorer(speech_model), questions, n=4).values()
        for several in by.values()
        for each in several
    ]
    ended = [each for each in found if not each.truncated]
    assert ended
    assert len(ended) < len(found)
    for each in found:
        stops = [index for index, token in enumerate(each.token_ids) if token in every_tenth]
        assert stops == ([] if each.truncated else [len(each.token_ids) - 1])
        assert len(each.token_ids) == 12 if each.truncated else len(each.token_ids) <= 12
        said = each.token_ids if each.truncated else each.token_ids[:-1]
        assert each.text == speech_model.detokenize(said)
        assert not set(each.token_ids) & set(speech_model.never_sampled)


def test_reserved_tokens_are_never_sampled(speech_model, questions):
    with torch.no_grad():  # a model that wants to say nothing else
        head = speech_model.model.get_output_embeddings()
        handle = head.register_forward_hook(
            lambda _, __, logits: logits.index_fill(-1, torch.tensor(speech_model.never_sampled), 50.0)
        )
        try:
            found = completions(Scorer(speech_model), questions[:1])
        finally:
            handle.remove()
    ids = {token for by in found.values() for several in by.values() for each in several for token in each.token_ids}
    assert ids
    assert not ids & set(speech_model.never_sampled)


def test_the_checkpoints_own_generation_settings_have_no_say(speech_model, questions, monkeypatch):
    usual = completions(Scorer(speech_model), questions[:2])
    for name, value in (("repetition_penalty", 5.0), ("top_k", 1), ("temperature", 0.01), ("do_sample", True)):
        monkeypatch.setattr(speech_model.model.generation_config, name, value)
    assert completions(Scorer(speech_model), questions[:2]) == usual
    assert speech_model.model.generation_config.repetition_penalty == 5.0


def test_top_p_leaves_the_likeliest(speech_model, questions):
    greedy = completions(Scorer(speech_model), questions[:2], n=1, temperature=0)
    narrow = completions(Scorer(speech_model), questions[:2], n=1, top_p=1e-6)
    assert narrow == greedy


def test_what_was_sampled_can_be_scored(speech_model, questions):
    scorer = Scorer(speech_model, config=TARSConfig(beta=0))
    for scored in scorer.score(scorer.sample(questions[:2], n=2, max_new_tokens=8)):
        for rollout, log_probs in zip(scored.rollouts, scored.log_probs, strict=True):
            completion = scored.question.completions[rollout.modality][rollout.sample_id]
            assert len(log_probs) == len(completion.token_ids)
            assert log_probs.min() > -50


def test_a_file_of_questions_becomes_one_that_can_be_scored(speech_model, questions, tmp_path):
    from tars_rewards.scoring import tables

    rows = [{**question.to_row(), "completions": {}} for question in questions]
    tables.write_rows(tmp_path / "in.jsonl", rows, parquet=False)
    scorer = Scorer(speech_model, config=TARSConfig(beta=0))
    sampling = {"n": 2, "max_new_tokens": 8, "progress": False}
    for name in ("a.jsonl", "b.parquet"):
        scorer.sample_file(tmp_path / "in.jsonl", tmp_path / name, **sampling)
        report = scorer.score_file(tmp_path / name, tmp_path / f"scored {name}", progress=False)
        assert (report.questions, report.rows, report.bad) == (5, 20, 0)
    first, second = (
        [row.value for row in tables.read_rows(tmp_path / f"scored {name}", parquet=name.endswith("parquet"))]
        for name in ("a.jsonl", "b.parquet")
    )
    assert first == second


@pytest.mark.parametrize(
    "wrong", [{"n": 0}, {"n": 1.5}, {"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_new_tokens": 0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)
