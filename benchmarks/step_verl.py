"""``python benchmarks/step_verl.py``: what TARS adds to a step of verl, and how much embedding hides behind generation.

See `paired_steps`. Rows ``step/verl`` and ``behavior/hidden``; with ``--demo``, of the demo's own policy, ``step/verl/demo``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paired_steps
from alternating_verl import POLL
from paired_steps import CACHE, PAIRS, SLOTS, TOKENS, WARM_UP, turn
from results import record

SETTINGS = [
    "reward.custom=alternating_verl:TimedReward",
    "reward.custom_kwargs.run_log=null",
    "trainer.v1.trainer_mode=alternating_sync",
    "trainer.save_freq=-1",
    "actor_rollout_ref.actor.optim.lr=0",
    f"actor_rollout_ref.rollout.max_num_seqs={SLOTS}",
    f"actor_rollout_ref.rollout.max_num_batched_tokens={TOKENS}",
    "+ray_kwargs.ray_init._temp_dir=RAY_DIRECTORY",
]
# Policy, rollouts and embedder in bfloat16. verl computes in it where the demo does not set float32.
LARGER = [
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=bf16",
    "actor_rollout_ref.rollout.dtype=bfloat16",
    f"actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes={CACHE}",
    "reward.custom_kwargs.embedder_dtype=bfloat16",
]
PARTS = {
    "generation": ["gen"],
    "log_probs": ["old_log_prob"],
    "advantages": ["adv"],
    "update": ["update_actor"],
    "weight_push": ["update_weights"],
}


def hidden(
    steps: Sequence[Mapping[str, Any]],
    embeddings: Sequence[Mapping[str, float]],
    generation: Sequence[Mapping[str, float]],
) -> list[dict[str, float]]:
    """Seconds of generation, of embedding, of embedding before the last completion was generated, of TARS steps.

    ``processor`` is the processor's time for embedding, which others' use of the cores does not lengthen.
    """
    found, begun = [], 0.0
    for row in sorted(steps, key=lambda row: row["step"]):
        of, ended = turn(row["step"]), row["ended"]
        requests, batches = (
            [item for item in items if begun < item["begun"] < ended] for items in (generation, embeddings)
        )
        begun = ended
        if of.pair < WARM_UP or not of.tars:
            continue
        last = max(item["ended"] for item in requests)
        found.append(
            {
                "generation": last - min(item["begun"] for item in requests),
                "embedding": sum(item["ended"] - item["begun"] for item in batches),
                "hidden": sum(max(0.0, min(item["ended"], last) - item["begun"]) for item in batches),
                "processor": sum(item["processor"] for item in batches),
                "batches": len(batches),
            }
        )
    return found


def main(*, demo: bool) -> bool:
    """Run, and record the rows; True if their goals are met."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paired_steps.train(
            "verl",
            directory,
            demo=demo,
            override=SETTINGS if demo else [*SETTINGS, *LARGER],
            environment={"VERL_USE_EXTERNAL_MODULES": "alternating_verl"},
        )
        steps, embeddings, generation = (
            paired_steps.read(directory, name) for name in ("steps", "embeddings", "generation")
        )
    ratio, interval, details = paired_steps.compare(steps, rest=PARTS)
    details |= {"poll_seconds": POLL, "slots": SLOTS}
    met = record("step/verl/demo" if demo else "step/verl", ratio, rounds=PAIRS, interval=interval, details=details)
    if demo:
        return met

    spans = hidden(steps, embeddings, generation)
    shares = [100 * span["hidden"] / span["embedding"] for span in spans]
    share, interval = paired_steps.median(shares)
    sums = {key: sum(span[key] for span in spans) for key in spans[0]}
    totals = {f"{key}_{'a_step' if key == 'batches' else 'seconds_a_step'}": sums[key] / len(spans) for key in sums}
    details = {**totals, "share_of_sums": 100 * sums["hidden"] / sums["embedding"], "slots": SLOTS}
    details["generation_is_longer"] = float(np.mean([span["generation"] > span["embedding"] for span in spans]))
    met &= record("behavior/hidden", share, rounds=len(spans), interval=interval, details=details)
    return met


if __name__ == "__main__":
    sys.exit(not main(demo=paired_steps.asked_for_demo("What TARS adds to a step of verl.")))
