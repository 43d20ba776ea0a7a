import pickle
import sys
from types import SimpleNamespace

import torch

from tars_rewards import TARSConfig, TARSReward


class Extended(TARSReward):
    """A user's subclass with something of its own."""

    def __init__(self, config: TARSConfig, note: str) -> None:
        super().__init__(config)
        self.note = note


# Test modules are imported without a package; pickle finds the class by this name.
Extended.__module__, Extended.__qualname__ = "tars_rewards_test_pickling", "Extended"
sys.modules["tars_rewards_test_pickling"] = SimpleNamespace(Extended=Extended)  # type: ignore[assignment]


def test_attributes_of_a_subclass_travel_along(tools: SimpleNamespace) -> None:
    again = pickle.loads(pickle.dumps(Extended(TARSConfig(alpha=0, beta=0), "kept")))
    assert (again.note, again.config.alpha) == ("kept", 0.0)
    assert again(tools.make_batch(0)).total.any()


def test_pickling(tools: SimpleNamespace, minilm_dir: str) -> None:
    rollouts = tools.make_batch(0)
    reward = TARSReward(TARSConfig(embedder=minilm_dir, embedder_device="cpu"))
    expected = reward(rollouts)
    assert expected.valid["behavior"].any()
    data = pickle.dumps(reward)
    assert len(data) < 2000  # the model, and what it remembers, stay behind
    assert torch.allclose(pickle.loads(data)(rollouts).total, expected.total, atol=1e-5)
    again = pickle.loads(pickle.dumps(expected))
    assert torch.equal(again.total, expected.total)
    assert pickle.loads(pickle.dumps(rollouts[0])) == rollouts[0]
    # an embedder that was passed in travels along (of a class that another process can import)
    mine = TARSReward(embedder=SimpleNamespace(encode=len, tag="mine"))
    assert pickle.loads(pickle.dumps(mine)).embedder.tag == "mine"
