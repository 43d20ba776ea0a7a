"""Serving against scoring offline: 64 clients in one process, the server in another, with one thread for torch each.

Seconds of serving: TARS_SERVING_SECONDS, 60 unless set. Wants two cores for itself: the load average at the beginning is shown.
"""

import os
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from serving import ServerProcess, check_crowd, crowd, make_rows, offline
from tiny_models import make_clips, make_qwen2_5_omni

SECONDS = float(os.environ.get("TARS_SERVING_SECONDS", "60"))
CLIENTS, QUESTIONS, SAMPLES = 64, 128, 4
GOAL = 0.8


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def test_throughput_is_nearly_that_of_offline_scoring(tiny, capsys):
    model = make_qwen2_5_omni(tiny / "model")
    rows = make_rows(make_clips(tiny / "clips"), QUESTIONS, samples=SAMPLES)
    load = os.getloadavg()[0]
    # Before and after, so that a machine that grows busier or less busy does not favour one of the two.
    before = offline(model, rows, tiny, seconds=SECONDS / 3)
    with ServerProcess(model) as server:
        crowd(server.url, rows, tiny, clients=CLIENTS, seconds=min(5, SECONDS))  # warms up
        used = server.metric("process_cpu_seconds_total")
        served = crowd(server.url, rows, tiny, clients=CLIENTS, seconds=SECONDS)
        used = server.metric("process_cpu_seconds_total") - used
        server.signal()
        assert server.wait() == 0
    after = offline(model, rows, tiny, seconds=SECONDS / 3)
    check_crowd(served, before["rows"])
    rates, answers = before["rates"] + after["rates"], len(served["answers"])
    scored, answered = statistics.median(rates), answers / served["seconds"]
    processor = statistics.median(before["processor_seconds"] + after["processor_seconds"])
    lines = (
        f"{2 * SAMPLES} completions a question; load average at the beginning {load:.1f}",
        f"offline {scored:.1f} questions/s (median of {len(rates)} rounds of {QUESTIONS}), "
        f"{1e3 * processor:.1f} ms of processor each",
        f"served  {answered:.1f} questions/s to {CLIENTS} clients over {served['seconds']:.0f} s, "
        f"{1e3 * used / answers:.1f} ms of processor each; {answers} answers, none lost, none wrong",
        f"ratio   {answered / scored:.3f} of throughput, {processor * answers / used:.3f} by processor time",
    )
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert answered >= GOAL * scored
