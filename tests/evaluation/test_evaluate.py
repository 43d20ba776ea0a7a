"""The whole run: rows, judgement, conditions, what the directory holds, both engines."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import voicebench
from chat_server import Reply, clip, completion, user_turn
from evaluating import identities, own_file, results
from voicebench import write_openbookqa

from tars_rewards.errors import ConfigError, InputError
from tars_rewards.evaluation.benchmarks import REASONING_PROMPT
from tars_rewards.evaluation.compare import compare_runs
from tars_rewards.evaluation.evaluate import run
from tars_rewards.evaluation.records import read_info, read_results

RIGHT = "<think>so</think><answer>The answer is B.</answer>"


def test_a_row_for_every_question_and_modality(settings, server, tmp_path):
    [evaluation] = run(settings)
    rows = results(tmp_path / "run")
    ids = [f"ori_mmlu-jurisprudence_{n}" for n in (880, 881, 882)] + [f"ori_mmlu-astronomy_{n}" for n in (980, 981)]
    assert identities(rows) == [(each, modality, 0) for each in ids for modality in ("speech", "text")]
    first = rows[2]
    assert first.pop("seconds") > 0
    assert first == {
        "id": ids[1], "modality": "speech", "sample_id": 0, "category": "law", "prompt": voicebench.QUESTION.format(1),
        "answer": "B", "completion": RIGHT, "extraction": "The answer is B.", "correct": True, "truncated": False,
        "tokens": 7, "audio": "audio/001.wav",
    }  # fmt: skip
    # The server says B; right are A, B, C and A, B.
    assert [row["correct"] for row in rows] == [False, False, True, True, False, False, False, False, True, True]
    assert (evaluation.questions, evaluation.bad, evaluation.resumed) == (5, 0, 0)
    assert evaluation.summary.modalities["speech"].accuracy.value == pytest.approx(0.4)
    assert evaluation.summary.categories["physics"].accuracy["text"].value == pytest.approx(0.5)
    assert len(server.requests) == 10
    assert all(request["messages"][0]["content"] == REASONING_PROMPT for request in server.requests)
    assert not (tmp_path / "run/results.jsonl.partial").exists()


def test_the_directory_says_what_the_run_was(settings, server, tmp_path, monkeypatch):
    monkeypatch.setenv("CHAT_KEY", "sk-very-secret")
    run(replace(settings, api_key_var="CHAT_KEY", instruction="Answer."))
    info = read_info(tmp_path / "run")
    assert (info.model, info.engine, info.benchmark, info.extractor) == ("tiny", server.url, "mmsu", "tags")
    assert info.sampling == {"n": 1, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 64, "seed": 0}
    assert info.condition == {"snr_db": None, "speed": 1.0, "seed": 0}
    assert "torch" in info.versions
    assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    for path in (tmp_path / "run").rglob("*.json*"):
        assert "sk-very-secret" not in path.read_text()
    assert len(list(read_results(tmp_path / "run"))) == 10  # the reader's own checks pass
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["modalities"]["speech"]["accuracy"]["value"] == pytest.approx(0.4)


def test_fingerprints_tell_questions_and_prompts_apart(settings, tmp_path):
    out = str(tmp_path / "other")
    [_] = run(settings)
    one = read_info(tmp_path / "run")
    run(replace(settings, out=out))
    assert (read_info(out).questions, read_info(out).prompts) == (one.questions, one.prompts)
    run(replace(settings, out=out, system="Be brief.", overwrite=True))
    assert read_info(out).prompts != one.prompts
    run(replace(settings, out=out, limit=4, overwrite=True))
    assert read_info(out).questions != one.questions
    assert len(results(tmp_path / "other")) == 8


def test_fingerprints_tell_prompts_of_single_questions_apart(settings, tmp_path):
    found = []
    for changes in ({}, {"system": "Be brief."}, {"instruction": "Be brief."}):
        out = str(tmp_path / f"run{len(found)}")
        run(replace(settings, benchmark=own_file(tmp_path / "questions.jsonl", 2, **changes), data=None, out=out))
        found.append(read_info(out))
    assert len({info.questions for info in found}) == 1
    assert len({info.prompts for info in found}) == 3
    with pytest.raises(InputError, match="system prompt and instruction differ"):
        compare_runs([tmp_path / "run0", tmp_path / "run1"])


def test_the_other_benchmark(settings, tmp_path):
    [evaluation] = run(replace(settings, benchmark="obqa", data=str(write_openbookqa(tmp_path / "ob"))))
    assert [row["id"] for row in results(tmp_path / "run")][::2] == ["obqa_0", "obqa_1", "obqa_2"]
    assert evaluation.summary.categories == {}


@pytest.mark.parametrize(("modality", "kinds"), [("speech", {list}), ("text", {str}), ("both", {list, str})])
def test_only_the_modalities_that_are_asked_for(settings, server, tmp_path, modality, kinds):
    run(replace(settings, modality=modality))
    assert {type(user_turn(request)) for request in server.requests} == kinds
    assert len(results(tmp_path / "run")) == 5 * len(kinds)


def test_several_samples_a_question(settings, server, tmp_path):
    run(replace(settings, samples=3, temperature=1.0, limit=2))
    rows = results(tmp_path / "run")
    assert [row["sample_id"] for row in rows] == [0, 1, 2] * 4
    assert len({request["seed"] for request in server.requests}) == 12


def test_seconds_add_up_to_the_time_that_it_took(settings, server, tmp_path):
    server.delay = 0.1
    begin = time.monotonic()
    run(settings)
    took = time.monotonic() - begin
    total = sum(row["seconds"] for row in results(tmp_path / "run"))
    assert 0.1 <= total <= took


def test_what_states_no_answer_is_unparsed_and_wrong(settings, server, tmp_path):
    texts = iter(["I cannot tell.", "<answer>The answer is A or B.</answer>", "A", RIGHT.replace("B", "A"), RIGHT])
    server.always = lambda _: Reply(200, completion(next(texts)))
    [evaluation] = run(replace(settings, modality="text", concurrency=1))
    rows = results(tmp_path / "run")
    assert [row["extraction"] for row in rows] == [
        None, "The answer is A or B.", None, "The answer is A.", "The answer is B.",
    ]  # fmt: skip
    assert [row["correct"] for row in rows] == [False, False, False, True, True]
    assert evaluation.summary.modalities["text"].unparsed == pytest.approx(0.4)


def test_another_extractor_reads_more(settings, server, tmp_path):
    server.always = Reply(200, completion("I would choose option (B)."))
    run(replace(settings, answer_extractor="voicebench"))
    assert {row["extraction"] for row in results(tmp_path / "run")} == {"B"}
    assert read_info(tmp_path / "run").extractor == "voicebench"


def test_the_extractor_that_takes_questions_is_given_them(settings, tmp_path, monkeypatch):
    from tars_rewards.extraction.xfinder import XFinder

    asked = []

    def batch(self, completions, *, questions=None):
        asked.extend(zip(completions, questions, strict=True))
        return ["B"] * len(completions)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    monkeypatch.setattr(XFinder, "batch", batch)
    run(replace(settings, answer_extractor="xfinder"))
    assert [row["extraction"] for row in results(tmp_path / "run")] == ["B"] * 10
    assert asked[2] == (RIGHT, voicebench.QUESTION.format(1))


def test_a_truncated_completion_says_so(settings, server, tmp_path):
    server.always = Reply(200, completion("<think>so", reason="length", tokens=64))
    [evaluation] = run(settings)
    assert all(row["truncated"] and row["tokens"] == 64 for row in results(tmp_path / "run"))
    assert evaluation.summary.modalities["text"].truncated == 1.0


def test_clips_are_kept_as_they_were_heard(settings, server, tmp_path):
    import soundfile

    run(replace(settings, snr=(5,), clips=2, concurrency=1))
    rows = [row for row in results(tmp_path / "run") if row["modality"] == "speech"]
    assert [row["audio"] for row in rows] == ["audio/000.wav", "audio/001.wav", None, None, None]
    assert all(row["audio"] is None for row in results(tmp_path / "run") if row["modality"] == "text")
    kept, rate = soundfile.read(tmp_path / "run/audio/001.wav", dtype="float32")
    sent = [clip(request)[0] for request in server.requests if not isinstance(user_turn(request), str)]
    assert rate == 16000
    assert (kept == sent[1]).all()
    assert len(list((tmp_path / "run/audio").iterdir())) == 2


def test_clips_that_are_files_are_named_where_they_are(settings, tmp_path):
    source = own_file(tmp_path / "own.jsonl", 3, category="sums")
    run(replace(settings, benchmark=source, data=None, clips=1))
    rows = [row for row in results(tmp_path / "run") if row["modality"] == "speech"]
    assert [row["audio"] for row in rows] == ["audio/000.wav", *[str(tmp_path / "clip.wav")] * 2]
    assert {row["category"] for row in rows} == {"sums"}


def test_every_ratio_has_a_directory_and_the_written_questions_are_answered_once(settings, server, tmp_path):
    evaluations = run(replace(settings, snr=(float("inf"), 10, -5)))
    assert [evaluation.out for evaluation in evaluations] == [
        str(tmp_path / "run" / name) for name in ("clean", "snr10", "snr-5")
    ]
    assert [evaluation.condition.snr_db for evaluation in evaluations] == [None, 10, -5]
    assert [read_info(evaluation.out).condition["snr_db"] for evaluation in evaluations] == [None, 10, -5]
    assert len([request for request in server.requests if isinstance(user_turn(request), str)]) == 5
    heard = [clip(request)[0] for request in server.requests if not isinstance(user_turn(request), str)]
    assert len(heard) == 15
    # Three different tones, and under noise all five clips are different.
    assert len({samples.tobytes() for samples in heard}) == 3 + 5 + 5
    written = [
        [row for row in results(tmp_path / "run" / name) if row["modality"] == "text"]
        for name in ("clean", "snr10", "snr-5")
    ]
    assert written[0] == written[1] == written[2]
    assert len(written[0]) == 5
    order = [identities(results(tmp_path / "run" / name)) for name in ("clean", "snr10", "snr-5")]
    assert order[0] == order[1] == order[2]


def test_speed_makes_clips_shorter(settings, server, tmp_path):
    run(replace(settings, speed=1.25, modality="speech"))
    assert {len(clip(request)[0]) for request in server.requests} == {6400}


def test_the_backbone_is_the_denominator(settings, tmp_path):
    run(replace(settings, out=str(tmp_path / "backbone"), modality="text"))
    [evaluation] = run(replace(settings, backbone=str(tmp_path / "backbone")))
    assert evaluation.summary.denominator == pytest.approx(0.4)
    assert "backbone" in evaluation.summary.denominator_name
    assert evaluation.summary.recovery_rate.value == pytest.approx(100)


@pytest.mark.parametrize("family", ["qwen2_audio", "qwen2_5_omni"])
def test_a_model_in_this_process(settings, tiny, clips, tmp_path, family):
    rows = [
        {"id": f"q{n}", "prompt": f"What is {n} plus {n}?", "audio": str(clips[n]), "answer": "4"} for n in range(3)
    ]
    source = tmp_path / "own.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = replace(
        settings, model=str(tiny / family), url=None, device="cpu", benchmark=str(source), data=None, system="",
        max_new_tokens=16, snr=(float("inf"), 0),
    )  # fmt: skip
    clean, noisy = run(own)
    found = results(tmp_path / "run/clean")
    assert len(found) == 6
    assert all(0 < row["tokens"] <= 16 for row in found)
    assert read_info(clean.out).engine == "huggingface"
    spoken, drowned = (
        [row["completion"] for row in results(tmp_path / "run" / name) if row["modality"] == "speech"]
        for name in ("clean", "snr0")
    )
    assert spoken != drowned
    assert noisy.questions == 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"modality": "audio"}, "modality is 'audio'; expected one of both, speech, text"),
        ({"answer_extractor": "regex"}, "answer_extractor is 'regex'; expected one of tags"),
        ({"limit": 0}, "limit is 0; expected an integer of at least 1"),
        ({"clips": -1}, "clips is -1; expected an integer of at least 0"),
        ({"snr": (5, 5)}, "expected each ratio once"),
        ({"snr": (float("nan"),)}, "snr_db is nan"),
        ({"speed": 9.0}, "speed is 9.0"),
        ({"samples": 0}, "n is 0; expected an integer of at least 1"),
        ({"temperature": -1}, "temperature is -1"),
        ({"model": ""}, "model is ''; expected a non-empty text"),
        ({"snr": (5,), "modality": "text"}, "change nothing about questions that are read"),
        ({"url": None, "api_key_var": "KEY"}, "api_key_var is set, but url is not"),
    ],
)
def test_settings_that_cannot_be(settings, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        replace(settings, **changes)


def test_importing_the_settings_loads_no_torch():
    program = "import sys, tars_rewards.evaluation.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
