"""The experiment's questions and the sets of them that are written."""

import re
from itertools import combinations, permutations
from pathlib import Path

import pandas as pd
import pytest
from solver import solve

SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def questions_of():
    import data

    return {name: data.question_set(name).questions for name in data.SETS}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    import data

    out = tmp_path_factory.mktemp("data")
    files = data.prepare(out, counts=dict.fromkeys(data.SETS, 4))
    assert [file.stem for file in files] == list(data.SETS)
    return out


def test_there_are_as_many_different_questions_as_promised(questions_of):
    expected = {"train": 4000, "dev": 500, "test": 2000, "new_family": 500}
    for name, questions in questions_of.items():
        count = expected.get(name, 500)
        assert len(questions) == len({q.text for q in questions}) == count
        letters = [q.answer for q in questions]
        assert all(0.27 < letters.count(letter) / count < 0.4 for letter in "ABC")


def test_no_text_and_nothing_that_a_question_is_about_is_in_two_splits(questions_of):
    for one, other in combinations((*SPLITS, "new_family"), 2):
        assert not {q.text for q in questions_of[one]} & {q.text for q in questions_of[other]}
        assert not {q.key for q in questions_of[one]} & {q.key for q in questions_of[other]}


def test_the_bases_were_not_trained_on_the_held_out_questions(questions_of):
    from itertools import islice

    import bases
    from questions import stream

    held_out = {q.key for name in ("dev", "test", "new_family") for q in questions_of[name]}
    for seed in range(bases.SEED, bases.SEED + 3):  # of the text stage, of the clips and of the later text questions
        assert not held_out & {q.key for q in islice(stream("train", seed), 5000)}


def test_the_answers_are_true(questions_of):
    for name in (*SPLITS, "new_family"):
        some = questions_of[name][:400]
        assert [q.answer for q in some] == [solve(q.text) for q in some]


def test_no_three_neighbours_of_the_new_family_were_ordered_in_training(questions_of):
    def names(question):
        return frozenset(re.findall(r"[A-Z][a-z]+", question.stem.replace("Who", "")))

    trained = {names(q) for q in questions_of["train"] if q.template == "ordering"}
    dev = {names(q) for q in questions_of["dev"] if q.template == "ordering"}
    assert all(len(triple) == 3 for triple in trained)
    for question in questions_of["new_family"]:
        chain = question.reasoning.split("so ")[1].split(".")[0].split(", ")
        assert len(chain) == 4
        assert not {frozenset(chain[:3]), frozenset(chain[1:])} & (trained | dev)


def test_the_harder_sets_ask_the_first_test_questions(questions_of):
    for name in ("unseen_voices", "noise_0", "noise_5", "noise_10", "noise_20"):
        assert questions_of[name] == questions_of["test"][:500]


def test_only_the_noise_differs_between_the_noisy_sets_and_the_test_set(written):
    usual = [row["extra_info"] for _, row in pd.read_parquet(written / "test.parquet").iterrows()]
    for snr in (0, 5, 10, 20):
        noisy = [row["extra_info"] for _, row in pd.read_parquet(written / f"noise_{snr}.parquet").iterrows()]
        assert {extra["snr_db"] for extra in noisy} == {snr}
        assert [extra["voice"] for extra in noisy] == [extra["voice"] for extra in usual]
    wavs = {name: (written / "wav" / name / "00000.wav").read_bytes() for name in ("noise_0", "noise_20", "test")}
    assert len({len(wav) for wav in wavs.values()}) == 1
    assert all(one != other for one, other in permutations(wavs.values(), 2))


def test_who_speaks(written):
    from speech import TRAIN_VOICES
    from voices import UNSEEN_VOICES

    for file in written.glob("*.parquet"):
        voices = {extra["voice"] for extra in pd.read_parquet(file)["extra_info"]}
        assert voices <= set(UNSEEN_VOICES if file.stem == "unseen_voices" else TRAIN_VOICES)


def test_every_set_has_the_columns_of_the_demo(written):
    for file in written.glob("*.parquet"):
        table = pd.read_parquet(file)
        assert list(table["modality"]) == ["speech", "text"] * 4
        assert table["pair_id"].is_unique is False
        assert table["pair_id"].nunique() == 4
        assert {extra["split"] for extra in table["extra_info"]} == {file.stem}
        assert all(Path(paths[0]).stat().st_size > 16_000 for paths in table["audios"][::2])


def test_what_is_done_is_not_made_again_and_what_is_missing_is(written):
    import data

    (written / "noise_5.parquet").unlink()
    before = {file: file.stat().st_mtime_ns for file in written.glob("*.parquet")}
    wav = (written / "wav" / "noise_5" / "00003.wav").read_bytes()
    data.prepare(written, counts=dict.fromkeys(data.SETS, 4))
    assert (written / "noise_5.parquet").exists()
    assert (written / "wav" / "noise_5" / "00003.wav").read_bytes() == wav
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_another_set_is_refused():
    import data

    with pytest.raises(ValueError, match="expected a set of"):
        data.question_set("noise_7")
