"""``python recording.py <flags>``: the adapter, with what every step held written down, and ways to go wrong.

Environment: ``RECORD``, a directory to write ``step_<n>.pt`` and ``rollouts_<n>.pt`` to; ``REPLAY``, another run's, of which
the rollouts of the first ``STEPS`` steps are taken instead of generating, and ``GENERATE`` whether more are generated behind
them; ``SABOTAGE``, one of :data:`SABOTAGES`; ``FLOAT32``, whether policy, reference and engine compute in float32, which no
flag of OpenRLHF asks for.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from tars_rewards_openrlhf import cli, cpu

if cpu.active():
    cpu.install()  # OpenRLHF is imported below

import openrlhf.utils.utils as stock_utils

from tars_rewards_openrlhf import engine, policy
from tars_rewards_openrlhf.experience import TARSExperienceMaker
from tars_rewards_openrlhf.samples import PairSamplesGenerator
from tars_rewards_openrlhf.trainer import TARSPPOTrainer

STEPS = int(os.environ.get("STEPS", 0))


class RecordingSamples(PairSamplesGenerator):
    batches = 0
    evaluating = False

    def generate_eval_samples(self, **kwargs):
        self.evaluating = True
        try:
            return super().generate_eval_samples(**kwargs)
        finally:
            self.evaluating = False

    def _generate_vllm(self, dataloader_iter, num_prompts, dynamic_filtering, **kwargs):
        if self.evaluating:
            return super()._generate_vllm(dataloader_iter, num_prompts, dynamic_filtering, **kwargs)
        self.batches += 1
        name = f"rollouts_{self.batches}.pt"
        if self.batches <= STEPS:
            return torch.load(Path(os.environ["REPLAY"]) / name, weights_only=False)
        if STEPS and "GENERATE" not in os.environ:
            return [], 0, True
        generated = super()._generate_vllm(dataloader_iter, num_prompts, dynamic_filtering, **kwargs)
        torch.save(generated, Path(os.environ["RECORD"]) / name)
        return generated


class RecordingExperience(TARSExperienceMaker):
    def _fetch_pooled(self, experiences):
        self.pooled = super()._fetch_pooled(experiences)
        return self.pooled

    def make_experience_batch(self, rollout_samples):
        experiences = super().make_experience_batch(rollout_samples)
        torch.save((experiences, self.pooled), Path(os.environ["RECORD"]) / f"step_{self.step}.pt")
        return experiences


class RecordingTrainer(TARSPPOTrainer):
    samples_class = RecordingSamples
    experience_class = RecordingExperience


class Deaf(engine.RolloutActor):
    """Hands vLLM silence: the actor hears the question, the rollout engine does not."""

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        if multi_modal_data:
            multi_modal_data = {"audio": [(clip * 0, rate) for clip, rate in multi_modal_data["audio"]]}
        return await super().generate(prompt_token_ids, sampling_params, multi_modal_data)


def silence():
    engine.RolloutActor = recording.Deaf


def lose_pushes():
    """Weights arrive at vLLM and are not taken."""
    cpu.ENGINE = (*cpu.ENGINE, ("worker_extension_cls", "stale_worker.StaleWorker"))


SABOTAGES = {"silence": silence, "push": lose_pushes}


def load_float32():
    stock_utils.convert_to_torch_dtype = {"fp32": torch.float32}.__getitem__


class Float32Policy(policy.PolicyActor):
    def init_model_from_pretrained(self, *args, **kwargs):
        load_float32()
        super().init_model_from_pretrained(*args, **kwargs)


class Float32Reference(policy.ReferenceActor):
    def init_model_from_pretrained(self, *args, **kwargs):
        load_float32()
        super().init_model_from_pretrained(*args, **kwargs)


def compute_in_float32():
    """Policy, reference and engine, behind the back of OpenRLHF's parser."""
    install = cli.install

    def install_float32(args, trainer):
        setattr(args, "ds.param_dtype", "fp32")
        install(args, trainer)

    cli.install = install_float32
    cpu.ENGINE = (*cpu.ENGINE, ("dtype", "float32"))
    policy.PolicyActor, policy.ReferenceActor = recording.Float32Policy, recording.Float32Reference


if __name__ == "__main__":
    import recording  # by its own name, as Ray's workers import it: classes of ``__main__`` would travel by value

    if "SABOTAGE" in os.environ:
        SABOTAGES[os.environ["SABOTAGE"]]()
    if "FLOAT32" in os.environ:
        compute_in_float32()
    cli.main(trainer=recording.RecordingTrainer)
