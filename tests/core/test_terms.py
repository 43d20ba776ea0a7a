"""Terms of a user's own: by path and by function, in totals, components and metrics, and what is refused."""

import math
import pickle
import random
import statistics
from dataclasses import replace

import numpy as np
import own_terms
import pytest
import torch
from own_terms import Overlap, brevity

from tars_rewards import Rollout, RolloutBatch, TARSConfig, TARSReward, TermValue
from tars_rewards.errors import ConfigError, RolloutError, TermError
from tars_rewards.integration.options import AdapterOptions, describe, split_settings

OFF = TARSConfig(alpha=0, beta=0)
BY_PATH = {"own_terms:brevity": 0.5, "own_terms:Overlap": -2}


def words(rollout):
    return set(rollout.completion.split())


def test_totals_components_and_metrics_against_an_oracle(tools):
    rollouts = tools.make_batch(2)
    rollouts[1] = replace(rollouts[1], completion="")
    result = TARSReward(replace(OFF, terms=BY_PATH))(rollouts, step=5)
    plain = TARSReward(OFF)(rollouts, step=5)
    assert torch.equal(result.reference, plain.reference)
    assert list(result.components) == list(result.valid)
    assert list(result.components) == ["accuracy", "format", "representation", "behavior", "brevity", "Overlap"]
    brief, shared = [], []
    for index, rollout in enumerate(rollouts):
        reference = result.reference[index].item()
        expected = plain.total[index].item()
        if rollout.modality == "speech" and rollout.completion:
            brief.append(1 / (1 + len(rollout.completion.split())))
            expected += 0.5 * brief[-1]
            assert result.components["brevity"][index].item() == pytest.approx(brief[-1])
        else:
            assert not result.valid["brevity"][index]
            assert result.components["brevity"][index] == 0
        assert bool(result.valid["Overlap"][index]) == (reference >= 0)
        if reference >= 0:
            other = words(rollouts[reference])
            shared.append(len(other & words(rollout)) / len(other))
            expected -= 2 * shared[-1]
        assert result.total[index].item() == pytest.approx(expected, abs=1e-6)
    for name, values in (("brevity", brief), ("Overlap", shared)):
        key = f"tars/{name}/speech"
        assert result.metrics[f"{key}/count"] == len(values) > 3
        assert result.metrics[f"{key}/mean"] == pytest.approx(statistics.fmean(values))
        assert result.metrics[f"{key}/std"] == pytest.approx(statistics.pstdev(values), abs=1e-7)
        assert f"tars/{name}/text/count" not in result.metrics
        assert result.metrics[f"tars/seconds/{name}"] >= 0


def test_a_function_and_its_path_are_the_same(tools):
    rollouts = tools.make_batch(0)
    by_path = TARSReward(replace(OFF, terms={"own_terms:brevity": 0.5}))(rollouts)
    for terms in ({brevity: 0.5}, [("own_terms:brevity", 0.5)], ((brevity, 0.5),)):
        assert torch.equal(TARSReward(replace(OFF, terms=terms))(rollouts).total, by_path.total)


def test_beside_the_two(tools):
    rollouts = tools.make_batch(0)
    both = TARSReward(TARSConfig(terms={brevity: 0.5}), embedder=tools.HashEmbedder())(rollouts)
    two = TARSReward(embedder=tools.HashEmbedder())(rollouts)
    expected = two.total + torch.where(both.valid["brevity"], 0.5 * both.components["brevity"], 0.0)
    torch.testing.assert_close(both.total, expected)


def test_the_order_of_the_rollouts_is_of_no_matter(tools):
    rollouts = tools.make_batch(3)
    order = random.Random(0).sample(range(len(rollouts)), len(rollouts))
    reward = TARSReward(replace(OFF, terms=BY_PATH))
    shuffled = reward([rollouts[index] for index in order], step=2)
    torch.testing.assert_close(shuffled.total, reward(rollouts, step=2).total[order])


def test_a_weight_of_0_switches_it_off(tools):
    result = TARSReward(replace(OFF, terms={"no_such_module:mine": 0}))(tools.make_batch(0))
    assert not result.valid["mine"].any()
    assert result.metrics["tars/mine/speech/count"] == 0


