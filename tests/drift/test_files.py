"""What is written: complete, readable by anything, and the same figures everywhere."""

import csv
import json
import sys

import numpy as np
import pytest

from tars_rewards.drift.plots import write_plots
from tars_rewards.drift.published import FORCED_COSINE, SOURCE
from tars_rewards.drift.run import measure_drift
from tars_rewards.errors import ConfigError, MissingDependencyError


def strictly(text):
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def spoilt(questions):
    from tars_rewards import Question

    return [*questions, Question.from_row({**questions[0].to_row(), "id": "bad", "audio": {"bytes": "UklGRg=="}})]


@pytest.fixture(scope="module")
def drift(omni, spoilt, given):
    return measure_drift(omni, spoilt, against=omni, settings=given, skip_bad=True, system="Be brief.")


@pytest.fixture(scope="module")
def written(drift, tmp_path_factory):
    directory = tmp_path_factory.mktemp("written") / "new" / "drift"
    drift.write(directory)
    return directory


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_directory_holds_everything(written):
    names = ["difference.png", "drift.json", "layers.csv", "layers.png", "positions.csv", "positions.png"]
    assert sorted(path.name for path in written.iterdir()) == [*names, "questions.jsonl"]
    for path in written.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000


def test_json_says_what_was_measured_and_how(written, drift, omni):
    content = strictly((written / "drift.json").read_text(encoding="utf-8"))
    assert (content["format"], content["kind"], content["questions"], content["layers"]) == (1, "drift", 6, 3)
    assert content["models"] == dict.fromkeys(("model", "against"), omni.model.name_or_path)
    assert content["settings"]["system"] == "Be brief."
    assert content["settings"]["config"]["answer_extractor"] == "tags"
    assert content["settings"]["sampling"] is None
    [left_out] = content["left_out"]
    assert left_out["id"] == "bad"
    assert "cannot be read" in left_out["problem"]
    assert len(content["curves"]) == len(drift.curves)
    for found, curve in zip(content["curves"], drift.curves, strict=True):
        assert (found["run"], found["states"], found["measure"], found["pairs"]) == (
            curve.run,
            curve.states,
            curve.measure,
            curve.pairs,
        )
        assert found["mean"] == curve.layers.mean.tolist()
        assert found["overall"]["low"] == curve.overall.low[0]
    names = {(each["run"], each["name"]) for each in content["behavior"]}
    assert {("model", "answer_agreement"), ("difference", "length_difference")} <= names


def test_what_does_not_exist_is_null_and_an_empty_cell(omni, questions, given, tmp_path):
    drift = measure_drift(omni, questions[:2], settings=given)  # two questions have no CKA
    drift.write(tmp_path)
    content = strictly((tmp_path / "drift.json").read_text(encoding="utf-8"))
    cka = [each for each in content["curves"] if each["measure"] == "cka"]
    assert all(each["mean"] == each["low"] == [None] * 3 and each["questions"] == [0] * 3 for each in cka)
    cells = [row for row in rows_of(tmp_path / "layers.csv") if row["measure"] == "cka"]
    assert len(cells) == len(cka) * 4
    assert {row["mean"] for row in cells} == {""}
    for line in (tmp_path / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        strictly(line)


def test_tables_hold_the_curves(written, drift):
    rows = rows_of(written / "layers.csv")
    assert len(rows) == len(drift.curves) * 4
    for curve in drift.curves:
        own = [
            row
            for row in rows
            if (row["run"], row["states"], row["measure"], row["pairs"])
            == (curve.run, curve.states, curve.measure, curve.pairs)
        ]
        assert [row["layer"] for row in own] == ["0", "1", "2", "mean"]
        assert [float(row["high"]) for row in own] == [*curve.layers.high, *curve.overall.high]
    places = rows_of(written / "positions.csv")
    assert len(places) == sum(len(each.along.mean) for each in drift.positions)
    tokens = [
        row
        for row in places
        if (row["run"], row["measure"], row["pairs"], row["places"], row["layer"])
        == ("model", "cosine", "matched", "tokens", "mean")
    ]
    assert [(row["start"], row["stop"]) for row in tokens[:3]] == [("0", "8"), ("8", "16"), ("16", "24")]
    assert [int(row["questions"]) for row in tokens] == sorted((int(row["questions"]) for row in tokens), reverse=True)
    assert tokens[-1]["questions"] != "6"  # places that only long completions reach
    tenths = {row["start"] for row in places if row["places"] == "tenths"}
    assert tenths == set(map(str, range(10)))


def test_questions_add_up_to_the_curves(written, drift):
    lines = [strictly(line) for line in (written / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["run"], line["id"]) for line in lines] == [
        (run, f"q{number}") for run in ("model", "against") for number in range(6)
    ]
    for curve in drift.curves:
        if curve.run == "model" and curve.pairs == "matched" and curve.measure != "cka":
            values = [
                line["similarity"][curve.states][curve.measure]["matched"] for line in lines if line["run"] == "model"
            ]
            np.testing.assert_allclose(np.mean(values, axis=0), curve.layers.mean)
    agreement = [line["behavior"]["answer_agreement"] for line in lines if line["run"] == "model"]
    assert np.mean(agreement) == next(
        each.estimate.mean[0] for each in drift.behavior if each.name == "answer_agreement"
    )
    assert lines[0]["completions"]["text"][0]["text"] == lines[0]["forced"]


def labels_of(drift, monkeypatch, tmp_path, **more):
    """Texts of the legends of what is drawn, by file name."""
    from matplotlib.figure import Figure

    found, save = {}, Figure.savefig

    def watched(figure, path, **kwargs):
        found[path.name] = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        save(figure, path, **kwargs)

    monkeypatch.setattr(Figure, "savefig", watched)
    write_plots(drift, tmp_path, **more)
    return found


def test_published_figures_are_drawn_only_where_asked_for_and_named_as_such(drift, monkeypatch, tmp_path):
    measured = [f"{run}, {pairs}" for run in ("model", "against") for pairs in ("matched", "mismatched")]
    plain = labels_of(drift, monkeypatch, tmp_path)
    assert sorted(plain["layers.png"]) == sorted(plain["positions.png"]) == sorted(measured)
    with_published = labels_of(drift, monkeypatch, tmp_path, published="obqa")
    more = set(with_published["layers.png"]) - set(measured)
    assert len(more) == 3
    assert all(SOURCE in label for label in more)
    assert with_published["positions.png"] == plain["positions.png"]
    with pytest.raises(ConfigError, match="expected one of mmsu, obqa"):
        write_plots(drift, tmp_path, published="voicebench")


def test_published_figures_are_those_of_the_paper():
    assert [*FORCED_COSINE["mmsu"].values()] == [0.9521, 0.9612, 0.9722]
    assert [*FORCED_COSINE["obqa"].values()] == [0.9526, 0.9608, 0.9730]


def test_without_matplotlib_the_figures_are_written_all_the_same(drift, monkeypatch, tmp_path):
    class Hidden:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "matplotlib":
                raise ModuleNotFoundError("No module named 'matplotlib'", name=name)

    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden, *sys.meta_path])
    with pytest.raises(MissingDependencyError, match=r"tars-rewards\[plot\]"):
        drift.write(tmp_path)
    assert (tmp_path / "drift.json").exists()
    assert not (tmp_path / "layers.png").exists()
