"""``python alternating_openrlhf.py <flags>``: OpenRLHF with steps that alternate between TARS and the base reward only.

See `paired_steps`. A step with the base reward only is OpenRLHF's own: its experience maker's method in place of the
adapter's, no pooled states, and prompts marked like those of an evaluation, so that no completion is embedded. The
actor forgets the clips that it has encoded after each step, since the second step of a pair would find all of them.
"""

from __future__ import annotations

import dataclasses
import os
import time
from itertools import islice
from typing import Any

from paired_steps import CACHE, SLOTS, TOKENS, Seeds, turn, write

from tars_rewards_openrlhf import cli, cpu

if cpu.active():
    cpu.install()  # OpenRLHF is imported below

import ray
import torch
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

from tars_rewards.speech.encoder_cache import EncoderCache
from tars_rewards_openrlhf import engine, policy
from tars_rewards_openrlhf.experience import TARSExperienceMaker
from tars_rewards_openrlhf.label import Label
from tars_rewards_openrlhf.samples import EXTRAS, PairSamplesGenerator
from tars_rewards_openrlhf.trainer import TARSPPOTrainer


class AlternatingSamples(PairSamplesGenerator):
    """Every two batches are of the same prompts."""

    step = 0
    begun = 0.0

    def generate_samples(self, **generate_kwargs: Any) -> Any:
        self.begun = time.monotonic()
        self.step += 1
        return super().generate_samples(**generate_kwargs)

    def _generate_vllm(self, dataloader_iter: Any, num_prompts: int, *args: Any, **kwargs: Any) -> Any:
        of = turn(self.step)
        if of.first:
            self._questions = list(islice(dataloader_iter, num_prompts // 2))
        marked = [
            (sources, prompts, [_mark(label, validation=not of.tars) for label in labels], clips)
            for sources, prompts, labels, clips in self._questions
        ]
        return super()._generate_vllm(iter(marked), num_prompts, *args, **kwargs)


class AlternatingExperience(TARSExperienceMaker):
    """OpenRLHF's own where the step is not of TARS."""

    def make_experience(self, samples_list: Any) -> Any:
        if turn(self.step).tars:
            return super().make_experience(samples_list)
        for samples in samples_list:
            for name in [name for name in samples.info if name.startswith(EXTRAS)]:
                del samples.info[name]
        return RemoteExperienceMaker.make_experience(self, samples_list)


class AlternatingTrainer(TARSPPOTrainer):
    """Writes down what each step took."""

    samples_class = AlternatingSamples
    experience_class = AlternatingExperience

    def fit(self, global_step: int = 0) -> None:
        self._begin(global_step + 1)
        super().fit(global_step)

    def train_step(self, rollout_samples: Any, global_step: int) -> Any:
        completions: dict[str, list[list[int]]] = {}
        for sample in rollout_samples:
            label = Label.load(sample.labels[0])
            tokens = sample.sequences[0][1:][sample.action_mask[0].bool()]
            completions.setdefault(f"{label.pair_id} {label.modality}", []).append(tokens.tolist())
        generated = time.monotonic()
        status, step = super().train_step(rollout_samples, global_step)
        ended = time.monotonic()
        seconds = {name.removeprefix("timing/"): value for name, value in status.items() if name.startswith("timing/")}
        seconds |= {
            "step": ended - self.samples_generator.begun,
            "generation": generated - self.samples_generator.begun,
        }
        if turn(step).tars:
            seconds |= {name: value for name, value in status.items() if name.startswith("tars/seconds/")}
        write("steps", step=step, ended=ended, seconds=seconds, completions=completions)
        self._begin(step + 1)
        return status, step

    def _begin(self, step: int) -> None:
        ray.get(self.actor_model_group.async_run_method("begin", tars=turn(step).tars))


class AlternatingPolicy(policy.PolicyActor):
    """Pools states where the next step is of TARS. Computes on every core: nothing else computes when it does."""

    def begin(self, tars: bool) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        self._tars_capture = tars
        for part in self.actor.model.modules():
            if isinstance(part.forward, EncoderCache):
                part.forward.clear()


class AlternatingEngine(engine.RolloutActor):
    """Seeds vLLM's sampling."""

    seeds = Seeds()

    async def generate(self, prompt_token_ids: Any, sampling_params: Any, multi_modal_data: Any = None) -> Any:
        clips = [clip for clip, _ in (multi_modal_data or {}).get("audio", ())]
        sampling_params.seed = self.seeds.next(prompt_token_ids, clips)
        return await super().generate(prompt_token_ids, sampling_params, multi_modal_data)


def _mark(label: str, *, validation: bool) -> str:
    return dataclasses.replace(Label.load(label), validation=validation).dump()


if __name__ == "__main__":
    # By its own name, as Ray's workers import it: classes of ``__main__`` would travel by value.
    import alternating_openrlhf

    limits = {"max_num_seqs": SLOTS, "max_num_batched_tokens": TOKENS, "kv_cache_memory_bytes": CACHE}
    cpu.ENGINE = (*cpu.ENGINE, *limits.items())
    engine.RolloutActor = alternating_openrlhf.AlternatingEngine
    policy.PolicyActor = alternating_openrlhf.AlternatingPolicy
    cli.main(trainer=alternating_openrlhf.AlternatingTrainer)
