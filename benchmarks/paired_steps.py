"""Training steps with TARS beside the same steps with the base reward only, in one training.

The policy computes what the demo's model does, but is larger (`larger_policy`), or with ``--demo`` is the demo's.

Steps come in pairs: the same prompts twice in a row, once with TARS and once with the base reward only, and which comes
first is drawn, half of the pairs each (not in turns: what happens every few steps, as Python's garbage collection does,
would then always hit the same kind). The learning rate is 0, so that the weights stay, and every sample of a prompt has a
seed of its own, so that both steps of a pair have the same rollouts; `compare` checks that they had.

`step_verl.py` and `step_openrlhf.py` each run such a training; `alternating_verl.py` and `alternating_openrlhf.py` are the
trainers. This module is imported in their processes, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
SPEECH = REPOSITORY / "examples" / "spoken_reasoning"
QUESTIONS = 8  # a step; the demo's number
SAMPLES = 4  # completions of a prompt: 4 spoken and 4 written ones of a question; the demo's number
SLOTS = 16  # completions that vLLM generates at a time, of 64: the others wait, as they do in large trainings
TOKENS = SLOTS * 640  # that vLLM takes at a time: on CPU cores it can seed no prompt that it has to take in parts
CACHE = 512 * 2**20  # bytes of vLLM's key-value cache, for that many completions of the larger policy
WARM_UP = 2  # pairs of steps
PAIRS = 10  # after them; even, so that each order comes equally often
DIRECTORY = "PAIRED_STEPS"
"""Environment variable with the directory that the training's processes write to."""


_DRAW = np.random.default_rng(0)
_TARS_FIRST = [bool(each) for pairs in (WARM_UP, PAIRS) for each in _DRAW.permutation(np.arange(pairs) % 2)]


class Turn(NamedTuple):
    """What a step is."""

    pair: int  #: from 0
    first: bool  #: of its pair
    tars: bool  #: with TARS, or with the base reward only


class Comparison(NamedTuple):
    """Steps with TARS against steps without."""

    ratio: float  #: of the medians over the pairs of either order the geometric mean: what the order does cancels out
    interval: tuple[float, float]  #: of 95 %, by bootstrap
    details: dict[str, Any]


def turn(step: int) -> Turn:
    """What step ``step`` (from 1) is."""
    pair, second = divmod(step - 1, 2)
    return Turn(pair, not second, bool(second) != _TARS_FIRST[pair % len(_TARS_FIRST)])


def begin(step: int) -> None:
    """Tell all of the training's processes which step it is."""
    Path(os.environ[DIRECTORY], "step").write_text(str(step))


def current() -> Turn:
    """What the current step is."""
    return turn(int(Path(os.environ[DIRECTORY], "step").read_text()))


