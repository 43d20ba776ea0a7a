"""The demo on OpenRLHF: `make demo-openrlhf`. What it trains and measures is in ``examples/spoken_reasoning``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "spoken_reasoning"))

from demo import Training, embedder, main  # noqa: E402  (found by the path above)

QUESTIONS = 8  # a step
SAMPLES = 4  # completions per prompt: 4 spoken + 4 written
COMPLETIONS = 2 * SAMPLES * QUESTIONS
FLAGS = f"""
--data.input_key prompt --data.label_key answer --data.apply_chat_template --data.max_len 512
--actor.num_nodes 1 --actor.num_gpus_per_node 1 --actor.freeze_visual_encoder
--actor.adam.lr 1e-4 --actor.lr_warmup_ratio 0 --actor.eps_clip_low_high 0.2 0.28
--vllm.num_engines 1 --vllm.enforce_eager --vllm.sync_backend gloo
--algo.advantage.estimator dr_grpo --algo.kl.init_coef 0
--rollout.batch_size {2 * QUESTIONS} --rollout.n_samples_per_prompt {SAMPLES} --rollout.micro_batch_size 32
--rollout.max_new_tokens 64 --rollout.temperature 1.0
--train.batch_size {COMPLETIONS} --train.micro_batch_size 32
--ds.zero_stage 0 --ds.attn_implementation sdpa
""".split()


def prepare(args: argparse.Namespace, out: Path, data: Path, base: Path) -> Training:
    """OpenRLHF's stock program, by way of ``python -m tars_rewards.openrlhf``."""
    settings = [
        *FLAGS,
        *("--actor.model_name_or_path", str(base)),
        *("--data.prompt_dataset", f"{data}/train.parquet"),
        *("--train.seed", str(args.seed)),
        *("--ckpt.output_dir", f"{out}/trained"),
        *("--ckpt.path", f"{out}/checkpoints"),
        *("--tars.embedder", str(embedder())),
        *("--tars.seed", str(args.seed)),
        *("--tars.run_log", f"{out}/log"),
        *("--tars.run_log_rate", "0.25"),
        *("--data.max_samples", str(2 * QUESTIONS * args.steps)),
        *args.override,
    ]
    return Training(
        command=[sys.executable, "-m", "tars_rewards.openrlhf", *settings],
        environment={
            "TARS_OPENRLHF_PLATFORM": "cpu",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
            "VLLM_NO_USAGE_STATS": "1",
        },
        trained=out / "trained",
        settings=settings,
    )


if __name__ == "__main__":
    main("OpenRLHF", Path("runs/demo-openrlhf"), prepare)
