"""The scorer on real tiny Speech LLMs, against what plain Hugging Face and the bare reward give."""

import itertools

import numpy as np
import pytest
import torch
from scoring_questions import RIGHT, SYSTEM

from tars_rewards import Question, Rollout, Scorer, TARSConfig, TARSReward
from tars_rewards.errors import ConfigError, InputError, ScoringError
from tars_rewards.scoring import forward
from tars_rewards.speech.waveform import load_waveform


@pytest.fixture
def scorer(speech_model, embedder):
    return Scorer(speech_model, embedder=embedder, system=SYSTEM, instruction="Think first.")


def plain(speech_model, question, modality, text, *, ended=True):
    """Log-probabilities and layer means of one completion by the checkpoint's own processor and a stock forward."""
    processor, model = speech_model.processor, speech_model.model
    content = [{"type": "text", "text": "What is 2 plus 2?\nThink first." if modality == "text" else "Think first."}]
    if modality == "speech":
        content.insert(0, {"type": "audio", "audio": "x"})
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
    prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    audio = [load_waveform(question.audio)] if modality == "speech" else None
    start = processor(text=[prompt], audio=audio, return_tensors="pt")["input_ids"].shape[1]
    inputs = processor(text=[prompt + text + ("<|im_end|>" if ended else "")], audio=audio, return_tensors="pt")
    if hasattr(model, "rope_deltas"):
        model.rope_deltas = None
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    logits = output.logits[0, start - 1 : -1].clone()
    logits[:, speech_model.never_sampled] = -torch.inf
    ids = inputs["input_ids"][0, start:]
    log_probs = logits.log_softmax(-1)[torch.arange(len(ids)), ids]
    # Hugging Face gives the last layer behind the norm, so it is left out here.
    states = torch.stack([each[0, start:].mean(0) for each in output.hidden_states[1:-1]])
    return log_probs, states


def test_log_probs_and_states_are_those_of_a_plain_forward(scorer, speech_model, questions):
    for scored in scorer.score(questions):
        assert len(scored.rollouts) == len(scored.log_probs) == len(scored.result.total)
        for rollout, log_probs in zip(scored.rollouts, scored.log_probs, strict=True):
            expected, states = plain(
                speech_model, scored.question, rollout.modality, rollout.completion, ended=not rollout.truncated
            )
            torch.testing.assert_close(log_probs, expected, atol=2e-5, rtol=0)
            torch.testing.assert_close(rollout.hidden_states[:-1], states, atol=2e-5, rtol=1e-5)


def test_rewards_are_those_of_the_bare_reward(scorer, questions, embedder):
    reward = TARSReward(embedder=embedder)
    for scored in scorer.score(questions):
        expected = reward(scored.rollouts)
        for name in ("total", "reference"):
            torch.testing.assert_close(getattr(scored.result, name), getattr(expected, name), atol=1e-6, rtol=0)
        for name in expected.components:
            torch.testing.assert_close(scored.result.components[name], expected.components[name], atol=1e-6, rtol=0)
            assert scored.result.valid[name].tolist() == expected.valid[name].tolist()
        row = scored.rows()[0]
        assert row["completion"] == RIGHT
        assert row["reference"] == 0
        assert row["total"] == pytest.approx(1.5 + row["representation"] + row["behavior"], abs=1e-6)
        assert 0 < row["representation"] < 1
        assert row["log_prob"] < 0
        assert scored.rows()[-1]["representation"] is None


@pytest.mark.parametrize("budget", [1, 200, 100_000])
def test_results_do_not_depend_on_how_questions_are_batched(speech_model, questions, embedder, budget):
    def score(batches, **settings):
        scorer = Scorer(speech_model, embedder=embedder, **settings)
        return [row for batch in batches for scored in scorer.score(batch) for row in scored.rows()]

    expected = score([[question] for question in questions])
    found = score([questions], token_budget=budget)
    assert [row["reference"] for row in found] == [row["reference"] for row in expected]
    for name in ("total", "log_prob"):
        np.testing.assert_allclose([row[name] for row in found], [row[name] for row in expected], atol=2e-4)


def test_a_clip_is_encoded_once_for_its_question(scorer, speech_model, questions, monkeypatch):
    calls = []
    encode = speech_model._memo._encode
    monkeypatch.setattr(
        speech_model._memo, "_encode", lambda *args, **kwargs: (calls.append(1), encode(*args, **kwargs))[1]
    )
    list(Scorer(speech_model, config=TARSConfig(beta=0), token_budget=100).score(questions))
    assert len(calls) == len(questions)


