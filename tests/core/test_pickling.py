import pickle
from types import SimpleNamespace

import torch

from tars_rewards import TARSConfig, TARSReward


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
