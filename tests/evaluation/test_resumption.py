"""A run that is interrupted goes on: after a kill, after an endpoint that went away; never with other settings."""

import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from chat_server import Reply, user_turn
from evaluating import identities, own_file, results

from tars_rewards.errors import InputError, ScoringError
from tars_rewards.evaluation import evaluate
from tars_rewards.evaluation.evaluate import run

COUNT, PORTION = 128, 64  # questions, and the most of them that are worked on together


def test_ratios_that_are_done_are_not_done_again(settings, server, tmp_path):
    run(replace(settings, snr=(20, 10)))
    before = len(server.requests)
    first, second, third = run(replace(settings, snr=(20, 10, 0)))
    assert len(server.requests) - before == 5
    assert (first.resumed, second.resumed, third.resumed) == (5, 5, 0)


def test_a_run_that_is_complete_is_summarized_again_only(settings, server, tmp_path):
    run(settings)
    rows, requests = results(tmp_path / "run"), len(server.requests)
    (tmp_path / "run/summary.json").unlink()
    [evaluation] = run(settings)
    assert (evaluation.questions, evaluation.resumed) == (5, 5)
    assert (results(tmp_path / "run"), len(server.requests)) == (rows, requests)
    assert (tmp_path / "run/summary.json").exists()


def test_a_complete_run_is_not_taken_for_one_on_questions_that_have_changed(settings, server, tmp_path):
    own = replace(settings, benchmark=own_file(tmp_path / "questions.jsonl", 3), data=None)
    run(own)
    requests = len(server.requests)
    for count, changes in ((4, {}), (3, {"answer": "C"}), (3, {"category": "new"})):
        own_file(tmp_path / "questions.jsonl", count, **changes)
        with pytest.raises(InputError, match=r"questions\.jsonl has changed since .*run was evaluated on it; choose"):
            run(own)
    assert len(server.requests) == requests
    own_file(tmp_path / "questions.jsonl", 3)
    assert run(own)[0].resumed == 3
    own_file(tmp_path / "questions.jsonl", 4)
    assert run(replace(own, overwrite=True))[0].questions == 4


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "other"}, "model: 'tiny' then, 'other' now"),
        ({"system": "Be brief."}, "system:"),
        ({"temperature": 0.5}, "sampling:"),
        ({"answer_extractor": "voicebench"}, "extractor: 'tags' then, 'voicebench' now"),
        ({"snr": (10,)}, "condition:"),
        ({"limit": 2}, "limit: None then, 2 now"),
        ({"modality": "text"}, "modalities:"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_other_settings_refuse_to_continue(settings, server, tmp_path, changes, named, complete):
    if not complete:
        settings = replace(settings, benchmark=own_file(tmp_path / "own.jsonl", 64), data=None)
        server.always = lambda request: Reply(404, "gone") if "Question 40" in str(user_turn(request)) else None
        with pytest.raises(ScoringError):
            run(settings)
        server.always = lambda request: None
    else:
        run(settings)
    requests = len(server.requests)
    with pytest.raises(InputError, match="run with other settings") as caught:
        run(replace(settings, **changes))
    assert [problem.startswith(named) for problem in caught.value.problems] == [True]
    assert len(server.requests) == requests
    run(replace(settings, **changes, overwrite=True))
    [row, *_] = results(tmp_path / "run")
    if complete:
        assert row["id"] == "ori_mmlu-jurisprudence_880"


def test_other_settings_begin_anew_where_nothing_is_done(settings, server, tmp_path):
    server.script = [Reply(404, "gone")]
    with pytest.raises(ScoringError):
        run(replace(settings, model="mistyped"))
    server.script = []
    assert run(settings)[0].resumed == 0


def test_an_endpoint_that_goes_away_loses_nothing(settings, server, tmp_path):
    source = own_file(tmp_path / "own.jsonl", 64)
    settings = replace(settings, benchmark=source, data=None)
    server.always = lambda request: Reply(401, "go away") if "Question 40" in str(user_turn(request)) else None
    with pytest.raises(ScoringError, match="status 401"):
        run(settings)
    assert not (tmp_path / "run/results.jsonl").exists()
    server.always = None
    requests = len(server.requests)
    [evaluation] = run(settings)
    # Portions of 8, 16, … questions; the third has question 40.
    assert evaluation.resumed == 24
    assert len(server.requests) - requests == 2 * 40
    assert len(set(identities(results(tmp_path / "run")))) == len(results(tmp_path / "run")) == 128


def test_a_killed_process_loses_and_doubles_nothing(settings, server, tmp_path):
    source = own_file(tmp_path / "own.jsonl", COUNT)
    server.delay = 0.005
    program = (
        "from tars_rewards.evaluation.evaluate import run\n"
        "from tars_rewards.evaluation.settings import EvaluationSettings\n"
        f"[made] = run(EvaluationSettings(model='tiny', benchmark={source!r}, out={settings.out!r}, url={server.url!r},\n"
        "    concurrency=2, backbone=None))\n"
        "print(made.resumed)\n"
    )
    journal = tmp_path / "run/results.jsonl.partial"
    killed = 0
    for wanted in (8, 24):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 120
        while time.monotonic() < end and (not journal.exists() or journal.read_bytes().count(b"\n") < 1 + wanted):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        assert not (tmp_path / "run/results.jsonl").exists()
    with journal.open("ab") as file:
        file.write(b'{"id": "q1')  # as of a process that is killed while it writes
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 24 <= int(done.stdout) < COUNT
    assert "question/s" in done.stderr
    rows = results(tmp_path / "run")
    assert identities(rows) == [(f"q{n}", modality, 0) for n in range(COUNT) for modality in ("speech", "text")]
    # Nothing was asked twice but what was under way when the process died.
    assert len(server.requests) <= 2 * COUNT + killed * 2 * PORTION


def test_a_kill_between_the_results_and_the_end(settings, server, tmp_path, monkeypatch):
    """The moments at which the files of a run appear, one by one."""

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "write_json", stop)  # before run.json
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    assert not (tmp_path / "run/results.jsonl").exists()
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "summarize", stop)  # before summary.json
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    assert (tmp_path / "run/results.jsonl").exists()
    run(settings)
    assert len(server.requests) == 10
    assert (tmp_path / "run/summary.json").exists()
