"""Benchmarks by name, from files in VoiceBench's schema; anything else is refused by name of file, column or row."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import voicebench
from voicebench import MMSU, OPENBOOKQA, mmsu_row, openbookqa_row, write, write_mmsu, write_openbookqa

from tars_rewards import Question
from tars_rewards.errors import ConfigError, InputError
from tars_rewards.evaluation import benchmarks
from tars_rewards.evaluation.benchmarks import BENCHMARKS, open_benchmark
from tars_rewards.speech.waveform import load_waveform


def questions(source):
    return [Question.from_row(row.value, root=source.root) for row in source.rows()]


def test_mmsu_is_read_from_its_files(tmp_path):
    source = open_benchmark("mmsu", write_mmsu(tmp_path))
    found = questions(source)
    assert [question.id for question in found] == [
        "ori_mmlu-jurisprudence_880",
        "ori_mmlu-jurisprudence_881",
        "ori_mmlu-jurisprudence_882",
        "ori_mmlu-astronomy_980",
        "ori_mmlu-astronomy_981",
    ]
    assert [question.category for question in found] == ["law"] * 3 + ["physics"] * 2
    assert [question.answer for question in found] == ["A", "B", "C", "A", "B"]
    assert found[1].prompt == voicebench.QUESTION.format(1)
    samples, _ = soundfile.read(io.BytesIO(voicebench.tone(1)), dtype="float32")
    np.testing.assert_array_equal(load_waveform(found[1].audio), samples)
    assert [source.where(row.number) for row in source.rows()][-1] == "physics-00000-of-00001.parquet, row 2"


def test_openbookqa_is_read_from_its_file(tmp_path):
    found = questions(open_benchmark("obqa", write_openbookqa(tmp_path)))
    assert [(question.id, question.answer, question.category) for question in found] == [
        ("obqa_0", "A", None),
        ("obqa_1", "B", None),
        ("obqa_2", "C", None),
    ]


def test_the_files_are_found_wherever_they_are(tmp_path):
    write_mmsu(tmp_path)
    whole = [row.value["id"] for row in open_benchmark("mmsu", tmp_path).rows()]
    assert [row.value["id"] for row in open_benchmark("mmsu", tmp_path / "mmsu").rows()] == whole
    one = open_benchmark("mmsu", tmp_path / "mmsu" / "physics-00000-of-00001.parquet")
    assert [row.value["id"] for row in one.rows()] == whole[3:]


@pytest.mark.parametrize("name", ["mmsu", "obqa"])
def test_the_files_here_are_such_as_datasets_writes(tmp_path, name):
    """By the library that the benchmark was published with."""
    datasets = pytest.importorskip("datasets")
    path = next((write_mmsu if name == "mmsu" else write_openbookqa)(tmp_path).rglob("*.parquet"))
    features = datasets.Features.from_arrow_schema(pq.read_schema(path))
    assert features.pop("audio") == datasets.Audio(sampling_rate=16000)
    kinds = {column: kind for column, kind in BENCHMARKS[name].columns.items() if column != "audio"}
    assert {column: feature.dtype for column, feature in features.items()} == {
        column: {"text": "string", "integer": "int64"}[kind] for column, kind in kinds.items()
    }
    assert datasets.Audio().pa_type == voicebench.AUDIO


def test_a_clip_that_is_a_file_of_its_own(tmp_path):
    (tmp_path / "clip.wav").write_bytes(voicebench.tone())
    row = openbookqa_row(0, audio={"bytes": None, "path": "clip.wav"})
    path = write(tmp_path / "test.parquet", [row], OPENBOOKQA)
    [question] = questions(open_benchmark("obqa", path))
    assert question.audio == {"path": str(tmp_path / "clip.wav")}


@pytest.mark.parametrize("name", ["mmsu", "obqa"])
def test_each_missing_column_is_named(tmp_path, name):
    schema, row = (MMSU, mmsu_row(0)) if name == "mmsu" else (OPENBOOKQA, openbookqa_row(0))
    for column in schema.names:
        kept = pa.schema([field for field in schema if field.name != column])
        path = write(tmp_path / "x.parquet", [{key: row[key] for key in kept.names}], kept)
        with pytest.raises(InputError, match=f"column '{column}': expected .*, got none") as caught:
            open_benchmark(name, path)
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("column", "kind", "value", "expected"),
    [
        ("question_id", pa.string(), "886", "column 'question_id': expected int64, got string"),
        ("reference", pa.int64(), 0, "column 'reference': expected string, got int64"),
        ("audio", pa.string(), "a.wav", "column 'audio': expected struct<bytes: binary, path: string>, got string"),
        ("audio", pa.struct([("array", pa.list_(pa.float32()))]), {"array": [0.0]}, "got struct<array: list"),
    ],
)
def test_a_column_of_another_kind_is_named(tmp_path, column, kind, value, expected):
    schema = pa.schema([pa.field(field.name, kind) if field.name == column else field for field in MMSU])
    path = write(tmp_path / "x.parquet", [mmsu_row(0, **{column: value})], schema)
    with pytest.raises(InputError) as caught:
        open_benchmark("mmsu", path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reference": "E"}, "column 'reference': expected a letter from A to D, got 'E'"),
        ({"reference": None}, "column 'reference': expected a letter from A to D, got None"),
        ({"src": None}, "columns 'src' and 'question_id': expected both"),
    ],
)
def test_a_bad_row_is_a_problem_of_that_row(tmp_path, changes, expected):
    path = write(tmp_path / "law.parquet", [mmsu_row(0), mmsu_row(1, **changes)], MMSU)
    source = open_benchmark("mmsu", path)
    good, bad = source.rows()
    assert good.problem is None
    assert source.where(bad.number) == "law.parquet, row 2"
    assert expected in bad.problem


def test_an_unknown_benchmark(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown benchmark 'mmus'; did you mean 'mmsu'\? Known are mmsu and obqa"):
        open_benchmark("mmus")
    with pytest.raises(ConfigError, match="did you mean 'obqa'"):
        open_benchmark("openbookqa")


def test_a_directory_without_files(tmp_path):
    with pytest.raises(InputError, match="expected the Parquet files of VoiceBench's openbookqa, found none"):
        open_benchmark("obqa", tmp_path)


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "law.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"law\.parquet cannot be read as Parquet"):
        open_benchmark("mmsu", tmp_path)


def test_a_file_of_questions_is_itself_the_benchmark(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"id": "a", "prompt": "2+2?", "answer": 4, "category": "sums"}\n')
    [question] = questions(open_benchmark(tmp_path / "own.jsonl"))
    assert (question.id, question.answer, question.category) == ("a", "4", "sums")
    with pytest.raises(ConfigError, match="is itself the file of questions"):
        open_benchmark(tmp_path / "own.jsonl", tmp_path)


def test_the_hub_is_asked_for_the_files_of_one_config(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(repository, **options):
        asked.append((repository, options))
        return write_openbookqa(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert len(questions(open_benchmark("obqa"))) == 3
    assert asked == [
        ("hlt-lab/voicebench", {"repo_type": "dataset", "allow_patterns": "openbookqa/*.parquet"}),
    ]


def test_a_hub_out_of_reach_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"mmsu cannot be had from the Hugging Face hub .* name their directory by data"
    ):
        open_benchmark("mmsu")


def test_the_prompt_asks_for_what_the_reward_wants():
    from tars_rewards.answers import extract_answer, has_format

    example = benchmarks.REASONING_PROMPT.partition("like this: ")[2]
    filled = example.replace("[REASONING]", "2+2").replace("[CHOICE]", "B")
    assert has_format(filled)
    assert extract_answer(filled) == "The answer is B."


def test_what_is_published_about_the_benchmarks():
    """VoiceBench's dataset card and the paper's table of benchmarks."""
    assert {name: benchmark.questions for name, benchmark in BENCHMARKS.items()} == {"mmsu": 3074, "obqa": 455}
    assert list(BENCHMARKS["mmsu"].columns) == MMSU.names
    assert list(BENCHMARKS["obqa"].columns) == OPENBOOKQA.names
