"""The scaling page says what the committed unit costs give."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("results", "scaling"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import scaling

    return scaling


def test_the_page_has_the_tables_of_the_last_run(scaling):
    assert scaling.document() == scaling.DOCUMENT.read_text()


def test_what_is_added_grows_with_completions_and_shrinks_with_processes(scaling, monkeypatch):
    monkeypatch.setattr(scaling, "cost", lambda name: 1.0)
    monkeypatch.setattr(scaling, "row", lambda name: 2.0)
    model = scaling.MODELS[0]
    assert model.bytes == 28 * (2 * 3584 + 72)
    one, more, spread = (scaling.Step(model, 64, count, shards) for count, shards in ((1024, 1), (8192, 1), (8192, 8)))
    assert more.added == pytest.approx(8 * one.added)
    assert more.get == pytest.approx(8 * spread.get)
    assert more.finalise == pytest.approx(8 * spread.finalise)
    assert (more.capture, more.put, more.columns, more.base) == (
        spread.capture,
        spread.put,
        spread.columns,
        spread.base,
    )
    # By hand: 1,024 completions of 300 tokens, 64 GPUs that generate 2,500 a second each.
    assert one.generation == pytest.approx(1.92)
    assert one.gigabytes == pytest.approx(0.2076, abs=1e-4)