def asked_for_demo(about: str) -> bool:
    """Read the command line: whether the demo's own policy is to be measured."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--demo", action="store_true", help="measure the demo's own policy: a row without a goal")
    return bool(parser.parse_args().demo)


class Seeds:
    """A seed for each sample of a prompt: the same whenever the prompt comes again."""

    def __init__(self) -> None:
        self._asked: Counter[int] = Counter()

    def next(self, prompt: Sequence[int], clips: Iterable[Any]) -> int:
        """Seed of the next sample of a prompt.

        Args:
            prompt: Its token ids.
            clips: Its clips' samples: spoken prompts differ in nothing else.
        """
        key = zlib.crc32(np.asarray(prompt, np.int64).tobytes())
        for clip in clips:
            key = zlib.crc32(np.ascontiguousarray(clip).data, key)
        self._asked[key] += 1
        return zlib.crc32(f"{key} {self._asked[key] % SAMPLES}".encode())


def write(name: str, **row: Any) -> None:
    """Append a row to a file of the training's, from whichever of its processes."""
    with Path(os.environ[DIRECTORY], f"{name}.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def read(directory: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a file."""
    path = directory / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def train(
    framework: str,
    directory: Path,
    *,
    demo: bool,
    override: Sequence[str],
    program: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run the demo's training with alternating steps.

    Args:
        framework: ``verl`` or ``openrlhf``.
        directory: Where the data, the model and what the steps took are put.
        demo: Whether the policy is the demo's, and not the larger one.
        override: Settings over those of the demo.
        program: What Python runs; None: what the demo runs.
        environment: Variables over those of the demo.

    Raises:
        AssertionError: The training ended badly; with the end of its log.
    """
    sys.path.append(str(REPOSITORY / "tests" / "support"))
    from processes import run

    steps = 2 * (WARM_UP + PAIRS)
    data, base = directory / "data", directory / "base_model"
    # A few more than are needed, since the last step looks ahead.
    questions = QUESTIONS * (WARM_UP + PAIRS + 1)
    _script(SPEECH / "make_data.py", "--out", data, "--train", questions, "--test", QUESTIONS, "--seed", 0)
    _script(SPEECH / "make_base_model.py" if demo else REPOSITORY / "benchmarks" / "larger_policy.py", "--out", base)
    training = _demo(framework).prepare(
        SimpleNamespace(seed=0, steps=steps, override=list(override)), directory, data, base
    )
    # Ray puts sockets into its directory, and the path of a socket is limited to about 100 characters.
    ray_directory = Path(tempfile.mkdtemp(prefix="ray-"))
    command = training.command if program is None else [sys.executable, *program, *training.settings]
    run(
        [part.replace("RAY_DIRECTORY", str(ray_directory)) for part in command],
        directory,
        environment={
            **training.environment,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "RAY_TMPDIR": str(ray_directory),
            # Where the environment keeps what DeepSpeed has compiled.
            "TORCH_EXTENSIONS_DIR": os.environ.get("TORCH_EXTENSIONS_DIR", f"{sys.prefix}/torch_extensions"),
            "RAY_memory_monitor_refresh_ms": "0",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "benchmarks"), os.environ.get("PYTHONPATH", "")]),
            DIRECTORY: str(directory),
            **(environment or {}),
        },
        ray_directory=ray_directory,
        parse_steps=lambda log: (),
        timeout=1800,
    ).check()


def compare(steps: Sequence[Mapping[str, Any]], *, rest: Mapping[str, Sequence[str]]) -> Comparison:
    """Compare the steps of each pair.

    Args:
        steps: Rows of ``steps.jsonl``: ``step``, ``seconds`` of each part and of the whole (``step``), ``completions`` by
            prompt.
        rest: Parts to name in the details, each the sum of some of the framework's.

    Raises:
        RuntimeError: Steps are missing, or the two steps of a pair had other rollouts.
    """
    by_turn = {(of.pair, of.tars): row for row in steps if (of := turn(row["step"])).pair >= WARM_UP}
    if len(by_turn) != 2 * PAIRS:
        raise RuntimeError(f"expected {2 * PAIRS} steps after the warm-up, got {len(by_turn)}")
    pairs = [(by_turn[pair, True], by_turn[pair, False]) for pair in range(WARM_UP, WARM_UP + PAIRS)]
    same = np.mean([_same(tars["completions"], base["completions"]) for tars, base in pairs])
    if same < 0.99:
        raise RuntimeError(f"expected the two steps of each pair to have the same rollouts, {same:.1%} are the same")
    ratios = np.array([tars["seconds"]["step"] / base["seconds"]["step"] for tars, base in pairs])
    first = np.array([turn(tars["step"]).first for tars, _ in pairs])
    tokens = [len(tokens) for tars, _ in pairs for texts in tars["completions"].values() for tokens in texts]
    parts = {}
    for name, keys in {"step": ["step"], **rest}.items():
        with_tars, without = (
            np.array([sum(pair[i]["seconds"].get(key, 0.0) for key in keys) for pair in pairs]) for i in (0, 1)
        )
        parts[name] = {
            "tars": float(np.median(with_tars)),
            "base": float(np.median(without)),
            "difference": float(np.median(with_tars - without)),
        }
    details = {
        "seconds": parts,
        "pairs": ratios.round(4).tolist(),
        "ratio_of_sums": float(
            sum(tars["seconds"]["step"] for tars, _ in pairs) / sum(base["seconds"]["step"] for _, base in pairs)
        ),
        "tars_first": float(np.median(ratios[first])),
        "base_first": float(np.median(ratios[~first])),
        "same_rollouts": float(same),
        "completions_a_step": 2 * QUESTIONS * SAMPLES,
        "distinct_texts": float(np.mean([_distinct(tars["completions"]) for tars, _ in pairs])),
        "tokens_a_completion": float(np.mean(tokens)),
        "load": os.getloadavg()[1],
    }
    ratio, interval = median(ratios[first], ratios[~first])
    return Comparison(ratio, interval, details)


def median(*groups: Any) -> tuple[float, tuple[float, float]]:
    """Geometric mean of the medians of some groups, and its bootstrap interval of 95 %."""
    from scipy.stats import bootstrap, gmean

    def statistic(*samples: Any, axis: int = -1) -> Any:
        return gmean([np.median(sample, axis=axis) for sample in samples])

    found = bootstrap(groups, statistic, n_resamples=9999, vectorized=True, method="percentile", rng=0)
    low, high = found.confidence_interval
    return float(statistic(*groups)), (float(low), float(high))


def _same(left: Mapping[str, list[Any]], right: Mapping[str, list[Any]]) -> float:
    """Share of the completions that are the same, whatever the order of a prompt's samples."""
    total = sum(map(len, left.values()))
    both = sum((Counter(map(tuple, left[name])) & Counter(map(tuple, right[name]))).total() for name in left)
    return both / total if left.keys() == right.keys() else 0.0


def _distinct(completions: Mapping[str, list[Any]]) -> int:
    return len({tuple(tokens) for texts in completions.values() for tokens in texts})


def _demo(framework: str) -> Any:
    """The framework's demo, which knows how to train."""
    loader = SourceFileLoader(f"{framework}_demo", str(REPOSITORY / "examples" / framework / "demo.py"))
    module = ModuleType(loader.name)
    module.__file__ = loader.path
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def _script(path: Path, *arguments: object) -> None:
    subprocess.run([sys.executable, str(path), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
