"""The reward of a whole batch of rollouts: terms in, one number a rollout out."""

from __future__ import annotations

import operator
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tars_rewards.base import base_score
from tars_rewards.config import TARSConfig
from tars_rewards.errors import ConfigError, EmbeddingError, MissingAnswerError
from tars_rewards.extraction import answer_extractor, extract_answers
from tars_rewards.protocol import AnswerExtractor, BaseScore, Embedder, RewardResult, Rollout, TermValue
from tars_rewards.terms import load_terms, own_term, own_weights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tars_rewards.batch import RolloutBatch
    from tars_rewards.embedding import TextEmbedder
    from tars_rewards.protocol import RepresentationFunction


class TARSReward:
    """Scores rollouts by TARS (arXiv 2601.05543).

    Target rollouts earn `R_base + alpha * R_rep + beta * R_beh`, and what terms of your own add to it (the setting
    `terms`); anchor rollouts earn `R_base`. The result depends on the
    rollouts, the config and the step alone: not on their order (give each a `sample_id`), nor on how pairs are spread
    over calls or processes.

    Can be pickled, attributes of a subclass included; an embedder of its own making, and what it remembers, are then
    left behind and made again on demand.

    Args:
        config: The settings.
        embedder: Turns completions into vectors; None: the config's model or endpoint, loaded when first needed. With
            beta=0 it is neither loaded nor looked at.
        extract: Finds the answer in a completion; None: the config's `answer_extractor`.

    Raises:
        ConfigError: The config is no TARSConfig; a term of your own cannot be found; or, with beta > 0, the embedder has no
            `encode`, or no `model_id` although an on-disk cache is asked for.
        MissingDependencyError: The package of the chosen answer extractor is not installed.
    """

    def __init__(
        self,
        config: TARSConfig | None = None,
        *,
        embedder: Embedder | None = None,
        extract: AnswerExtractor | None = None,
    ) -> None:
        self.config = TARSConfig() if config is None else config
        if not isinstance(self.config, TARSConfig):
            raise ConfigError(
                f"expected a TARSConfig, got {type(config).__name__}: {config!r}; settings by name go through "
                "TARSConfig.from_mapping"
            )
        if embedder is not None and self.config.beta > 0:
            from tars_rewards.embedding import check_embedder

            check_embedder(embedder, self.config)
        self._given_embedder = embedder
        self._extract = answer_extractor(self.config.answer_extractor) if extract is None else extract
        self._reset()

    def _reset(self) -> None:
        self._default_embedder: Embedder | None = None
        self._texts: TextEmbedder | None = None
        self._lock = threading.RLock()
        self._terms = load_terms(own_weights(self.config.terms))

    def __getstate__(self) -> dict[str, Any]:
        made_on_demand = ("_default_embedder", "_texts", "_lock", "_terms")
        return {name: value for name, value in self.__dict__.items() if name not in made_on_demand}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def embedder(self) -> Embedder:
        """The embedder in use; the default one is loaded by the first look at it.

        Raises:
            MissingDependencyError: A package that it needs is not installed.
            ConfigError: The endpoint's API key is not where the settings say.
        """
        if self._given_embedder is not None:
            return self._given_embedder
        with self._lock:
            if self._default_embedder is None:
                from tars_rewards.embedding import default_embedder

                self._default_embedder = default_embedder(self.config)
            return self._default_embedder

    def base(self, completion: str, answer: str | None, *, truncated: bool = False) -> BaseScore:
        """Score one completion by itself, in [0, 1 + format_weight]; see `base.base_score`.

        Raises:
            MissingAnswerError: There is no right answer to compare with.
        """
        weight, extract = self.config.format_weight, self._extract
        return base_score(completion, answer, format_weight=weight, truncated=truncated, extract=extract)

    def embed(self, completions: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed completions as the behavior term does: for frameworks that do so while others still generate.

        Each distinct text is embedded once; with `strip_tags` without its tags.

        Returns:
            float32 [completions, dim].

        Raises:
            EmbedderFailedError: The embedder raised, or returned the wrong count or shape, or values that are not finite.
            EmbeddingError: Vectors differ in dimension, or the embedder's `batch_size` is no positive integer.
        """
        import numpy as np

        texts = self._prepared(completions)
        return self._text_embedder().encode(texts).vectors if texts else np.empty((0, 0), np.float32)

    def over_window(self, completions: Sequence[str]) -> npt.NDArray[np.bool_] | None:
        """Which completions are longer than the embedder's window; None where the embedder does not tell its window."""
        return self._text_embedder().over_window(self._prepared(completions))

    def __call__(
        self,
        rollouts: Sequence[Rollout] | RolloutBatch,
        *,
        step: int = 0,
        representation: RepresentationFunction | None = None,
    ) -> RewardResult:
        """Score a batch.

        Args:
            rollouts: All rollouts of the questions in the batch, both modalities, in any order and any numbers; or the same
                as a batch made by `RolloutBatch.from_rollouts`.
            step: The training step, an integer; references are drawn anew in each.
            representation: Gives that term where the hidden states are in other processes; None: the rollouts have them.

        Returns:
            Rewards, terms, validity, references and metrics in the order of the rollouts, as CPU tensors. The reference
            is drawn whatever the weights; a rollout that is empty, or left out as truncated, has none and is none.

        Raises:
            ConfigError: The step is no integer, or a RolloutBatch was made by other settings.
            RolloutError: A rollout is malformed, or one of the children: a modality is unknown, an identity occurs
                twice, an answer is missing, or (alpha > 0) hidden states are missing, misshapen or not finite.
            LayerSelectionError: alpha > 0, and the layers do not fit the hidden states.
            EmbedderFailedError: beta > 0, the embedder failed, and `on_embedder_failure` is "stop".
            EmbeddingError: beta > 0, and embeddings that came with rollouts are not finite or not of one shape.
            TermError: A term of your own returned something unusable. What it raises is passed on.
            ExtractionError: The answer extractor failed. What an extractor of yours raises is passed on.
        """
        import numpy as np
        import torch

        from tars_rewards.batch import RolloutBatch
        from tars_rewards.combiner import combine
        from tars_rewards.metrics import reward_metrics, timed
        from tars_rewards.reference import choose_references, reference_draws

        config, seconds = self.config, dict[str, float]()
        with timed(seconds, "base"):
            if isinstance(rollouts, RolloutBatch):
                batch = rollouts
                batch.check_config(config)
            else:
                batch = RolloutBatch.from_rollouts(rollouts, config)
            answers = extract_answers(
                self._extract,
                [item.completion for item in batch.rollouts if item.base is None and item.correct is None],
            )
            scores = [self._base_of(batch, index, answers) for index in range(len(batch))]
            correct = np.array([score.correct for score in scores], bool)
            formatted = np.array([score.format for score in scores], bool)
            base = torch.from_numpy(np.array([score.reward for score in scores], np.float32))
        with timed(seconds, "reference"):
            candidate = ~batch.is_target & batch.scorable & correct
            draws = reference_draws(
                batch.pair_ids,
                batch.pair,
                batch.sample_id,
                seed=config.seed,
                step=_integer(step),
                modality=config.target_modality,
            )
            needs = batch.is_target & batch.scorable
            reference = torch.from_numpy(
                choose_references(batch.pair, batch.sample_id, needs=needs, candidate=candidate, draws=draws)
            )
        terms = {name: TermValue.nowhere(len(batch)) for name in ("representation", "behavior")}
        layer_similarity, over_window, failures = None, None, None
        if config.alpha > 0:
            from tars_rewards.representation import representation_term

            term_of = representation or partial(representation_term, layers=config.layers, center=config.center)
            with timed(seconds, "representation"):
                terms["representation"], per_layer = term_of(batch, reference)
            layer_similarity = per_layer if config.return_layers else None
        if config.beta > 0:
            from tars_rewards.behavior import behavior_of_batch

            tolerate = config.on_embedder_failure == "invalid"
            with timed(seconds, "behavior"):
                behavior = behavior_of_batch(
                    batch,
                    reference,
                    encode=lambda texts: self._text_embedder().encode(texts),
                    strip=config.strip_tags,
                    tolerate=tolerate,
                )
            terms["behavior"], over_window = behavior.term, behavior.over_window
            failures = behavior.failures if tolerate else None
        for term in self._terms:
            with timed(seconds, term.name):
                terms[term.name] = own_term(term, batch, reference)
        components = {
            "accuracy": torch.from_numpy(correct.astype(np.float32)),
            "format": torch.from_numpy(formatted.astype(np.float32)),
            **{name: term.values for name, term in terms.items()},
        }
        valid = {
            "accuracy": torch.from_numpy(np.ones(len(batch), bool)),
            "format": torch.from_numpy(np.ones(len(batch), bool)),
            **{name: term.valid for name, term in terms.items()},
        }
        total = combine(
            base,
            terms,
            weights={"representation": config.alpha, "behavior": config.beta}
            | {term.name: term.weight for term in self._terms},
            is_target=torch.from_numpy(batch.is_target),
        )
        metrics = reward_metrics(
            batch,
            config,
            total=total,
            base=base,
            components=components,
            valid=valid,
            candidate=candidate,
            seconds=seconds,
            over_window=over_window,
            embedder_failures=failures,
        )
        return RewardResult(total, components, valid, reference, metrics, layer_similarity)

    def _base_of(self, batch: RolloutBatch, index: int, answers: Mapping[str, str | None]) -> BaseScore:
        rollout = batch.rollouts[index]
        if rollout.base is not None:
            return rollout.base
        try:
            return base_score(
                rollout.completion,
                rollout.answer,
                format_weight=self.config.format_weight,
                truncated=rollout.truncated,
                correct=rollout.correct,
                extract=answers.__getitem__,
            )
        except MissingAnswerError as error:
            raise MissingAnswerError(f"{batch.describe(index)}: {error}") from error

    def _prepared(self, completions: Sequence[str]) -> list[str]:
        from tars_rewards.answers import strip_tags

        if isinstance(completions, str):
            raise EmbeddingError("expected a list of completions, got one str; wrap it in a list")
        return [strip_tags(text) if self.config.strip_tags else text for text in completions]

    def _text_embedder(self) -> TextEmbedder:
        from tars_rewards.cache import EmbeddingStore
        from tars_rewards.embedding import TextEmbedder, check_embedder

        with self._lock:
            if self._texts is None:
                embedder, directory = self.embedder, self.config.embedding_cache
                check_embedder(embedder, self.config)
                store = None
                if directory is not None:
                    store = EmbeddingStore(directory, model_id=str(getattr(embedder, "model_id", "")))
                self._texts = TextEmbedder(embedder, memory=self.config.embedding_cache_size, store=store)
            return self._texts


def _integer(step: Any) -> int:
    try:
        return operator.index(step)
    except TypeError as error:
        raise ConfigError(f"expected an integer step, got {step!r} ({type(step).__name__}); use int(…)") from error
