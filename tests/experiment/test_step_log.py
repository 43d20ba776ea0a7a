"""What is computed from a training's logs, against figures worked out by hand."""

import json

import pytest
import step_log

THOUGHT = "<think>one two three four five</think>"


def row(pair, modality, sample, *, right, total, completion="", representation=None, behavior=None, formatted=1.0):
    return {
        "id": pair, "modality": modality, "sample_id": sample, "completion": completion, "truncated": False,
        "accuracy": float(right), "format": formatted, "total": total, "representation": representation,
        "behavior": behavior, "tokens": 10 + sample,
    }  # fmt: skip


ROWS = [
    row("a", "speech", 0, right=True, total=2.1, completion=THOUGHT, representation=0.6),
    row("a", "speech", 1, right=False, total=1.3, representation=0.8),
    row("a", "text", 0, right=True, total=1.5, completion=THOUGHT),
    row("a", "text", 1, right=True, total=1.5, completion=THOUGHT),
    row("b", "speech", 0, right=False, total=0.5),
    row("b", "speech", 1, right=False, total=0.0, formatted=0.0),
    row("b", "text", 0, right=False, total=0.5),
    row("b", "text", 1, right=False, total=0.5),
]


def test_figures_of_a_step():
    figures = step_log.of_step(ROWS)
    assert figures["accuracy/speech"] == 0.25
    assert figures["accuracy/text"] == 0.5
    assert figures["format/speech"] == 0.75
    assert figures["total/speech"] == pytest.approx(3.9 / 4)
    assert (figures["reasons/speech"], figures["reasons/text"]) == (0.25, 0.5)
    assert figures["tokens/speech"] == 10.5
    assert figures["representation"] == pytest.approx(0.7)
    assert figures["behavior"] is None
    assert figures["spread/representation"] == pytest.approx(0.1)  # of "a" alone
    assert figures["spread/behavior"] is None
    # "a": 1.5 and 0.5; "b": 0.5 and 0.
    assert figures["spread/base"] == pytest.approx((0.5 + 0.25) / 2)
    assert (figures["all_wrong"], figures["all_right"]) == (0.5, 0.0)
    assert figures["without_reference"] == 0.5
    # Advantages 0.4, -0.4, 0.25, -0.25 against 0.5, -0.5, 0.25, -0.25.
    dot, norms = 2 * (0.4 * 0.5 + 0.25**2), 2 * ((0.4**2 + 0.25**2) * (0.5**2 + 0.25**2)) ** 0.5
    assert figures["advantage_cosine"] == pytest.approx(dot / norms)


def test_a_cosine_with_no_advantages_does_not_exist():
    assert step_log.of_step(ROWS[4:5] + ROWS[6:])["advantage_cosine"] is None


def write(directory, steps, logged):
    (directory / "log").mkdir()
    lines = [{"step": step, **each} for step in steps for each in ROWS]
    (directory / "log" / "rollouts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = [{"step": step, "data": {"actor/entropy": 0.123456, "timing_s/step": 3.0}} for step in logged]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory / "log", directory / "metrics.jsonl"


def test_the_log_has_a_value_a_step_in_few_digits_and_no_metric_without_any(tmp_path):
    log = step_log.collect(*write(tmp_path, (1, 2), (1, 2)))
    assert log["entropy"] == [0.123, 0.123]
    assert log["seconds"] == [3, 3]
    assert json.dumps(log["accuracy/speech"]) == "[0.25, 0.25]"
    assert {len(values) for values in log.values()} == {2}
    assert not {"behavior", "gradient_norm", "seconds_push"} & log.keys()


@pytest.mark.parametrize("logged", [(1,), (1, 2, 3)])
def test_logs_of_other_steps_are_refused(tmp_path, logged):
    with pytest.raises(ValueError, match="expected the same steps"):
        step_log.collect(*write(tmp_path, (1, 2), logged))