def test_questions_are_read_as_they_are_needed(speech_model, questions):
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield Question(f"q{number}", answer="4", completions=questions[0].completions)

    scorer = Scorer(None, config=TARSConfig(alpha=0, beta=0))
    first = list(itertools.islice(scorer.score(endless()), 3))
    assert [scored.question.id for scored in first] == ["q0", "q1", "q2"]
    assert len(read) < 100


def test_the_same_id_twice_in_a_batch_is_two_questions(scorer, questions):
    twice = [questions[0], questions[1], Question.from_row({**questions[2].to_row(), "id": "q0"})]
    scored = scorer.score_batch(twice)
    assert [each.question for each in scored] == twice
    alone = scorer.score_batch([twice[2]])[0]
    torch.testing.assert_close(scored[2].result.total, alone.result.total, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"audio": None}, "field 'audio': expected what this model takes for the modality 'speech', got nothing"),
        ({"audio": None, "image": {"bytes": "UklGRg=="}}, "got image"),
        ({"audio": {"bytes": "UklGRg=="}}, "cannot be read"),
        ({"prompt": ""}, "field 'prompt': expected the written question"),
        ({"prompt": "What is <|AUDIO|>?"}, "<|AUDIO|>"),
        ({"answer": None}, "field 'answer'"),
        ({"completions": {}}, "field 'completions': expected at least one completion"),
        ({"completions": {"speech": [{"text": "", "truncated": True}]}}, "expected completions of at least one token"),
    ],
)
def test_a_bad_question_is_named_and_leaves_the_others_alone(scorer, questions, changes, expected):
    bad = Question.from_row({**questions[1].to_row(), **changes})
    scored = scorer.score_batch([questions[0], bad, questions[2]])
    assert isinstance(scored[1], InputError)
    assert str(scored[1]).startswith("question 'q1':")
    assert expected in str(scored[1])
    good = scorer.score_batch([questions[0]])[0]
    torch.testing.assert_close(scored[0].result.total, good.result.total, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="question 'q1'"):
        list(scorer.score([questions[0], bad]))


def test_tokens_that_stand_for_audio_are_refused_in_a_completion(scorer, speech_model, questions):
    row = questions[0].to_row()
    row["completions"] = {"text": [{"text": "a", "token_ids": [40, speech_model.never_sampled[0]]}]}
    with pytest.raises(InputError, match="mean something in a prompt only"):
        list(scorer.score([row]))


@pytest.mark.parametrize("beyond", [0, 10**30])
def test_tokens_that_the_model_does_not_have_are_refused(scorer, speech_model, questions, beyond):
    vocabulary = speech_model.model.get_input_embeddings().weight.shape[0]
    row = questions[0].to_row()
    row["completions"] = {"text": [{"text": "a", "token_ids": [vocabulary - 1]}]}
    assert len(next(scorer.score([row])).log_probs[0]) == 1
    row["completions"] = {"text": [{"text": "a", "token_ids": [40, vocabulary + beyond]}]}
    with pytest.raises(InputError, match=f"question 'q0':\n.*expected token ids below {vocabulary}"):
        list(scorer.score([row]))


def test_sampled_tokens_are_taken_as_they_are(scorer, speech_model, questions):
    ids = [*speech_model.tokenize("f"), *speech_model.tokenize("our")]
    row = {**questions[0].to_row(), "completions": {"text": [{"text": "four", "token_ids": ids}, {"text": "four"}]}}
    given, retokenized = next(scorer.score([row])).log_probs
    assert len(given) == len(ids)
    assert len(retokenized) == len(speech_model.tokenize("four")) + 1


def test_modalities_are_a_matter_of_the_config(speech_model, questions):
    config = TARSConfig(beta=0, target_modality="heard", anchor_modality="read")
    row = questions[0].to_row()
    row["completions"] = {"heard": row["completions"]["speech"], "read": row["completions"]["text"]}
    renamed = next(Scorer(speech_model, config=config).score([row])).rows()
    usual = next(Scorer(speech_model, config=TARSConfig(beta=0)).score([questions[0]])).rows()
    assert [row["modality"] for row in renamed] == ["heard"] * 2 + ["read"] * 2
    assert [row["log_prob"] for row in renamed] == pytest.approx([row["log_prob"] for row in usual], abs=1e-4)


