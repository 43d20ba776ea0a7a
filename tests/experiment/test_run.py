"""The command line: what is to be done and in which order, and what becomes of runs that fail or are stopped."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import experiment_results as results
import pytest
import run
from arms import ARMS
from single import Place, identity_of

EXPERIMENT = Path(run.__file__).parent


def arguments(tmp_path, *words):
    return run.parse_arguments([*words, "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results.json")])


def names(identities):
    return [" ".join(str(each[key]) for key in ("seed", "base", "arm")) for each in identities]


def test_all_arms_of_a_seed_come_before_the_next_seed(tmp_path):
    words = ["--arms", "none", "grpo", "tars", "--seeds", "0", "1", "--bases", "natural", "ordinary"]
    untrained, trainings = run.plan(arguments(tmp_path, *words))
    assert names(untrained) == ["0 natural none", "0 ordinary none"]
    assert names(trainings) == [
        f"{seed} {base} {arm}" for seed in (0, 1) for base in ("natural", "ordinary") for arm in ("grpo", "tars")
    ]


def test_by_default_everything_is_run(tmp_path):
    untrained, trainings = run.plan(arguments(tmp_path))
    assert len(untrained) == 3
    # On the ordinary base, the null, standard RL and TARS alone; what came after the fact, on the natural one.
    assert len(trainings) == 5 * ((len(ARMS) - 1) + (len(ARMS) - 2) + 2)


def test_each_of_several_learning_rates_is_run():
    args = run.parse_arguments(
        ["--arms", "grpo", "--seeds", "100", "--bases", "natural", "--learning-rates", "1e-4", "3e-4"]
    )
    assert [each["learning_rate"] for each in run.plan(args)[1]] == [1e-4, 3e-4]


def test_arms_differ_in_their_settings_and_learning_rates_too():
    settings = [tuple(identity_of("natural", arm, 0, 200, 1e-4, [])["settings"]) for arm in ARMS]
    assert len(set(settings)) == len(ARMS) - 1  # sft and distillation are told apart by the arm alone
    assert "actor_rollout_ref.actor.optim.lr=0.0003" in identity_of("natural", "tars", 0, 200, 3e-4, [])["settings"]
    assert not [each for settings in settings for each in settings if "/" in each]  # no path of this machine


# ---- the pool, with a program that notes what it was given

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--to") + 1])
signal.signal(signal.SIGTERM, lambda *_: ((out / "ended").touch(), sys.exit(143)))
(out / "began").write_text(json.dumps([time.monotonic(), sys.argv[1:]]))
if out.name.startswith("bad"):
    sys.exit("no such thing")
time.sleep(60 if out.name.startswith("long") else 0.5)
sets = {"dev": {"speech_accuracy": 0.5, "text_accuracy": 0.75}}
(out / "result.json").write_text(json.dumps({"checkpoints": [{"sets": sets}]}))
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def commands(tmp_path, *names):
    return [(name, ["--to", str(tmp_path / name)], tmp_path / name) for name in names]


def test_a_run_that_fails_is_told_of_and_stops_no_other(tmp_path, program, capsys):
    failed = run.Pool(1, [0], program).run(commands(tmp_path, "one", "bad", "two"))
    assert failed == ["bad"]
    assert (tmp_path / "two" / "result.json").exists()
    said = capsys.readouterr().out
    assert "bad: FAILED with exit code 1" in said
    assert "no such thing" in said
    assert "two: done in" in said
    assert "speech 0.500, text 0.750" in said


def test_runs_go_at_the_same_time_each_on_a_core_of_its_own(tmp_path, program):
    assert run.Pool(2, [3, 5], program).run(commands(tmp_path, "a", "b", "c", "d")) == []
    begun = [json.loads((tmp_path / name / "began").read_text()) for name in ("a", "b", "c", "d")]
    assert abs(begun[0][0] - begun[1][0]) < 0.5 <= begun[2][0] - begun[0][0]
    assert {given[given.index("--core") + 1] for _, given in begun[:2]} == {"3", "5"}


def test_more_runs_than_cores_are_not_pinned(tmp_path, program):
    run.Pool(2, [0], program).run(commands(tmp_path, "a"))
    assert "--core" not in json.loads((tmp_path / "a" / "began").read_text())[1]


def test_a_pool_that_is_stopped_ends_its_runs_and_begins_no_other(tmp_path, program):
    pool = run.Pool(1, [0], program)

    def stop():
        while not (tmp_path / "long" / "began").exists():
            time.sleep(0.05)
        pool.stop()

    threading.Thread(target=stop).start()
    assert pool.run(commands(tmp_path, "long", "next")) == []
    assert (tmp_path / "long" / "ended").exists()
    assert not (tmp_path / "next" / "began").exists()


# ---- the whole command line


def test_what_has_been_run_is_not_run_again(tmp_path):
    args = arguments(tmp_path, "--arms", "grpo", "--seeds", "0", "1", "--bases", "natural")
    place = Place(Path(args.out).resolve())
    untrained, trainings = run.plan(args)
    done = place.run(untrained[0])
    done.mkdir(parents=True)
    (done / "result.json").write_text(json.dumps(untrained[0]))
    for identity in trainings:
        results.add(identity, args.results)
    pool = run.Pool(1, [0], Path("/nowhere"))  # would fail
    assert run.execute(args, pool) == []


def test_a_word_that_is_no_arm_is_refused():
    command = [sys.executable, str(EXPERIMENT / "run.py"), "--arms", "tarts"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 2
    assert "invalid choice: 'tarts'" in done.stderr
