"""The paired dataset: pairs under any shuffling, labels that survive, and everything that can be wrong with a row."""

import types

import datasets
import pytest
from transformers import AutoTokenizer

from tars_rewards.errors import AdapterError, IncompletePairError, MissingAnswerError, UnsupportedConfigError
from tars_rewards_openrlhf import cpu
from tars_rewards_openrlhf.label import Label
from tars_rewards_openrlhf.settings import OUR_REWARD

cpu.install()
from tars_rewards_openrlhf.dataset import PairDataset, audio_parts  # noqa: E402  (imports OpenRLHF)


def strategy(model, *, label_key="reward_model", remote_url=(OUR_REWARD,)):
    data = types.SimpleNamespace(input_key="prompt", label_key=label_key, apply_chat_template=True, image_key="images")
    return types.SimpleNamespace(
        args=types.SimpleNamespace(
            data=data,
            tars=types.SimpleNamespace(),
            actor=types.SimpleNamespace(model_name_or_path=str(model)),
            reward=types.SimpleNamespace(remote_url=list(remote_url)),
        ),
        is_rank_0=lambda: True,
    )


def paired(tiny, *, model="qwen2_5_omni", rows=None, file="audio.parquet", **settings):
    table = datasets.load_dataset("parquet", data_files=str(tiny / file))["train"]
    if rows is not None:
        table = datasets.Dataset.from_list(rows(list(table)))
    return PairDataset(table, AutoTokenizer.from_pretrained(tiny / model), strategy(tiny / model, **settings))


def test_a_question_is_one_item_with_its_spoken_prompt_first(tiny):
    data = paired(tiny, rows=lambda rows: rows[::-1])
    assert len(data) == 8
    for index in range(8):
        (_, spoken, label, clips), (_, written, other, none) = data[index]
        spoken_label, written_label = Label.load(label), Label.load(other)
        assert spoken_label.pair_id == written_label.pair_id
        assert (spoken_label.modality, written_label.modality) == ("speech", "text")
        assert spoken.count("<|AUDIO|>") == 1
        assert written.count("<|AUDIO|>") == 0
        assert clips[0].endswith(".wav")
        assert none is None


def test_batches_of_shuffled_items_hold_whole_pairs(tiny):
    data = paired(tiny)
    _, prompts, labels, clips = data.collate_fn([data[5], data[2]])
    assert [Label.load(label).pair_id for label in labels] == ["q5", "q5", "q2", "q2"]
    assert len(prompts) == len(clips) == 4


def test_the_users_label_survives_inside_ours(tiny):
    data = paired(tiny, remote_url=["mine.py"])
    assert Label.load(data[0][0][2]).answer["style"] == "rule"
    own = paired(tiny, rows=lambda rows: [{**row, "mine": ["rubric", row["pair_id"]]} for row in rows], label_key="mine",
                 remote_url=["mine.py"])  # fmt: skip
    assert Label.load(own[3][1][2]).answer == ["rubric", "q3"]


def test_verls_reward_model_serves_as_answer_and_validation_is_marked(tiny):
    data = paired(tiny)
    assert Label.load(data[0][0][2]).answer.isdigit()
    assert not Label.load(data[0][0][2]).validation
    data.validation = True
    assert Label.load(data[0][0][2]).validation


def test_text_models_need_no_clips(tiny):
    data = paired(tiny, model="text", file="text.parquet")
    assert "(spoken)" in data[0][0][1]
    assert data[0][0][3] is None


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda rows: rows[:-1], IncompletePairError, "pair 'q7'.*must have one row of each"),
        (lambda rows: [{**row, "modality": "video"} for row in rows], IncompletePairError, "video"),
        (
            lambda rows: [{k: v for k, v in row.items() if k != "pair_id"} for row in rows],
            UnsupportedConfigError,
            r"pair_id.*missing, add to the dataset",
        ),
        (
            lambda rows: [{**row, "reward_model": {"ground_truth": ""}} for row in rows],
            MissingAnswerError,
            "pair 'q0', speech: expected the right answer as text.*--data.label_key",
        ),
        (
            lambda rows: [{**row, "audios": row["audios"] and ["gone.wav"]} for row in rows],
            AdapterError,
            r"pair 'q0', speech: clip gone\.wav cannot be read",
        ),
        (
            lambda rows: [{("audio" if name == "audios" else name): value for name, value in row.items()} for row in rows],
            AdapterError,
            "pair 'q0', speech: the prompt has 1 places for audio and the column 'audios' 0 clips.*--tars.audio_key",
        ),
        (
            lambda rows: [{**row, "audios": row["audios"] or ["x.wav"]} for row in rows],
            AdapterError,
            "pair 'q0', text: the prompt has 0 places for audio and the column 'audios' 1 clips",
        ),
        (
            lambda rows: [{**row, "audios": row["audios"] and row["audios"][0]} for row in rows if row["audios"]]
            + [{**row, "audios": ""} for row in rows if not row["audios"]],
            AdapterError,
            "expected a list of clips in 'audios', got str",
        ),
        (lambda rows: [{**row, "images": ["a.png"]} for row in rows], UnsupportedConfigError, "images in 'images'"),
    ],
)  # fmt: skip
def test_bad_rows_are_named_before_training(tiny, change, error, words):
    with pytest.raises(error, match=words):
        paired(tiny, rows=change)


def test_a_clip_beyond_the_encoders_window_is_named(tiny, tmp_path):
    import numpy as np
    import soundfile

    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(16000 * 31, np.float32), 16000)
    with pytest.raises(AdapterError, match=r"pair 'q0', speech: clip .*long\.wav of 31\.0 s is longer than the .* s"):
        paired(tiny, rows=lambda rows: [{**row, "audios": row["audios"] and [str(long)]} for row in rows])


def test_a_prompt_that_is_plain_text_may_have_audio_too(tiny):
    data = paired(tiny, rows=lambda rows: [{**row, "prompt": row["prompt"][0]["content"]} for row in rows])
    assert data[0][0][1].count("<|AUDIO|>") == 1


def test_audio_for_a_model_that_cannot_hear_names_those_that_can(tiny):
    with pytest.raises(UnsupportedConfigError, match=r"the data has audio, but the model.*Qwen2\.5-Omni"):
        paired(tiny, model="text")


def test_a_label_that_json_cannot_carry_is_named():
    with pytest.raises(AdapterError, match=r"expected a label that JSON can carry.*got object"):
        Label("q", "speech", object()).dump()
    with pytest.raises(AdapterError, match="expected a label written by the paired dataset"):
        Label.load("42")


def test_audio_tags_become_parts_where_they_stand():
    assert audio_parts("a <audio> b") == [
        {"type": "text", "text": "a "},
        {"type": "audio"},
        {"type": "text", "text": " b"},
    ]
    assert audio_parts("none") == "none"
    assert audio_parts([{"type": "audio"}]) == [{"type": "audio"}]
