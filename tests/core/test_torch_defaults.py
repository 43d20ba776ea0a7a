"""torch's default dtype and device are the trainer's business: results are float32 on the CPU whatever they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tars_rewards import TARSConfig, TARSReward, capture_hidden_states, modality_normalized_advantages


@contextmanager
def defaults(name: str) -> Iterator[None]:
    """The meta device stands for any other one: a tensor made on it by mistake cannot be read."""
    if name == "meta":
        with torch.device("meta"):
            yield
        return
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


OTHERS = pytest.mark.parametrize("name", ["bfloat16", "float16", "float64", "meta"])


@OTHERS
@pytest.mark.parametrize("alpha", [0, 0.3])
@pytest.mark.parametrize("center", [False, True])
def test_rewards(tools: SimpleNamespace, name: str, alpha: float, center: bool) -> None:
    config = TARSConfig(alpha=alpha, beta=alpha, format_weight=0.3, center=center, return_layers=True)
    rollouts = tools.make_batch(0)
    expected = TARSReward(config, embedder=tools.HashEmbedder())(rollouts)
    with defaults(name):
        result = TARSReward(config, embedder=tools.HashEmbedder())(rollouts)
    pairs = [(result.total, expected.total), (result.reference, expected.reference)]
    pairs += [(result.components[term], values) for term, values in expected.components.items()]
    pairs += [(result.valid[term], values) for term, values in expected.valid.items()]
    if alpha:
        pairs.append((result.layer_similarity, expected.layer_similarity))
    for got, want in pairs:
        assert got.dtype == want.dtype
        assert torch.equal(got, want)
    assert {k: v for k, v in result.metrics.items() if "seconds" not in k} == {
        k: v for k, v in expected.metrics.items() if "seconds" not in k
    }


@pytest.mark.parametrize("name", ["bfloat16", "float64"])
def test_the_real_embedder(minilm_dir: str, name: str) -> None:
    config = TARSConfig(alpha=0, embedder=minilm_dir, embedder_device="cpu")
    expected = TARSReward(config).embed(["The answer is B."])
    with defaults(name):
        got = TARSReward(config).embed(["The answer is B."])
    assert got == pytest.approx(expected, abs=1e-6)


@OTHERS
@pytest.mark.parametrize("scale", [False, True])
def test_advantages(name: str, scale: bool) -> None:
    totals, pairs, modalities = [1.1, 0.3, 2.7], ["q"] * 3, ["text"] * 3
    expected = modality_normalized_advantages(totals, pairs, modalities, scale=scale)
    with defaults(name):
        got = modality_normalized_advantages(totals, pairs, modalities, scale=scale)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


@OTHERS
def test_capture(name: str) -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(2, 4)
            self.layers = nn.ModuleList([nn.Identity(), nn.Identity()])

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                hidden = layer(hidden)
            return hidden

    model, states, mask = Decoder(), torch.rand(2, 5, 4), torch.rand(2, 5) < 0.7
    mask[1] = False
    pooled = []
    for each in ("float32", name):
        with defaults(each), capture_hidden_states(model, mask) as captured:
            model(states)
        pooled.append(captured.pooled)
    assert pooled[1].dtype == torch.float32
    assert torch.equal(*pooled)


def test_no_two_results_share_a_tensor(tools: SimpleNamespace) -> None:
    """Whoever changes one in place must not change another."""
    for weight in (0, 1):
        config = TARSConfig(alpha=weight, beta=weight, return_layers=True, layers=[0])
        result = TARSReward(config, embedder=tools.HashEmbedder())(tools.make_batch(0))
        tensors = [result.total, result.reference, *result.components.values(), *result.valid.values()]
        tensors += [result.layer_similarity] if weight else []
        assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