def test_log_probs_that_are_not_finite_are_an_error_of_their_question(speech_model, questions, monkeypatch):
    log_probs = forward._log_probs
    # Ends of turn are improbable beyond what a float holds; the one completion that was cut off has none.
    impossible = {speech_model.end_of_turn: -torch.inf}
    monkeypatch.setattr(
        forward,
        "_log_probs",
        lambda logits, chosen: (
            log_probs(logits, chosen) + torch.tensor([impossible.get(id, 0.0) for id in chosen.tolist()])
        ),
    )
    scorer = Scorer(speech_model, config=TARSConfig(alpha=0, beta=0))
    fine = {**questions[0].to_row(), "completions": {"text": [{"text": "It is", "truncated": True}]}}
    good, bad = scorer.score_batch([Question.from_row(fine), questions[1]])
    assert good.log_probs[0].isfinite().all()
    assert isinstance(bad, ScoringError)
    assert str(bad).startswith("question 'q1': the model gives a completion log-probabilities that are not finite")


def test_without_a_model_there_are_no_states(questions, embedder):
    with pytest.raises(ConfigError, match="alpha is 1, but there is no model"):
        Scorer(None)
    scored = next(Scorer(None, config=TARSConfig(alpha=0), embedder=embedder).score(questions))
    assert scored.log_probs == [None] * 4
    assert scored.rows()[0]["behavior"] == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="sampling needs a model"):
        next(Scorer(None, config=TARSConfig(alpha=0)).sample(questions))
    with pytest.raises(ConfigError, match="token_budget is 0"):
        Scorer(None, config=TARSConfig(alpha=0), token_budget=0)


class Memory:
    """Stands in for a device's memory: a forward of more than `rows` rows runs out of it. (A CPU has too much.)"""

    def __init__(self, model, rows):
        self.rows = rows
        self.seen = []
        self._stock = model.forward

    def __call__(self, **batch):
        self.seen.append(len(batch["input_ids"]))
        if self.seen[-1] > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self._stock(**batch)


@pytest.fixture
def memory(speech_model, monkeypatch):
    made = Memory(speech_model.model, 3)
    monkeypatch.setattr(speech_model.model, "forward", made)
    return made


def test_running_out_of_memory_halves_the_batch(speech_model, memory, questions, caplog):
    scorer = Scorer(speech_model, config=TARSConfig(beta=0))
    found = [row["log_prob"] for scored in scorer.score(questions) for row in scored.rows()]
    assert max(memory.seen) > 3
    first_that_fits = next(index for index, rows in enumerate(memory.seen) if 1 < rows <= 3)
    assert max(memory.seen[first_that_fits:]) <= 4
    assert "out of memory at" in caplog.text
    before = len(memory.seen)
    list(scorer.score(questions))
    assert max(memory.seen[before:]) <= 4  # learnt
    memory.rows = 100
    expected = [
        row["log_prob"]
        for scored in Scorer(speech_model, config=TARSConfig(beta=0)).score(questions)
        for row in scored.rows()
    ]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_completion_that_never_fits_is_an_error_of_its_question(speech_model, memory, questions):
    memory.rows = 0
    # Encoding a clip is a forward too; written completions alone need none.
    row = {**questions[0].to_row(), "completions": {"text": [RIGHT]}}
    with pytest.raises(
        ScoringError, match=r"question 'q0': a single completion with its prompt, \d+ tokens, does not fit"
    ):
        list(Scorer(speech_model, config=TARSConfig(beta=0)).score([row]))


def test_real_exhaustion_of_a_cpu_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**46, dtype=torch.uint8).fill_(1)
    assert forward._out_of_memory(caught.value)
    assert not forward._out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_other_errors_are_not_taken_for_a_lack_of_memory(speech_model, questions, monkeypatch):
    def fail(**_):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(speech_model.model, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list(Scorer(speech_model, config=TARSConfig(beta=0)).score(questions))


def test_batches_fill_the_budget_longest_first():
    lengths = [5, 30, 10, 10, 7]
    batches = list(forward.TokenBudget(30).batches(lengths))
    assert batches == [[1], [2, 3, 4], [0]]
    assert sorted(itertools.chain(*batches)) == list(range(5))


def test_rollouts_name_question_modality_and_sample(scorer, questions):
    rollouts = next(scorer.score(questions)).rollouts
    assert [(each.pair_id, each.modality, each.sample_id) for each in rollouts] == [
        ("q0", "speech", 0),
        ("q0", "speech", 1),
        ("q0", "text", 0),
        ("q0", "text", 1),
    ]
    assert rollouts[0] == Rollout("q0", "speech", 0, RIGHT, "4")
