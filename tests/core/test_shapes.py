"""The shapes in the signatures hold: a whole reward with every annotation checked at run time (jaxtyping, beartype).

The annotations are only names for a type checker, so a fresh interpreter is told that it is one.
"""

import subprocess
import sys

import pytest

pytest.importorskip("jaxtyping")
pytest.importorskip("beartype")

PROGRAM = """
import typing
import numpy as np, numpy.typing, torch, xxhash, jaxtyping, beartype
import tars_rewards.batch, tars_rewards.embedding, tars_rewards.reward
typing.TYPE_CHECKING = True
names = ["similarity", "representation", "behavior", "combiner", "reference", "advantage"]
with jaxtyping.install_import_hook(["tars_rewards." + name for name in names], "beartype.beartype"):
    from tars_rewards import Rollout, TARSConfig, TARSReward, modality_normalized_advantages
    import tars_rewards.similarity as similarity, tars_rewards.representation
rng = np.random.default_rng(0)
class Embedder:
    def encode(self, texts):
        return rng.normal(size=(len(texts), 4))
rollouts = [
    Rollout(f"q{pair}", modality, None, f"{pair}{modality}{n}", correct=True, hidden_states=rng.normal(size=(3, 5)))
    for pair in range(3) for modality in ("speech", "text") for n in range(2)
]
for center in (False, True):
    result = TARSReward(TARSConfig(center=center, return_layers=True), embedder=Embedder())(rollouts)
ids, modalities = [r.pair_id for r in rollouts], [r.modality for r in rollouts]
modality_normalized_advantages(result.total, ids, modalities)
print("shapes hold")
try:
    similarity.cosine(torch.ones(2, 3), torch.ones(2, 4))
except Exception as error:
    print(type(error).__name__)
"""


def test_shapes_hold_and_are_checked() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["shapes hold", "TypeCheckError"], done.stderr
