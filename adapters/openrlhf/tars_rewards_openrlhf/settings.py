"""What TARS needs of OpenRLHF's arguments: refuse what cannot work, fill in what the user would otherwise have to know."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from tars_rewards.errors import UnsupportedConfigError
from tars_rewards.integration.run_log import prepare_directory
from tars_rewards.speech.checkpoint import checkpoint_family
from tars_rewards_openrlhf.flags import OpenRLHFOptions

OUR_REWARD = "tars_rewards.openrlhf"
"""Stands in ``--reward.remote_url`` for accuracy and format, which the executor computes itself."""
GROUP_BASELINES = ("dr_grpo", "group_norm", "rloo")
"""Estimators that compare a completion with others of its own prompt; the first is the paper's."""


def check_args(args: Namespace) -> None:
    """Refuse every setting that TARS cannot train under.

    Args:
        args: OpenRLHF's flat namespace: attributes with dots in their names.

    Raises:
        UnsupportedConfigError: Names the flag, its value, why it cannot work and what to set instead.
    """

    def value(flag: str) -> Any:
        return getattr(args, flag)

    def refuse(flag: str, why: str) -> None:
        raise UnsupportedConfigError(f"TARS cannot run with --{flag} {value(flag)}: {why}")

    if value("train.async_enable"):
        refuse(
            "train.async_enable",
            "completions would be older than the policy whose hidden states they are compared by; leave it out",
        )
    if value("algo.dynamic_filtering_enable"):
        refuse("algo.dynamic_filtering_enable", "it drops one prompt of a pair and keeps the other; leave it out")
    if value("ds.ring_attn_size") > 1:
        refuse("ds.ring_attn_size", "each rank would pool its part of a completion only; set it to 1")
    if value("ds.tensor_parallel_size") > 1:
        refuse(
            "ds.tensor_parallel_size", "hidden states would be spread over ranks; set it to 1 and use --ds.zero_stage"
        )
    if value("train.agent_func_path"):
        refuse(
            "train.agent_func_path",
            "completions are made by the executor of tars-rewards, which brings audio to vLLM and embeds what it "
            "generates; give the base reward by --reward.remote_url instead",
        )
    if not value("vllm.num_engines"):
        refuse("vllm.num_engines", "completions come from vLLM; set it to 1 or more")
    if value("ds.lora.rank"):
        if value("train.enable_ema"):
            refuse(
                "train.enable_ema", "with --ds.lora.rank OpenRLHF averages adapters into other weights; leave it out"
            )
        if value("ds.load_in_4bit"):
            refuse(
                "ds.load_in_4bit",
                "with --ds.lora.rank vLLM gets the adapted weights merged, which no 4 bits hold; leave it out",
            )
    if value("algo.advantage.estimator") not in GROUP_BASELINES:
        refuse(
            "algo.advantage.estimator",
            "its baseline mixes spoken and written completions, of which only the spoken ones earn the alignment terms; "
            f"take dr_grpo (the paper's), or one of {', '.join(GROUP_BASELINES[1:])}",
        )
    if value("rollout.n_samples_per_prompt") < 2:
        refuse(
            "rollout.n_samples_per_prompt", "advantages are relative to other completions of a prompt; set 2 or more"
        )
    for flag in ("rollout.batch_size", "rollout.vllm_generate_batch_size"):
        if (value(flag) or 0) % 2:
            refuse(flag, "a batch counts prompts, two for a question; set it to an even number")
    if value("reward.model_name_or_path") and not value("reward.remote_url"):
        refuse(
            "reward.model_name_or_path",
            "the base reward comes from accuracy and format, or from --reward.remote_url, and a reward model beside it would "
            "be left out; serve it and name it by --reward.remote_url, or leave it out",
        )
    if value("data.prompt_probs"):
        refuse(
            "data.prompt_probs", "it repeats rows, and a question may have one row of each modality only; leave it out"
        )
    ranks = value("actor.num_nodes") * value("actor.num_gpus_per_node")
    if not value("train.dynamic_batch_enable"):
        batches = micro_batches(value("rollout.batch_size"), args)
        if batches % ranks:
            refuse(
                "rollout.batch_size",
                f"its {value('rollout.n_samples_per_prompt')} completions a prompt make {batches} micro-batches of "
                f"{value('rollout.micro_batch_size')}, which {ranks} ranks cannot share evenly; those with fewer would keep the "
                "others waiting for ever. Choose sizes that divide evenly",
            )
    _check_speech(args, refuse)


def micro_batches(prompts: int, args: Namespace) -> int:
    """Micro-batches of the completions of some prompts."""
    samples: int = prompts * getattr(args, "rollout.n_samples_per_prompt")
    return -(-samples // int(getattr(args, "rollout.micro_batch_size")))


def check_last_batch(prompts: int, args: Any) -> None:
    """Refuse a dataset whose last batch the ranks cannot share.

    Args:
        prompts: Of the dataset.
        args: OpenRLHF's nested namespace.

    Raises:
        UnsupportedConfigError: Names the number of rows that would do.
    """
    ranks, rest = args.actor.num_nodes * args.actor.num_gpus_per_node, prompts % args.rollout.batch_size
    batches = -(-rest * args.rollout.n_samples_per_prompt // args.rollout.micro_batch_size)
    if batches % ranks and not args.train.dynamic_batch_enable:
        raise UnsupportedConfigError(
            f"the dataset's {prompts} prompts leave a last batch of {rest}, whose {batches} micro-batches {ranks} ranks cannot "
            f"share evenly: OpenRLHF would stop or wait for ever there. Set --data.max_samples {prompts - rest}"
        )


def _check_speech(args: Namespace, refuse: Any) -> None:
    family = checkpoint_family(args.__dict__["actor.model_name_or_path"])
    if family is None:
        return
    packed = "ds.packing_samples" if getattr(args, "ds.packing_samples") else ""
    packed = packed or ("train.dynamic_batch_enable" if getattr(args, "train.dynamic_batch_enable") else "")
    if packed:
        refuse(packed, f"packed rows lose the tie between {family.name}'s placeholders and its audio; leave it out")
    if getattr(args, "ds.use_liger_kernel"):
        refuse("ds.use_liger_kernel", f"it knows language models only, not {family.name}; leave it out")
    ranks = getattr(args, "actor.num_nodes") * getattr(args, "actor.num_gpus_per_node")
    if getattr(args, "algo.kl.init_coef") > 0:
        ranks = max(ranks, getattr(args, "ref.num_nodes") * getattr(args, "ref.num_gpus_per_node"))
    if getattr(args, "ds.zero_stage") == 3 and ranks > 1:
        refuse(
            "ds.zero_stage",
            f"ranks gather {family.name}'s audio tower together, and one whose micro batch has no audio would keep the "
            "others waiting for ever; set it to 2",
        )


def prepare_args(args: Namespace) -> None:
    """Fill in what TARS needs; what the user has set stays.

    Raises:
        ConfigError: The run log cannot be written.
    """
    if not getattr(args, "reward.remote_url"):
        setattr(args, "reward.remote_url", OUR_REWARD)
    run_log = OpenRLHFOptions(run_log=getattr(args, "tars.run_log")).run_log
    if run_log is not None:
        # Absolute, since the trainer's process may have another working directory.
        setattr(args, "tars.run_log", prepare_directory(run_log))
