"""The demo on verl: `make demo`. What it trains and measures is in ``examples/spoken_reasoning``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "spoken_reasoning"))

from demo import Training, embedder, main  # noqa: E402  (found by the path above)


def prepare(args: argparse.Namespace, out: Path, data: Path, base: Path) -> Training:
    """Verl's stock entry point with ``demo.yaml``."""
    settings = [
        "reward.custom=tars_rewards.verl:TARSReward",
        f"reward.custom_kwargs.embedder={embedder()}",
        f"reward.custom_kwargs.seed={args.seed}",
        f"reward.custom_kwargs.run_log={out}/log",
        "reward.custom_kwargs.run_log_rate=0.25",
        f"actor_rollout_ref.model.path={base}",
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/test.parquet",
        f"trainer.total_training_steps={args.steps}",
        f"trainer.save_freq={args.steps}",
        f"trainer.default_local_dir={out}/checkpoints",
        "trainer.logger=[console]",
        f"hydra.run.dir={out}/hydra",
        *args.override,
    ]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(HERE), "--config-name", "demo"]
    return Training(
        command=[*command, *settings],
        environment={
            "VERL_PLATFORM": "cpu",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
            "VLLM_NO_USAGE_STATS": "1",
        },
        trained=out / "checkpoints" / f"global_step_{args.steps}" / "actor" / "huggingface",
        settings=settings,
    )


if __name__ == "__main__":
    main("verl", Path("runs/demo"), prepare)
