"""TARS in verl's synchronous training loop.

The stock loop stays as it is. The mixin adds, at the places where verl's trainer has a method of its own:

====================  =================================================================================
``__init__``          refuses what cannot work, builds the reward, prints the banner
``_build_replay…``    how often it looks for finished rollouts
``_init_dataloader``  shuffling by pair
``_save_checkpoint``  keeps the denominator of the modality recovery rate with verl's checkpoint
``_load_checkpoint``  and finds it again
``_submit_batch…``    guard: whole pairs are sent to the rollout engine
``_balance_batch``    guard: all of their completions came back
``_compute_old…``     asks the engine for pooled states from the forward that runs anyway
``_compute_adv…``     final reward on the whole batch, before the advantage
``step``              the reward's metrics into the run log
``_val_metrics…``     speech and text accuracy, gap, MRR, own-text ratio
====================  =================================================================================
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from tars_rewards.errors import UnsupportedConfigError
from tars_rewards.integration.completion_embedder import over_window_metric
from tars_rewards.integration.options import describe
from tars_rewards.integration.pairs import CHECK_ROWS, find_pairs
from tars_rewards.integration.patching import require_attribute
from tars_rewards.integration.rollout_kl import RolloutKLGuard, rollout_kl
from tars_rewards.integration.run_log import open_run_log
from tars_rewards.protocol import Rollout
from tars_rewards_verl import batch as rows_of
from tars_rewards_verl import guards, settings
from tars_rewards_verl.pairs import PairSampler
from tars_rewards_verl.reward import load_reward
from tars_rewards_verl.reward_manager import VALIDATION_COLUMN
from tars_rewards_verl.shards import RepresentationShards
from tars_rewards_verl.validation import Backbone, load_backbone, save_backbone, validation_gap
from tars_rewards_verl.version import VERL, require_verl

if TYPE_CHECKING:
    from torch import Tensor
    from verl.trainer.ppo.v1 import PPOTrainerSync as _Base
else:
    _Base = object


class TARSTrainerMixin(_Base):
    """Mixin for ``PPOTrainerSync`` and classes derived from it; see :mod:`tars_rewards_verl.dispatch`."""

    train_dataloader: Any

    def __init__(self, config: Any) -> None:
        require_verl()
        settings.check_config(config)
        settings.prepare_config(config)
        kwargs = OmegaConf.to_container(config.reward.custom_kwargs, resolve=True)
        self.tars = load_reward(config.reward.custom, kwargs)
        self._tars_prompts: dict[str, tuple[str, str]] = {}
        options = self.tars.options
        self._tars_guard = RolloutKLGuard(
            options.max_rollout_kl, settings.compute_dtypes(config), "reward.custom_kwargs.max_rollout_kl"
        )
        accuracy = options.text_backbone_accuracy
        self._tars_backbone = None if accuracy is None else Backbone(accuracy, "text_backbone_accuracy")
        model = str(config.actor_rollout_ref.model.path)
        self._tars_run_log = open_run_log(self.tars.config, options, framework=VERL, model=model)
        super().__init__(config)
        workers = options.finaliser_workers if self.tars.config.alpha else 0
        self._tars_shards = RepresentationShards(self.tars.config, workers) if workers else None
        print(self.tars_banner(), flush=True)

    def tars_banner(self) -> str:
        """Which terms, layers, weights, embedder and advantage are in force."""
        samples, reward = self.config.actor_rollout_ref.rollout.n, self.config.reward.custom
        algorithm = self.config.algorithm
        return (
            f"tars-rewards: {describe(self.tars.config)}; n = {samples} per prompt, advantage {algorithm.adv_estimator} "
            f"(norm_adv_by_std_in_grpo {algorithm.norm_adv_by_std_in_grpo}), reward {reward}"
        )

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        if self.tars.options.rollout_poll is not None:
            require_attribute(buffer, "poll_interval", "verl ReplayBuffer")
            buffer.poll_interval = self.tars.options.rollout_poll
        return buffer

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        pairs = self._tars_pairs(self.train_dataset, "train")
        self._tars_pairs(self.val_dataset, "val")
        data = self.config.data
        seed = self.tars.config.seed if data.get("seed") is None else data.seed
        loader = self.train_dataloader
        self.train_dataloader = type(loader)(
            dataset=self.train_dataset,
            batch_size=loader.batch_size,
            num_workers=loader.num_workers,
            drop_last=True,
            collate_fn=loader.collate_fn,
            sampler=PairSampler(pairs, shuffle=data.shuffle, seed=seed),
        )
        self.val_dataloader.collate_fn = _MarkValidation(self.val_dataloader.collate_fn)

    def _tars_pairs(self, dataset: Any, name: str) -> list[tuple[int, int]]:
        config = self.tars.config
        missing = {"pair_id", "modality"} - set(dataset.dataframe.column_names)
        if missing:
            raise UnsupportedConfigError(
                f"data.{name}_files must have the columns pair_id (the question) and modality ({config.target_modality!r} or "
                f"{config.anchor_modality!r}); {sorted(missing)} missing, add to the dataset"
            )
        data, causes = self.config.data, []
        limit = data.get(f"{name}_max_samples") or -1
        if limit > 0 and (len(dataset.dataframe) == limit or data.filter_overlong_prompts):
            causes.append(
                f"data.{name}_max_samples={limit} picks rows, not pairs: set it to -1 and make a smaller file"
            )
        if data.filter_overlong_prompts:
            causes.append(
                "data.filter_overlong_prompts=True drops rows, not pairs: set it to False and filter the file"
            )
        return self._tars_find_pairs(
            dataset.dataframe["pair_id"],
            dataset.dataframe["modality"],
            where=f"data.{name}_files",
            advice="; ".join(causes) or CHECK_ROWS,
        )

    def _tars_find_pairs(self, pair_ids: Any, modalities: Any, **message: str) -> list[tuple[int, int]]:
        config = self.tars.config
        roles = {"target_modality": config.target_modality, "anchor_modality": config.anchor_modality}
        return find_pairs([str(pair) for pair in pair_ids], [str(each) for each in modalities], **roles, **message)

    def _save_checkpoint(self) -> None:
        super()._save_checkpoint()
        save_backbone(self._tars_backbone, self._tars_step_directory())

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps and self._tars_backbone is None:
            resumed = self.config.trainer.resume_mode == "resume_path"
            self._tars_backbone = load_backbone(
                Path(self.config.trainer.resume_from_path) if resumed else self._tars_step_directory()
            )

    def _tars_step_directory(self) -> Path:
        return Path(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")

    def _submit_batch_to_rollout(self, batch: Any) -> int:
        uids, pair_ids, modalities = (list(batch[name]) for name in ("uid", "pair_id", "modality"))
        self._tars_find_pairs(
            pair_ids,
            modalities,
            where=f"the prompts of step {self.global_steps}",
            advice=(
                "a step has each of its pairs once; unset data.gen_batch_size, with which a step may run over the end of an "
                "epoch, and let no other package replace the train data loader"
            ),
        )
        self._tars_prompts = {
            str(uid): (str(pair_id), str(modality))
            for uid, pair_id, modality in zip(uids, pair_ids, modalities, strict=True)
        }
        return int(super()._submit_batch_to_rollout(batch))

    def _balance_batch(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        guards.check_rows(batch.keys, self._tars_prompts, self.config.actor_rollout_ref.rollout.n)
        return super()._balance_batch(batch, *args, **kwargs)

    def step(self, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Stock, with the reward's metrics kept for a report."""
        batch = super().step(metrics, *args, **kwargs)
        if self._tars_run_log is not None:
            self._tars_run_log.training(self.global_steps, metrics)
        return batch

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        if not self.tars.config.alpha:
            return super()._compute_old_log_prob(batch, metrics)
        batch.extra_info[rows_of.CAPTURE_FLAG] = True
        try:
            return rows_of.leave_states(super()._compute_old_log_prob(batch, metrics))
        finally:
            # The reference policy may be the same engine without its LoRA adapter: its states are not wanted.
            batch.extra_info.pop(rows_of.CAPTURE_FLAG, None)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        started = time.perf_counter()
        rows = rows_of.real_rows(batch)
        config = self.tars.config
        fields = ["pair_id", "modality", "responses", "response_mask", "rm_scores", "reward_model", "extra_fields"]
        fields += ["old_log_probs", "rollout_log_probs"]
        here = config.alpha and self._tars_shards is None
        fields += rows_of.STATES if here else ()
        data = rows_of.fetch(batch, rows, fields)
        rollouts = rows_of.to_rollouts(
            data,
            [batch.keys[row] for row in rows],
            [self.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in data["responses"].unbind()],
            hidden_states=bool(here),
            embedding=bool(config.beta),
        )
        log_probs = self._tars_check_rollout(data, rollouts, metrics)
        elsewhere = None if self._tars_shards is None else self._tars_shards.of(batch, rows)
        result = self.tars(rollouts, step=self.global_steps, representation=elsewhere)
        rows_of.put_rewards(batch, rows, data, result.total)
        if self._tars_run_log is not None:
            self._tars_run_log.rollouts(self.global_steps, rollouts, result, log_probs)
        metrics.update(result.metrics)
        if config.beta:
            metrics.update(over_window_metric(rows_of.over_window_flags(data)))
        metrics["tars/seconds/finalise"] = time.perf_counter() - started
        return rows_of.leave_states(super()._compute_advantage(batch, metrics))

    def _tars_check_rollout(self, data: Any, rollouts: list[Rollout], metrics: dict[str, Any]) -> list[Tensor]:
        """Compare the two engines; returns the actor's log-probs of each completion's tokens."""
        columns = [data[name].unbind() for name in ("rollout_log_probs", "old_log_probs", "response_mask")]
        chosen = [(sampled[mask.bool()], actor[mask.bool()]) for sampled, actor, mask in zip(*columns, strict=True)]
        sampled, actor = map(list, zip(*chosen, strict=True))
        kl = rollout_kl([rollout.modality for rollout in rollouts], sampled, actor)
        metrics.update({f"tars/rollout_k3_kl/{modality}": value for modality, value in kl.items()})
        self._tars_guard.check(kl, self.global_steps)
        return actor

    def _val_metrics_update(self, data_sources: Any, sample_uids: Any, infos: Any, *args: Any, **kwargs: Any) -> Any:
        metrics = super()._val_metrics_update(data_sources, sample_uids, infos, *args, **kwargs)
        gap = validation_gap(
            infos,
            expected=len(self.val_dataset) * self.config.actor_rollout_ref.rollout.val_kwargs.n,
            config=self.tars.config,
            backbone=self._tars_backbone,
        )
        if self._tars_backbone is None and self.global_steps == 0 and gap.anchor_accuracy:
            self._tars_backbone = Backbone(gap.anchor_accuracy, "text accuracy before training")
        print(f"tars-rewards: MRR denominator {gap.denominator} ({gap.denominator_name})", flush=True)
        metrics.update(gap.as_metrics("val-tars/"))
        if self._tars_run_log is not None:
            self._tars_run_log.validation(self.global_steps, metrics)
        return metrics


class _MarkValidation:
    """Collate function that marks validation prompts, so that no embedding is computed for them."""

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self._collate(items)
        batch[VALIDATION_COLUMN] = np.array([True] * len(items), dtype=object)
        return batch