def test_the_settings_are_kept_as_pairs_and_travel():
    config = replace(OFF, terms=BY_PATH)
    assert config.terms == (("own_terms:brevity", 0.5), ("own_terms:Overlap", -2.0))
    assert replace(config, alpha=1).terms == config.terms
    assert len({config, replace(OFF, terms=dict(BY_PATH)), OFF}) == 2
    assert pickle.loads(pickle.dumps(config)) == config
    assert TARSConfig().terms == TARSConfig(terms={}).terms == ()
    omegaconf = pytest.importorskip("omegaconf")
    given = omegaconf.OmegaConf.create({"alpha": 0, "beta": 0, "terms": BY_PATH})
    assert TARSConfig.from_mapping(given) == config


def test_a_reward_travels_with_its_terms(tools):
    rollouts = tools.make_batch(0)
    reward = TARSReward(replace(OFF, terms={brevity: 1, "own_terms:Overlap": 1}))
    made = Overlap.made
    again = pickle.loads(pickle.dumps(reward))
    assert Overlap.made == made + 1  # an instance is made where it is used
    assert torch.equal(again(rollouts).total, reward(rollouts).total)


def test_a_term_is_told_the_settings_and_cannot_change_the_reference(tools):
    seen = []

    def nosy(batch, reference):
        seen.append(batch.config)
        reference.fill_(0)
        return TermValue.nowhere(len(batch))

    config = replace(OFF, terms={nosy: 1})
    result = TARSReward(config)(tools.make_batch(0))
    assert seen == [config]
    assert (result.reference == -1).any()


# ---- what a term returns


def returning(value):
    def mine(batch, reference):
        return value(len(batch))

    return TARSReward(replace(OFF, terms={mine: 1.0}))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda n: None, r"'mine' returned a NoneType; expected a TermValue of float values \[3\] and bool valid \[3\]"),
        (lambda n: torch.ones(n), "returned a Tensor; expected a TermValue"),
        (lambda n: (torch.ones(n), torch.ones(n, dtype=bool)), "returned a tuple; expected a TermValue"),
        (lambda n: TermValue(np.ones(n), np.ones(n, bool)), "values of type ndarray; .* as torch tensors"),
        (lambda n: TermValue(torch.ones(n), [True] * n), "valid of type list"),
        (lambda n: TermValue(torch.ones(n - 1), torch.ones(n, dtype=bool)), r"values of shape \[2\]"),
        (lambda n: TermValue(torch.ones(n, 1), torch.ones(n, dtype=bool)), r"values of shape \[3, 1\]"),
        (lambda n: TermValue(torch.ones(n), torch.ones((), dtype=bool)), r"valid of shape \[\]"),
        (lambda n: TermValue(torch.ones(n), torch.ones(n)), "valid of torch.float32"),
        (lambda n: TermValue(torch.ones(n, dtype=bool), torch.ones(n, dtype=bool)), "values of torch.bool"),
        (lambda n: TermValue(torch.ones(n) * 1j, torch.ones(n, dtype=bool)), "values of torch.complex64"),
        (lambda n: TermValue(torch.tensor([1, math.nan, 1]), torch.ones(n, dtype=bool)), r"is nan for rollout 1 \(pair"),
        (lambda n: TermValue(torch.tensor([1, 1e300, 1], dtype=float), torch.ones(n, dtype=bool)), "is inf for rollout 1"),
    ],
)  # fmt: skip
def test_what_a_term_may_not_return(value, message):
    with pytest.raises(TermError, match=message):
        returning(value)(THREE)


THREE = [
    Rollout("q", "speech", 0, completion="x", correct=True),
    Rollout("q", "speech", 1, completion="x", correct=True),
    Rollout("q", "text", 0, completion="x", correct=True),
]


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([0.5, math.nan, math.inf]),  # neither valid nor a target
        torch.tensor([0.5, 9.0, 9.0], requires_grad=True),
        torch.tensor([0.5, 9.0, 9.0], dtype=torch.float64),
        torch.tensor([0.5, 9.0, 9.0], dtype=torch.bfloat16),
    ],
)
def test_what_it_may(values):
    result = returning(lambda n: TermValue(values, torch.tensor([True, False, True])))(THREE)
    assert result.components["mine"].tolist() == [0.5, 0, 0]
    assert result.valid["mine"].tolist() == [True, False, False]
    assert result.total.tolist() == [1.5, 1, 1]
    assert not result.total.requires_grad


