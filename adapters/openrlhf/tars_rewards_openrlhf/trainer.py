"""OpenRLHF's trainer with TARS in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import openrlhf.trainer.ppo_trainer as stock

from tars_rewards.integration.options import describe
from tars_rewards.integration.patching import replace
from tars_rewards.integration.run_log import open_run_log
from tars_rewards_openrlhf.dataset import PairDataset
from tars_rewards_openrlhf.evaluation import evaluation_metrics
from tars_rewards_openrlhf.experience import TARSExperienceMaker
from tars_rewards_openrlhf.flags import read_flags
from tars_rewards_openrlhf.samples import PairSamplesGenerator
from tars_rewards_openrlhf.settings import check_last_batch
from tars_rewards_openrlhf.stock import OPENRLHF, plain_class

if TYPE_CHECKING:

    class _Base:
        """``PPOTrainer``, which is not typed."""

        args: Any
        experience_maker: TARSExperienceMaker

        def __init__(self, pretrain: str, strategy: Any, *args: Any, **kwargs: Any) -> None: ...

        def train_step(self, rollout_samples: list[Any], global_step: int) -> tuple[dict[str, Any], int]: ...

        def evaluate(self, global_step: int, **generate_kwargs: Any) -> Any: ...
else:
    _Base = plain_class(stock, "PPOTrainer")

_prepare_datasets = stock.prepare_datasets
_compute_eval_metrics = stock.compute_eval_metrics


class TARSPPOTrainer(_Base):
    """``PPOTrainer`` whose dataset, samples, rewards and evaluation are those of TARS.

    To change one of them, derive from it and from what it is made of, and hand the class to `cli.main`.
    """

    dataset_class: ClassVar[type] = PairDataset
    samples_class: ClassVar[type] = PairSamplesGenerator
    experience_class: ClassVar[type] = TARSExperienceMaker

    def __init__(self, pretrain: str, strategy: Any, *args: Any, **kwargs: Any) -> None:
        config, options = read_flags(vars(strategy.args.tars))

        def compute_eval_metrics(eval_dataloader: Any, samples_list: list[Any], n_samples_per_prompt: int) -> Any:
            return evaluation_metrics(
                _compute_eval_metrics, samples_list, n_samples_per_prompt, config=config, options=options
            )

        # In this process and not before: Ray sends the trainer's class by value and its base class by reference, so
        # that of changes made elsewhere only a part would arrive.
        replace(stock, "PromptDataset", self.dataset_class)
        replace(stock, "SamplesGenerator", self.samples_class)
        replace(stock, "RemoteExperienceMaker", self.experience_class)
        replace(stock, "prepare_datasets", prepare_datasets, "strategy tokenizer")
        replace(
            stock, "compute_eval_metrics", compute_eval_metrics, "eval_dataloader samples_list n_samples_per_prompt"
        )
        self._run_log = open_run_log(config, options, framework=OPENRLHF, model=pretrain)
        super().__init__(pretrain, strategy, *args, **kwargs)
        self.experience_maker.run_log = self._run_log
        n, estimator = strategy.args.rollout.n_samples_per_prompt, strategy.args.algo.advantage.estimator
        print(f"tars-rewards: {describe(config)}; n = {n} per prompt, advantages {estimator}", flush=True)

    def train_step(self, rollout_samples: list[Any], global_step: int) -> tuple[dict[str, Any], int]:
        """Stock, with the reward's metrics among those of the step."""
        self.experience_maker.step = global_step + 1
        status, global_step = super().train_step(rollout_samples, global_step)
        if self._run_log is not None:
            self._run_log.training(global_step, self.experience_maker.metrics)
        return status | self.experience_maker.metrics, global_step

    def evaluate(self, global_step: int, **generate_kwargs: Any) -> Any:
        """Stock, by way of this class: Ray copies inherited methods of an actor, and the copy sees nothing replaced."""
        metrics = super().evaluate(global_step, **generate_kwargs)
        if self._run_log is not None:
            self._run_log.validation(global_step, metrics)
        return metrics


def prepare_datasets(strategy: Any, tokenizer: Any) -> tuple[Any, Any, int]:
    """Stock, with the number of steps counted in prompts, of which an item of the dataset holds two."""
    train, evaluation, _ = _prepare_datasets(strategy, tokenizer)
    if evaluation is not None:
        evaluation.dataset.validation = True
    args = strategy.args
    prompts = 2 * len(train.dataset)
    check_last_batch(prompts, args)
    steps = prompts * args.rollout.n_samples_per_prompt // args.train.batch_size
    return train, evaluation, steps * args.train.num_episodes * args.train.max_epochs
