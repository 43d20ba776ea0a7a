"""Stands for a package that registers a trainer of its own (as verl-omni does), and for a user's own reward.

The trainer writes what every step held, from TransferQueue, before and after the advantage; the reward calls a
completion correct if it has an even number of characters, since random models never give a right answer, and then gives
3/4 for it, so that its own base reward is told apart from accuracy and format.
Loaded into every process by ``VERL_USE_EXTERNAL_MODULES=recording``.
"""

from __future__ import annotations

import os
from pathlib import Path

from tars_rewards.integration.patching import after_import
from tars_rewards.protocol import BaseScore
from tars_rewards_verl.reward import TARSReward

FIELDS = (
    *("uid", "pair_id", "modality", "prompts", "responses", "input_ids", "response_mask", "multi_modal_inputs"),
    *("rm_scores", "old_log_probs", "rollout_log_probs", "advantages", "extra_fields"),
    *("tars_pooled", "tars_pooled_scales"),
)


class ParityReward(TARSReward):
    def base(self, completion, answer, *, truncated=False):
        correct = len(completion) % 2 == 0
        return BaseScore(correct, False, 0.75 * correct)


def _register(module):
    import torch
    import transfer_queue as tq

    class RecordingTrainer(module.PPOTrainerSync):
        def _build_replay_buffer(self):
            self.trainer_mode = "sync"
            return super()._build_replay_buffer()

        def _compute_advantage(self, batch, metrics):
            batch = super()._compute_advantage(batch, metrics)
            data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=FIELDS)
            rows = {}
            for name in FIELDS:
                if name in data:
                    column = data[name]
                    rows[name] = list(column.unbind()) if isinstance(column, torch.Tensor) else list(column)
            rows |= {"keys": list(batch.keys), "tags": list(batch.tags), "metrics": dict(metrics)}
            torch.save(rows, Path(os.environ["RECORD"]) / f"step_{self.global_steps}.pt")
            return batch

        def _update_actor(self, batch, metrics):
            (Path(os.environ["RECORD"]) / f"update_{self.global_steps}.txt").write_text(" ".join(batch.fields))
            return super()._update_actor(batch, metrics)

    module.trainer_base.register_trainer("recording_sync")(RecordingTrainer)


if os.environ.get("RECORD"):
    after_import("verl.trainer.ppo.v1", _register)
