"""verl's trainer with steps that alternate between TARS and the base reward only; see `paired_steps`.

Loaded into every process by ``VERL_USE_EXTERNAL_MODULES=alternating_verl``. A step with the base reward only is verl's own:
its trainer's methods in place of the adapter's, no pooled states, no log-probs from vLLM (verl's default, which the
adapter's guard changes), and prompts marked like those of a validation, so that no completion is embedded.

What would tell the two steps of a pair apart besides is taken away: rollouts come in the order of their prompts and not
in that in which they finished, which decides how long the padded micro-batches take; and the actor forgets the clips that
it has encoded, since the second step would find all of them.

Written down besides: when each completion was being generated, and when embeddings were being computed, by the clock that
all processes of a machine share.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Any

import torch
from paired_steps import Seeds, begin, current, turn, write

from tars_rewards.integration.patching import after_import
from tars_rewards.speech.encoder_cache import EncoderCache
from tars_rewards_verl.reward import TARSReward

POLL = 0.02
"""Seconds between two looks for finished rollouts. verl's default of 2 s would round every step up to them."""
# What the adapter adds to verl's trainer.
ADDED = ("_submit_batch_to_rollout", "_balance_batch", "_compute_old_log_prob", "_compute_advantage")


class TimedReward(TARSReward):
    """Writes down when embeddings are computed."""

    def embed(self, completions: Any) -> Any:
        """See `TARSReward.embed`."""
        begun, processor = time.monotonic(), time.thread_time()
        try:
            return super().embed(completions)
        finally:
            spent = time.thread_time() - processor
            write("embeddings", begun=begun, ended=time.monotonic(), processor=spent, texts=len(completions))


def _alternate(module: Any) -> None:
    """Register the trainer."""
    import transfer_queue as tq
    from verl.utils import tensordict_utils as tu

    from tars_rewards_verl.reward_manager import VALIDATION_COLUMN

    class AlternatingTrainer(module.PPOTrainerSync):
        _prompts: Any = None

        def _build_replay_buffer(self) -> Any:
            self.trainer_mode = "sync"  # verl asks for it by name
            buffer = super()._build_replay_buffer()
            buffer.poll_interval = POLL
            return buffer

        def on_step_begin(self) -> None:
            super().on_step_begin()
            begin(self.global_steps)
            tars = turn(self.global_steps).tars
            self.config.actor_rollout_ref.rollout.calculate_log_probs = tars
            for name in ADDED:
                if tars:
                    self.__dict__.pop(name, None)
                else:
                    self.__dict__[name] = functools.partial(getattr(AlternatingTrainer, name), self)

        def _balance_batch(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
            batch.reorder(sorted(range(len(batch.keys)), key=batch.keys.__getitem__))
            return super()._balance_batch(batch, *args, **kwargs)

        def _next_train_batch(self, num_prompts: int | None = None) -> Any:
            if self._prompts is None:
                self._prompts = super()._next_train_batch(num_prompts)
            batch = self._prompts.clone(recurse=False)
            validation = [not turn(self.global_steps).tars] * len(batch)
            tu.assign_non_tensor_stack(batch, VALIDATION_COLUMN, validation)
            uids = [f"{self.global_steps:06d}-{prompt:06d}" for prompt in range(len(batch))]
            tu.assign_non_tensor_stack(batch, "uid", uids)
            tu.assign_non_tensor_data(batch, "global_steps", self.global_steps)
            return batch

        def _compute_metrics(self, batch: Any, metrics: Any, timing_raw: Any, *args: Any, **kwargs: Any) -> Any:
            # The step's time has been taken when verl comes here.
            fields = ["pair_id", "modality", "responses"]
            data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
            completions: dict[str, list[list[int]]] = {}
            for pair, modality, tokens in zip(
                data["pair_id"], data["modality"], data["responses"].unbind(), strict=True
            ):
                completions.setdefault(f"{pair} {modality}", []).append(tokens.tolist())
            ended, seconds = time.monotonic(), {name: float(value) for name, value in timing_raw.items()}
            added = {name: value for name, value in metrics.items() if name.startswith("tars/seconds/")}
            write("steps", step=self.global_steps, ended=ended, seconds=seconds | added, completions=completions)
            if not turn(self.global_steps).first:
                self._prompts = super()._next_train_batch()
            return super()._compute_metrics(batch, metrics, timing_raw, *args, **kwargs)

    module.trainer_base.register_trainer("alternating_sync")(AlternatingTrainer)


def _seed(module: Any) -> None:
    """Seed vLLM's sampling, and ask for log-probs with TARS only."""
    stock, seeds = module.vLLMHttpServer.generate, Seeds()

    @functools.wraps(stock)
    async def generate(
        self: Any, prompt_ids: Any, sampling_params: dict[str, Any], *args: Any, audio_data: Any = None, **kwargs: Any
    ) -> Any:
        seed = seeds.next(module.normalize_token_ids(prompt_ids), audio_data or ())
        begun = time.monotonic()
        try:
            params = sampling_params | {"seed": seed, "logprobs": current().tars}
            return await stock(self, prompt_ids, params, *args, audio_data=audio_data, **kwargs)
        finally:
            write("generation", begun=begun, ended=time.monotonic())

    module.vLLMHttpServer.generate = generate


def _use_all_cores(module: Any) -> None:
    """Let the actor compute on every core: nothing else computes when it does."""
    stock = module.FSDPEngine.initialize

    @functools.wraps(stock)
    def initialize(self: Any) -> Any:
        torch.set_num_threads(os.cpu_count() or 1)
        return stock(self)

    module.FSDPEngine.initialize = initialize


def _forget(module: Any) -> None:
    """Empty the actor's encoder cache after each update."""
    stock = module.FSDPEngine.optimizer_step

    @functools.wraps(stock)
    def optimizer_step(self: Any) -> Any:
        for part in self.module.modules():
            if isinstance(part.forward, EncoderCache):
                part.forward.clear()
        return stock(self)

    module.FSDPEngine.optimizer_step = optimizer_step


after_import("verl.trainer.ppo.v1", _alternate)
after_import("verl.workers.engine.fsdp.transformer_impl", _use_all_cores)
after_import("verl.workers.engine.fsdp.transformer_impl", _forget)
after_import("verl.workers.rollout.vllm_rollout.vllm_async_server", _seed)
