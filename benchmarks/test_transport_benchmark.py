"""What moving pooled states between processes costs: bytes a value, and what it does to cosines.

States are 28 layers x 3584, alike in part and each with a share of its own, with up to four dimensions that are thousands of
times larger than the others and differ from rollout to rollout as much as the others do. Errors are against float64.
"""

import pickle

import pytest
import torch
from results import record

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.transport import pack_states

LAYERS, HIDDEN, ROLLOUTS = 28, 3584, 16
MASSIVE = [(0, 0)] + [(size, dimensions) for size in (30, 300, 3000, 30000) for dimensions in (1, 4)]
SPREADS = (0.05, 0.3, 1.0)


def states(size, dimensions, spread, seed):
    random = torch.Generator().manual_seed(seed)
    shared = torch.randn(LAYERS, HIDDEN, generator=random)
    made = shared + spread * torch.randn(ROLLOUTS, LAYERS, HIDDEN, generator=random)
    made[:, :, :dimensions] += size * (1 + spread * torch.randn(ROLLOUTS, LAYERS, dimensions, generator=random))
    return made


def cosines(values):
    """Of every two rollouts in every layer, in float64."""
    unit = torch.nn.functional.normalize(values.double(), dim=-1)
    return torch.einsum("alh,blh->abl", unit, unit)


def layer_similarity(made, center):
    """As the reward has it, with the references that it draws."""
    rollouts = [
        Rollout("q", "speech" if row % 2 else "text", row, "x", correct=True, hidden_states=made[row])
        for row in range(len(made))
    ]
    return TARSReward(TARSConfig(beta=0, center=center, return_layers=True))(rollouts).layer_similarity


def test_bytes_a_value():
    packed = pack_states(states(0, 0, 1.0, 0)[0])
    values = LAYERS * HIDDEN
    message = len(pickle.dumps((packed.steps.numpy(), packed.side.numpy()), protocol=5))
    details = {
        "values of a rollout": values,
        "bytes of values": packed.steps.nbytes,
        "bytes beside them": packed.side.nbytes,
        "bytes a value with those": round((packed.steps.nbytes + packed.side.nbytes) / values, 5),
        "bytes a value in a pickle, names and shapes included": round(message / values, 5),
    }
    print(f"\ntransport: {details}")
    assert record("transport/bytes", packed.steps.nbytes / values, rounds=1, details=details)


@pytest.mark.benchmark(group="transport")
def test_error_of_a_cosine():
    worst = dict.fromkeys(("packed", "float16", "bfloat16"), 0.0)
    usual = dict(worst)
    of_reward = {"plain": 0.0, "centred": 0.0}
    for number, (size, dimensions) in enumerate(MASSIVE):
        for spread in SPREADS:
            made = states(size, dimensions, spread, number)
            expected = cosines(made)
            packed = pack_states(made)
            kinds = {"packed": packed.unpack(), "bfloat16": made.bfloat16()}
            # float16 as it would have to be sent: every layer of length 1, so that nothing overflows.
            kinds["float16"] = (made / made.norm(dim=-1, keepdim=True)).half()
            for kind, found in kinds.items():
                error = (cosines(found) - expected).abs().max().item()
                worst[kind] = max(worst[kind], error)
                usual[kind] = max(usual[kind], error) if spread == min(SPREADS) else usual[kind]
            for name in of_reward:
                center = name == "centred"
                error = (layer_similarity(packed, center) - layer_similarity(made, center)).abs().max().item()
                of_reward[name] = max(of_reward[name], error)
    details = {
        "by format": worst,
        "by format, where rollouts differ by 5 %": usual,
        "layer similarity of the reward": of_reward["plain"],
        "layer similarity of the reward with center=True": of_reward["centred"],
    }
    print(f"\ntransport: {details}")
    assert record("transport/error", worst["packed"], rounds=len(MASSIVE) * len(SPREADS), details=details)
