"""Rewards of completions without an RL framework: for evaluation, filtering, rejection sampling, preference pairs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from tars_rewards.config import TARSConfig
from tars_rewards.errors import ConfigError, RolloutError, ScoringError, TARSError
from tars_rewards.reward import TARSReward
from tars_rewards.scoring.forward import Measurement, TokenBudget, measure
from tars_rewards.scoring.preparation import Preparation
from tars_rewards.scoring.question import Question
from tars_rewards.scoring.rows import ScoredQuestion, select
from tars_rewards.scoring.sampling import Sampling
from tars_rewards.scoring.work import Piece, Work, about, completed, distinct_ids, paced

if TYPE_CHECKING:
    from tars_rewards.protocol import Embedder
    from tars_rewards.scoring.files import FileReport
    from tars_rewards.speech.model import SpeechModel

_SAMPLING = 8  # times the token budget: all that sampling keeps of a token is its keys and values


class Scorer:
    """Scores and samples completions of paired questions with a Speech LLM.

    Args:
        model: Directory or hub name of a Speech LLM, or a loaded one. None: no forward pass, hence no log-probabilities; the
            config's `alpha` must then be 0.
        config: The reward's settings; its two modalities are the keys of a question's completions.
        device: Where the model runs, such as "cuda:0"; "auto": an accelerator if there is one.
        dtype: Of the model's weights, such as "bfloat16"; "auto": the checkpoint's, float32 on a CPU.
        embedder: Of the behavior term; None: the config's.
        system: System prompt of questions that have none of their own.
        instruction: Follows the question, in both modalities, where it has none of its own.
        token_budget: Tokens of one forward pass, prompts and padding included. Where they do not fit the memory the pass is
            halved, and so are later ones.

    Raises:
        ConfigError: A setting is out of range, or alpha is above 0 without a model.
        UnsupportedConfigError: The model is of no known family.

    Example::

        scorer = Scorer("Qwen/Qwen2.5-Omni-7B")
        for scored in scorer.score(questions):
            print(scored.question.id, scored.result.total.tolist())
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | SpeechModel | None,
        *,
        config: TARSConfig | None = None,
        device: str = "auto",
        dtype: str = "auto",
        embedder: Embedder | None = None,
        system: str | None = None,
        instruction: str | None = None,
        token_budget: int = 16_384,
    ) -> None:
        self.reward = TARSReward(config, embedder=embedder)
        if model is None and self.config.alpha > 0:
            raise ConfigError(
                f"alpha is {self.config.alpha:g}, but there is no model to take hidden states from; name one, or set alpha=0"
            )
        if not isinstance(token_budget, int) or token_budget < 1:
            raise ConfigError(f"token_budget is {token_budget!r}; expected a positive integer")
        if isinstance(model, str | os.PathLike):
            from tars_rewards.speech.model import SpeechModel

            model = SpeechModel.load(os.fspath(model), device=device, dtype=dtype)
        self.model = model
        self.system = system
        self.instruction = instruction
        self._budget = TokenBudget(token_budget)
        self._sampling_budget = TokenBudget(_SAMPLING * token_budget)

    @property
    def config(self) -> TARSConfig:
        """Settings of the reward."""
        return self.reward.config

    def score(self, questions: Iterable[Question | Mapping[str, Any]]) -> Iterator[ScoredQuestion]:
        """Score the completions of questions, a few questions at a time.

        Args:
            questions: Questions with completions, or mappings of the fields of one; read as they are needed.

        Yields:
            Each question with its rewards, in order. A question's rewards depend on that question alone.

        Raises:
            InputError: A question cannot be read; the field is named.
            ScoringError: A question cannot be scored; those before it have been yielded.
        """
        for chunk in paced(map(Question.from_row, questions)):
            for scored in self.score_batch(chunk):
                if isinstance(scored, TARSError):
                    raise scored
                yield scored

    def score_batch(self, questions: Sequence[Question]) -> list[ScoredQuestion | TARSError]:
        """Score some questions at once.

        Returns:
            For each question its rewards, or the error that kept it from being scored, which leaves the others alone.

        Raises:
            EmbeddingError: The embedder failed, which concerns them all.
        """
        results: dict[int, ScoredQuestion | TARSError] = {}
        work: dict[int, Work] = {}
        for index, question in enumerate(questions):
            try:
                work[index] = self._prepared.work(question)
            except TARSError as error:
                results[index] = about(question, error)
        try:
            self._measure(work, results)
        finally:
            if self.model is not None:
                self.model.forget()
        for group in distinct_ids({index: each for index, each in work.items() if index not in results}):
            results.update(self._reward(group))
        return [results[index] for index in range(len(questions))]

    def sample(
        self,
        questions: Iterable[Question | Mapping[str, Any]],
        n: int = 4,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 1024,
        seed: int = 0,
    ) -> Iterator[Question]:
        """Sample completions of questions in both modalities.

        Args:
            questions: Questions, or mappings of the fields of one; read as they are needed.
            n: Completions of each modality.
            temperature: 0 takes the likeliest token.
            top_p: Only the likeliest tokens that together have this probability.
            max_new_tokens: Where a completion is cut off.
            seed: The same seed gives the same completions, however the questions are batched, up to rounding.

        Yields:
            Each question with the new completions in the place of those it may have, in order.

        Raises:
            ConfigError: There is no model, or a setting is out of range.
            InputError: A question cannot be read; the field is named.
            ScoringError: A question cannot be sampled from; those before it have been yielded.
        """
        sampling = Sampling(n, temperature, top_p, max_new_tokens, seed)
        self.required_model()
        for chunk in paced(map(Question.from_row, questions)):
            for sampled in self.sample_batch(chunk, sampling):
                if isinstance(sampled, TARSError):
                    raise sampled
                yield sampled

    def sample_batch(
        self, questions: Sequence[Question], sampling: Sampling, modalities: Sequence[str] | None = None
    ) -> list[Question | TARSError]:
        """Sample completions of some questions at once, in all or some modalities.

        Returns:
            Each question with the new completions alone, or the error that prevented them.
        """
        from tars_rewards.scoring.generation import Draw, sample

        model = self.required_model()
        wanted = self._modalities if modalities is None else tuple(modalities)
        results: list[Question | TARSError] = []
        draws: list[Draw] = []
        for question in questions:
            try:
                prompts = self._prepared.prompts(question, wanted)
            except TARSError as error:
                results.append(about(question, error))
                continue
            results.append(question)
            draws += [
                Draw(question.id, modality, sample_id, prompt)
                for modality, prompt in prompts.items()
                for sample_id in range(sampling.n)
            ]
        lengths = [len(draw.prompt.token_ids) + sampling.max_new_tokens for draw in draws]
        try:
            drawn = iter(self._sampling_budget.run(draws, lengths, lambda batch: sample(model, batch, sampling)))
        finally:
            model.forget()
        for index, each in enumerate(results):
            if isinstance(each, Question):
                results[index] = completed(each, {name: list(islice(drawn, sampling.n)) for name in wanted})
        return results

    def score_file(
        self,
        source: str | os.PathLike[str],
        out: str | os.PathLike[str],
        *,
        skip_bad: bool = False,
        overwrite: bool = False,
        progress: bool = True,
    ) -> FileReport:
        """Score a file of questions into a file of rewards; see `scoring.files.process`.

        Args:
            source: JSONL or Parquet of questions, or "-": JSONL from standard input.
            out: JSONL or Parquet of `ScoredQuestion.rows`, or "-": JSONL to standard output.
            skip_bad: Put questions that cannot be scored into a file of their own instead of stopping.
            overwrite: Begin anew where there are results already.
            progress: Show a bar on standard error.
        """
        from tars_rewards.scoring.files import process
        from tars_rewards.scoring.tasks import ScoreTask

        return process(ScoreTask(self), source, out, skip_bad=skip_bad, overwrite=overwrite, progress=progress)

    def sample_file(
        self,
        source: str | os.PathLike[str],
        out: str | os.PathLike[str],
        n: int = 4,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 1024,
        seed: int = 0,
        skip_bad: bool = False,
        overwrite: bool = False,
        progress: bool = True,
    ) -> FileReport:
        """Sample completions of a file of questions into a file that `score_file` reads; see `sample` and `score_file`."""
        from tars_rewards.scoring.files import process
        from tars_rewards.scoring.tasks import SampleTask

        task = SampleTask(self, Sampling(n, temperature, top_p, max_new_tokens, seed))
        return process(task, source, out, skip_bad=skip_bad, overwrite=overwrite, progress=progress)

    @property
    def _modalities(self) -> tuple[str, str]:
        return self.config.target_modality, self.config.anchor_modality

    def required_model(self) -> SpeechModel:
        """The model.

        Raises:
            ConfigError: There is none.
        """
        if self.model is None:
            raise ConfigError("sampling needs a model; name one")
        return self.model

    @property
    def _prepared(self) -> Preparation:
        return Preparation(self.model, self.config, system=self.system, instruction=self.instruction)

    def _measure(self, work: Mapping[int, Work], results: dict[int, ScoredQuestion | TARSError]) -> None:
        model = self.model
        if model is None:
            return
        jobs = [(index, piece) for index, each in work.items() for piece in each.pieces]

        def run(batch: list[tuple[int, Piece]]) -> list[Measurement | ScoringError]:
            prompts = [piece.prompt for _, piece in batch if piece.prompt is not None]
            return measure(model, prompts, [piece.tokens for _, piece in batch])

        measured = self._budget.run(jobs, [piece.length for _, piece in jobs], run)
        for (index, piece), measurement in zip(jobs, measured, strict=True):
            if isinstance(measurement, ScoringError):
                results[index] = about(work[index].question, measurement)
            else:
                piece.measurement = measurement

    def _reward(self, work: Mapping[int, Work]) -> dict[int, ScoredQuestion | TARSError]:
        """Rewards of questions with different ids, in one call."""
        rollouts = [rollout for each in work.values() for rollout in each.rollouts(with_states=self.config.alpha > 0)]
        try:
            result = self.reward(rollouts)
        except RolloutError as error:
            if len(work) > 1:  # whose fault it is shows one by one
                return {index: self._reward({index: each})[index] for index, each in work.items()}
            return {index: about(each.question, error) for index, each in work.items()}
        scored: dict[int, ScoredQuestion | TARSError] = {}
        start = 0
        for index, each in work.items():
            rows = slice(start, start + len(each.pieces))
            log_probs = [None if piece.measurement is None else piece.measurement.log_probs for piece in each.pieces]
            scored[index] = ScoredQuestion(each.question, rollouts[rows], select(result, rows), log_probs)
            start = rows.stop
        return scored