def test_what_a_term_raises_is_passed_on():
    with pytest.raises(ZeroDivisionError):
        returning(lambda n: 1 / 0)(THREE)


# ---- what cannot be a term


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (3, "terms must be a mapping .*got 3"),
        ("own_terms:brevity", "terms must be a mapping"),
        (["own_terms:brevity"], "terms must be a mapping"),
        ({"own_terms.brevity": 1}, "put a colon between the module and the function"),
        ({"own_terms:": 1}, "put a colon"),
        ({":brevity": 1}, "put a colon"),
        ({3: 1}, "must be named as .*got 3"),
        ({"own_terms:brevity": "1"}, "weight of the term 'own_terms:brevity' must be a finite number, got '1'"),
        ({"own_terms:brevity": True}, "finite number, got True"),
        ({"own_terms:brevity": math.nan}, "finite number, got nan"),
        ({lambda batch, reference: None: 1}, "is called '<lambda>', which makes no name of a metric"),
        ({"own_terms:behavior": 1}, "is called 'behavior', and so is the package's own"),
        ({"own_terms:accuracy": 1}, "is called 'accuracy', and so is"),
        ({"own_terms:answer": 1}, "is called 'answer', and so is"),
        ({"own_terms:log_prob": 1}, "is called 'log_prob', and so is"),
        ({"own_terms:total": 0}, "is called 'total', and so is"),
        ({"own_terms:brevity": 1, "others:brevity": 1}, "is called 'brevity', and so is another term of yours"),
        ({"own_terms:brevity": 1, brevity: 1}, "is called 'brevity', and so is another term of yours"),
    ],
)
def test_settings_that_are_refused(terms, message):
    with pytest.raises(ConfigError, match=message):
        TARSConfig(terms=terms)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_package.terms:mine", "there is no module 'no_such_package'; is it on PYTHONPATH"),
        ("own_terms.more:mine", "there is no module 'own_terms.more'|'own_terms' is not a package"),
        ("own_terms:brevty", "the module 'own_terms' has no 'brevty'"),
        ("own_terms:number", "which is 3 and cannot be called"),
        ("own_terms:Plain", "Plain'> and cannot be called; expected a function"),
    ],
)
def test_paths_that_lead_nowhere(path, message):
    config = replace(OFF, terms={path: 1})
    with pytest.raises(ConfigError, match=message):
        TARSReward(config)
    with pytest.raises(ConfigError, match=message):  # before a framework has started everything else
        split_settings({"terms": {path: 1}}, AdapterOptions)


def test_an_import_that_the_module_itself_lacks_is_not_blamed_on_the_setting(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        TARSReward(replace(OFF, terms={"needs_more:mine": 1}))


def test_the_banner_names_them():
    assert "no behavior + 0.5 x brevity + -2 x Overlap; text =" in describe(replace(OFF, terms=BY_PATH))
    made = Overlap.made
    split_settings({"terms": BY_PATH}, AdapterOptions)
    assert own_terms.Overlap.made == made  # looked at, not made


# ---- a RolloutBatch in


def test_a_batch_is_taken_as_well(tools):
    rollouts = tools.make_batch(0)
    for config in (TARSConfig(), TARSConfig(skip_truncated=True, alpha=2.0)):
        reward = TARSReward(config, embedder=tools.HashEmbedder())
        batch = RolloutBatch.from_rollouts(rollouts, config)
        for step in (0, 1):
            first, second = reward(batch, step=step), reward(rollouts, step=step)
            assert torch.equal(first.total, second.total)
            assert torch.equal(first.reference, second.reference)


def test_a_batch_made_by_other_weights_will_do_but_not_by_other_modalities(tools):
    batch = RolloutBatch.from_rollouts(tools.make_batch(0), TARSConfig())
    assert len(TARSReward(OFF)(batch).total) == len(batch)
    with pytest.raises(ConfigError, match="was made with skip_truncated=False, the reward has True; make it by"):
        TARSReward(replace(OFF, skip_truncated=True))(batch)
    swapped = replace(OFF, target_modality="text", anchor_modality="speech")
    with pytest.raises(ConfigError, match="was made with target_modality='speech', the reward has 'text'"):
        TARSReward(swapped)(batch)


def test_something_else_is_refused():
    with pytest.raises(RolloutError, match=r"item 0 of the batch is a str; expected tars_rewards\.Rollout"):
        TARSReward(OFF)(["a completion"])
