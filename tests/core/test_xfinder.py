"""The wrapper of xFinder, on a stand-in for its package: the model itself cannot be had without a hub."""

import importlib.util
import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.errors import ExtractionError, MissingDependencyError
from tars_rewards.extraction import answer_extractor
from tars_rewards.extraction import xfinder as wrapper
from tars_rewards.extraction.xfinder import XFinder

STANDIN = Path(__file__).parents[1] / "support" / "standin"
TEXTS = ["so B", "a rather long way to say that it is (C), I think", "no idea", "D"]
READ = ["B", "C", None, "D"]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stand-in, in place of an installed package."""
    for name in [name for name in sys.modules if name.split(".")[0] == "xfinder"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(STANDIN))
    wrapper._load.cache_clear()
    import xfinder.modules

    yield xfinder.modules
    wrapper._load.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "xfinder"]:
        del sys.modules[name]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_batches_give_what_single_texts_give(package: ModuleType, batch_size: int) -> None:
    extract = XFinder(directory="here", batch_size=batch_size)
    assert extract.batch(TEXTS) == [extract(text) for text in TEXTS] == READ
    model = wrapper._load("xFinder-qwen1505", "here").model
    assert len(model.batches) == -(-len(TEXTS) // batch_size) + len(TEXTS)
    assert extract.batch([]) == []


def test_the_model_is_loaded_once_a_process(package: ModuleType) -> None:
    for extract in (XFinder(directory="here"), XFinder(directory="here"), XFinder(directory="there")):
        for travelled in (extract, pickle.loads(pickle.dumps(extract))):
            assert travelled("B") == "B"
    assert package.LOADED == [("xFinder-qwen1505", "here"), ("xFinder-qwen1505", "there")]


def test_questions_and_range_reach_the_prompt(package: ModuleType) -> None:
    extract = XFinder(directory="here", answer_range='[["A", "yes"], ["B", "no"]]')
    extract.batch(["B", "A"], questions=["Is it?", "Does it?"])
    (prompts,) = wrapper._load("xFinder-qwen1505", "here").model.batches
    assert "Is it?" in prompts[0]
    assert "Does it?" in prompts[1]
    assert all(prompt.endswith(extract.answer_range) for prompt in prompts)


def test_failures_are_counted_and_not_scored_as_wrong(package: ModuleType) -> None:
    extract = XFinder(directory="here")
    with pytest.raises(
        ExtractionError, match=r"2 of 4 completions got no reply .* number 1; they are not scored as wrong"
    ):
        extract.batch(["B", "mute", "C", "mute"])
    with pytest.raises(RuntimeError, match="out of memory"):
        extract("out of memory")
    with pytest.raises(ExtractionError, match="1 of 1 completions could not be put into xFinder's prompt"):
        XFinder(name="yFinder", directory="here")("B")


def test_in_the_reward(package: ModuleType) -> None:
    reward = TARSReward(TARSConfig(alpha=0, beta=0), extract=XFinder(directory="here"))
    rollouts = [Rollout("q", "speech", completion=text, answer="B") for text in TEXTS]
    assert pickle.loads(pickle.dumps(reward))(rollouts).total.tolist() == [1.0, 0.0, 0.0, 0.0]
    with pytest.raises(ExtractionError, match="1 of 5"):
        reward([*rollouts, Rollout("q", "text", completion="mute", answer="B")])


def test_by_name_without_loading(package: ModuleType) -> None:
    assert answer_extractor("xfinder") == XFinder()
    TARSReward(TARSConfig(answer_extractor="xfinder"))
    assert package.LOADED == []


def test_warnings_are_not_silenced(package: ModuleType) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "xfinder"]:
        del sys.modules[name]
    before = list(warnings.filters)
    assert XFinder(directory="here")("B") == "B"
    assert warnings.filters == before


@pytest.mark.skipif(importlib.util.find_spec("xfinder") is not None, reason="xfinder is installed")
def test_without_the_package() -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install tars-rewards\[xfinder\]"):
        TARSReward(TARSConfig(answer_extractor="xfinder"))
