"""What is measured of a checkpoint, against the stock path and plain arithmetic."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch


@pytest.fixture(scope="module")
def measured(base, data, heard_cache):
    from measure import measure

    return measure(base, ["test"], base_text_accuracy={"test": 0.8}, data=data, heard_cache=heard_cache)["test"]


@pytest.fixture(scope="module")
def answers(base, data):
    """Greedy completions of the stock path, one at a time: {modality: [(question's row, ids, text, states)]}."""
    from model import load

    thinker, processor = load(base)
    found = {"speech": [], "text": []}
    for row in pd.read_parquet(data / "test.parquet").to_dict("records"):
        spoken = row["modality"] == "speech"
        content = {"type": "audio"} if spoken else {"type": "text", "text": row["extra_info"]["question"]}
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": [content]}], tokenize=False, add_generation_prompt=True
        )
        audio = {"audio": [soundfile.read(row["audios"][0], dtype="float32")[0]]} if spoken else {}
        inputs = processor(text=[prompt], **audio, return_tensors="pt")
        with torch.no_grad():
            ids = thinker.generate(**inputs, max_new_tokens=64, do_sample=False)[0]
            length = inputs.pop("input_ids").shape[1]
            inputs["attention_mask"] = torch.ones(1, len(ids), dtype=torch.long)
            states = thinker(input_ids=ids[None], **inputs, output_hidden_states=True).hidden_states
        text = processor.tokenizer.decode(ids[length:], skip_special_tokens=True)
        found[row["modality"]].append(
            (row, ids[length:].tolist(), text, [layer[0, length:].mean(0) for layer in states])
        )
    return found


def right(answers, modality):
    return [re.findall(r"The answer is (\w)", text) == [row["answer"]] for row, _, text, _ in answers[modality]]


def test_accuracy_length_and_reasoning_are_those_of_the_stock_path(measured, answers):
    for modality in ("speech", "text"):
        assert measured[f"{modality}_accuracy"] == pytest.approx(np.mean(right(answers, modality)))
        lengths = [len(ids) for _, ids, _, _ in answers[modality]]
        assert measured[f"{modality}_tokens"] == pytest.approx(np.mean(lengths))
        words = [len(text.split("<think>")[1].split("</think>")[0].split()) for _, _, text, _ in answers[modality]]
        assert measured[f"{modality}_reasons"] == pytest.approx(np.mean([count >= 5 for count in words]))
    assert measured["questions"] == 10


def test_the_recovery_rate_is_against_the_bases_text_accuracy(measured):
    assert measured["mrr"] == pytest.approx(100 * measured["speech_accuracy"] / 0.8)
    assert measured["own_text_ratio"] == pytest.approx(measured["speech_accuracy"] / measured["text_accuracy"])
    assert measured["gap"] == pytest.approx(measured["text_accuracy"] - measured["speech_accuracy"])


def test_the_outcome_of_every_question_can_be_read_back(measured, answers):
    from experiment_results import read_outcomes

    for modality in ("speech", "text"):
        assert read_outcomes(measured["outcomes"][modality], 10) == right(answers, modality)
    with pytest.raises(ValueError, match="17 questions"):
        read_outcomes(measured["outcomes"]["text"], 17)


def test_behavior_deviation_is_that_of_the_sentence_embedder(measured, answers):
    from sentence_transformers import SentenceTransformer
    from verl_training import embedder

    model = SentenceTransformer(str(embedder()), device="cpu")
    speech, text = (
        model.encode([each[2] for each in answers[modality]], normalize_embeddings=True)
        for modality in ("speech", "text")
    )
    # The difference is that of the embedder's precision.
    assert measured["behavior_deviation"] == pytest.approx(1 - (speech * text).sum(1).mean(), abs=1e-3)
    assert measured["behavior_pairs"] == 10


def test_layer_cosines_are_those_of_hugging_faces_states(measured, answers):
    kept = [index for index, correct in enumerate(right(answers, "text")) if correct]
    assert measured["layer_cosine_pairs"] == len(kept)
    speech, text = (
        torch.stack([torch.stack(answers[modality][index][3]) for index in kept]) for modality in ("speech", "text")
    )
    # Of the last layer Hugging Face gives the states behind the final norm.
    matched = torch.cosine_similarity(speech, text, dim=-1).mean(0)[1:-1]
    mismatched = torch.cosine_similarity(speech, text.roll(1, 0), dim=-1).mean(0)[1:-1]
    assert measured["layer_cosine"][:-1] == pytest.approx(matched.tolist(), abs=1e-3)
    assert measured["layer_cosine_mismatched"][:-1] == pytest.approx(mismatched.tolist(), abs=1e-3)


def test_a_set_without_the_bases_accuracy_is_refused(base, data, heard_cache):
    from measure import measure

    with pytest.raises(KeyError, match="dev"):
        measure(base, ["dev"], base_text_accuracy={"test": 0.8}, data=data, heard_cache=heard_cache)


def test_a_written_question_is_completed_once(base, data, tmp_path, monkeypatch):
    import measure as module

    asked = []

    def counting(thinker, processor, prompts, _stock=module.generate, **settings):
        asked.append(len(prompts))
        return _stock(thinker, processor, prompts, **settings)

    monkeypatch.setattr(module, "generate", counting)
    table = pd.read_parquet(data / "test.parquet")
    for name, questions in (("noise_0", 4), ("noise_20", 6)):
        table.head(2 * questions).to_parquet(tmp_path / f"{name}.parquet")
    measured = module.measure(
        base, ["noise_0", "noise_20"], base_text_accuracy=None, data=tmp_path, heard_cache=tmp_path
    )
    assert asked == [4, 4, 2, 6]  # written and spoken; written that are new, and spoken
    alone = module.measure(base, ["noise_20"], base_text_accuracy=None, data=tmp_path, heard_cache=tmp_path)
    assert measured["noise_20"] == alone["noise_20"]


def test_only_the_first_pairs_are_compared():
    from measure import behavior_deviation

    class Reward:
        def embed(self, texts):
            return np.array([[1.0, float(text)] for text in texts], np.float32)

    assert behavior_deviation(Reward(), ["0", "0", "9"], ["0", "0", "0"], most=2) == {
        "behavior_deviation": 0.0,
        "behavior_pairs": 2,
    }


def test_blank_answers_are_in_no_deviation():
    from measure import behavior_deviation

    assert behavior_deviation(None, ["", " "], ["yes", "no"]) == {"behavior_deviation": None, "behavior_pairs": 0}


def test_clips_are_heard_once_and_again_when_they_change(base, data, tmp_path, monkeypatch):
    import heard
    from evaluate import read_table
    from model import load

    calls, stock = [], heard.hear
    monkeypatch.setattr(heard, "hear", lambda *arguments: calls.append(1) or stock(*arguments))
    thinker, processor = load(base)
    table = read_table(data, "dev", 2)
    copies = [tmp_path / f"{index}.wav" for index in range(2)]
    for copy, clips in zip(copies, table["audios"], strict=True):
        copy.write_bytes(Path(clips[0]).read_bytes())
    table["audios"] = [[str(copy)] for copy in copies]

    def outputs():
        return heard.heard(thinker, processor, table, tmp_path / "cache" / "dev.safetensors")

    first, second = outputs(), outputs()
    assert len(calls) == 1
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    with torch.no_grad():  # another base's projector: not part of what is kept
        thinker.audio_tower.proj.weight.mul_(2)
    outputs()
    assert len(calls) == 1
    copies[0].write_bytes(copies[1].read_bytes())
    changed = outputs()
    assert len(calls) == 2
    assert torch.equal(changed[0], changed[1])
    with torch.no_grad():
        thinker.audio_tower.layers[0].fc1.weight.mul_(2)
    outputs()
    assert len(calls) == 3
