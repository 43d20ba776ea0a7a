"""The pages on writing one's own term and adapter: their code runs, prints what it says, and does what they promise."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def run(page, directory):
    """Run a page's blocks one after another; one that begins with a file's name is also written there. What they define."""
    namespace = {"__name__": "docs"}
    for block in blocks(page):
        if named := re.match(r"# (\w+\.py)\n", block):
            (directory / named[1]).write_text(block)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, page, "exec"), namespace)
        said = re.findall(r"print\(.*\)  # (.*)", block)
        assert not said or printed.getvalue().splitlines() == said
    return namespace


@pytest.fixture
def importable(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_terms", None)


def test_a_term_of_ones_own(importable):
    assert len(blocks("write_your_own_term.md")) == 3
    made = run("write_your_own_term.md", importable)
    metrics = made["result"].metrics
    text = (DOCS / "write_your_own_term.md").read_text()
    for name in ("tars/brevity/speech/mean", "tars/seconds/brevity"):
        assert name in text
        assert name in metrics


def test_the_ways_to_name_it_are_those_of_the_frameworks():
    import json

    overrides_parser = pytest.importorskip("hydra.core.override_parser.overrides_parser")
    text = (DOCS / "write_your_own_term.md").read_text()
    (hydra,) = re.findall(r"`'(reward\.custom_kwargs\.terms=.*?)'`", text)
    assert overrides_parser.OverridesParser.create().parse_override(hydra).value() == {"my_terms:brevity": 0.2}
    (flag,) = re.findall(r"`--tars\.terms '(.*?)'`", text)
    assert json.loads(flag) == {"my_terms:brevity": 0.2}
    (file,) = re.findall(r"`(reward: .*?)`", text)
    from omegaconf import OmegaConf

    assert OmegaConf.create(file).reward.custom_kwargs.terms == {"my_terms:brevity": 0.2}


def test_a_training_loop_of_ones_own(tmp_path):
    (block,) = blocks("write_your_own_adapter.md")
    assert len(block.splitlines()) < 80
    made = run("write_your_own_adapter.md", tmp_path)
    history = made["history"]
    for modality in ("speech", "text"):
        first, last = (
            sum(metrics[f"tars/accuracy/{modality}/mean"] for metrics in some) / 5
            for some in (history[:5], history[-5:])
        )
        assert last > first + 0.3  # it learns
    assert not any(name.startswith("tars/representation/text/") for name in history[-1])
    assert history[-1]["tars/representation/speech/count"] > 0
    assert history[-1]["tars/pairs/count"] == len(made["QUESTIONS"])


@pytest.mark.parametrize("page", ["write_your_own_term.md", "write_your_own_adapter.md"])
def test_names_in_the_text_exist(page):
    import tars_rewards

    text = (DOCS / page).read_text()
    known = set(tars_rewards.__all__) | {"EmbedderFailedError"}
    assert set(re.findall(r"`((?:TARS|Rollout|Reward|Term|Embedder)[A-Za-z]*)[`.(]", text)) <= known
