"""Serving against scoring offline: a tiny Speech LLM, the server in one process, 64 clients in another, one thread for torch.

Seconds that it is served for without a break: TARS_SERVING_SECONDS, 60 unless set; a turn of the comparison is a sixth of
that. It is best run on two free cores. On busy ones offline and serving suffer alike, because they take turns; the median of
the turns is what counts.
"""

import itertools
import os
import statistics
import sys
import time
from pathlib import Path

import pytest
import torch
from results import GOALS, record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from serving import ServerProcess, check_crowd, crowd, make_rows
from tiny_models import make_clips, make_qwen2_5_omni

from tars_rewards import Scorer, TARSConfig

SECONDS = float(os.environ.get("TARS_SERVING_SECONDS", "60"))
CLIENTS, QUESTIONS, SAMPLES = 64, 128, 4
TURNS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_qwen2_5_omni(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return make_rows(make_clips(tmp_path_factory.mktemp("clips")), QUESTIONS, samples=SAMPLES)


@pytest.fixture(scope="module")
def scorer(model):
    torch.set_num_threads(1)
    return Scorer(str(model), config=TARSConfig(beta=0), device="cpu")


@pytest.fixture(scope="module")
def expected(scorer, rows):
    return [scored.rows() for scored in scorer.score(rows)]


@pytest.fixture(scope="module")
def server(model):
    with ServerProcess(model) as server:
        yield server
        server.signal()
        assert server.wait() == 0


def test_nothing_is_lost_in_a_minute(server, rows, expected, tmp_path, capsys):
    result = crowd(server.url, rows, tmp_path, clients=CLIENTS, seconds=SECONDS)
    check_crowd(result, expected)
    with capsys.disabled():
        print(
            f"\n{CLIENTS} clients for {SECONDS:g} s: {result['sent']} requests, none lost, every answer its own and right"
        )


def test_throughput_is_nearly_that_of_offline_scoring(server, scorer, rows, expected, tmp_path, capsys):
    turn = SECONDS / 6
    crowd(server.url, rows, tmp_path, clients=CLIENTS, seconds=2)  # warms up
    turns = [score_offline(scorer, rows, turn)]
    served = []
    for _ in range(TURNS):
        served.append(serve(server, rows, expected, tmp_path, turn))
        turns.append(score_offline(scorer, rows, turn))
    # Each turn of serving against those of offline scoring before and after it.
    offline = [[statistics.mean(pair) for pair in zip(*around, strict=True)] for around in itertools.pairwise(turns)]
    throughput = [mine[0] / theirs[0] for mine, theirs in zip(served, offline, strict=True)]
    processor = [theirs[1] / mine[1] for mine, theirs in zip(served, offline, strict=True)]
    with capsys.disabled():
        print(
            f"\n{2 * SAMPLES} completions a question, {CLIENTS} clients; load average at the end {os.getloadavg()[0]:.1f}"
        )
        for name, each in (("offline", turns), ("served", served)):
            rate, used = (statistics.median(values) for values in zip(*each, strict=True))
            print(f"{name:8}{rate:6.1f} questions/s, {1e3 * used:5.1f} ms of processor each")
        for name, each in (("throughput", throughput), ("processor time", processor)):
            print(
                f"ratio by {name}: {statistics.median(each):.3f} (turns: {', '.join(f'{ratio:.3f}' for ratio in each)})"
            )
    met = record(
        "serving/throughput",
        statistics.median(throughput),
        rounds=TURNS,
        details={
            "clients": CLIENTS,
            "completions a question": 2 * SAMPLES,
            "seconds a turn": turn,
            "turns": [round(ratio, 3) for ratio in throughput],
            "ratio by processor time": round(statistics.median(processor), 3),
            "questions a second": {
                name: round(statistics.median(rate for rate, _ in each), 1)
                for name, each in (("offline", turns), ("served", served))
            },
        },
    )
    assert met, f"expected {GOALS['serving/throughput']}"


def score_offline(scorer, rows, seconds):
    """Questions a second, and seconds of processor a question."""
    begun, used, scored = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begun < seconds:
        scored += sum(len(each.rows()) > 0 for each in scorer.score(rows))
    return scored / (time.perf_counter() - begun), (time.process_time() - used) / scored


def serve(server, rows, expected, directory, seconds):
    """The same, of the server, until the last answer is there."""
    used = server.metric("process_cpu_seconds_total")
    answers = crowd(server.url, rows, directory, clients=CLIENTS, seconds=seconds)
    used = server.metric("process_cpu_seconds_total") - used
    check_crowd(answers, expected)
    answered = [when for *_, when in answers["answers"]]
    return len(answered) / max(answered), used / len(answered)
