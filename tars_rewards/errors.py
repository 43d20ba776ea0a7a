"""Every error this package raises on purpose, in one tree.

A message says what was expected, what came, and what to do. Each class is also a standard library error, so that code
which does not know this package can still catch it, and each can be pickled, so that Ray carries it between processes.

::

    TARSError
    ├── ConfigError (ValueError)                a setting is unknown or out of range
    │   └── LayerSelectionError                 the layers asked for are not among those that came
    ├── RolloutError (ValueError)               a rollout cannot be scored as it is
    │   ├── ModalityError                       its modality is neither the target nor the anchor
    │   ├── DuplicateRolloutError               two rollouts of a batch have one identity
    │   ├── MissingAnswerError                  neither `answer` nor `correct` was given
    │   └── HiddenStatesError                   hidden states missing, misshapen or not finite
    ├── EmbeddingError (ValueError)             an embedding is unusable
    │   └── EmbedderFailedError                 the embedder raised, or returned something unusable
    ├── TermError (ValueError)                  a reward term of one's own returned something unusable
    ├── ExtractionError (RuntimeError)          an answer extractor failed on completions
    ├── MissingDependencyError (ImportError)    an optional package is not installed
    ├── InputError (ValueError)                 questions or files cannot be read; every problem found is listed
    ├── ScoringError (RuntimeError)             a question could not be scored or sampled from
    ├── CaptureError (RuntimeError)             hidden states could not be captured from a forward pass
    └── AdapterError (RuntimeError)             a framework brought something the method cannot work with
        ├── UnsupportedConfigError (ValueError) the framework's configuration excludes the method
        └── IncompletePairError (ValueError)    a batch holds only one modality of a question
"""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 20  # problems that a message lists


class TARSError(Exception):
    """Root of the tree; catching it catches everything this package raises on purpose."""


class ConfigError(TARSError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class LayerSelectionError(ConfigError):
    """`layers` asks for decoder layers that the hidden states do not hold."""


class RolloutError(TARSError, ValueError):
    """A rollout cannot be scored as it is."""


class ModalityError(RolloutError):
    """A rollout's modality is neither the target modality nor the anchor modality."""


class DuplicateRolloutError(RolloutError):
    """Two rollouts of one batch have the same (pair_id, modality, sample_id)."""


class MissingAnswerError(RolloutError):
    """A rollout has neither a reference answer nor a verdict, so that its accuracy is unknown."""


class HiddenStatesError(RolloutError):
    """Hidden states are missing, of differing shapes, or hold NaN or inf."""


class EmbeddingError(TARSError, ValueError):
    """An embedding has the wrong shape or values that are not finite."""


class EmbedderFailedError(EmbeddingError):
    """The embedder raised, or returned the wrong count, the wrong shape, or values that are not finite.

    The one error that `on_embedder_failure="invalid"` goes on after: an embedder of your own may raise anything.
    """


class TermError(TARSError, ValueError):
    """A reward term of one's own returned no TermValue, or one of a wrong shape or with values that are not finite."""


class ExtractionError(TARSError, RuntimeError):
    """An answer extractor failed; the completions were not judged, and are not scored as wrong."""


class MissingDependencyError(TARSError, ImportError):
    """An optional package that a chosen option needs is not installed."""


class InputError(TARSError, ValueError):
    """Questions, or the files they are in, cannot be used as they are.

    Args:
        message: What is wrong; where there are `problems`, what they are of.
        problems: One sentence each, with line and field.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message, tuple(problems))
        self.message = message
        self.problems = tuple(problems)

    def __str__(self) -> str:
        shown = self.problems[:_SHOWN]
        more = len(self.problems) - len(shown)
        return "\n  ".join([self.message, *shown, *([f"and {more} more"] if more else [])])


class ScoringError(TARSError, RuntimeError):
    """A question that is well formed could not be scored, or completions not be sampled."""


class CaptureError(TARSError, RuntimeError):
    """Hidden states could not be captured from a model's forward pass."""


class AdapterError(TARSError, RuntimeError):
    """A framework brought something that the method cannot work with."""


class UnsupportedConfigError(AdapterError, ValueError):
    """The framework's configuration excludes something the method needs."""


class IncompletePairError(AdapterError, ValueError):
    """A batch holds rollouts of only one modality of a question."""


class EmbedderFailureWarning(UserWarning):
    """The embedder failed, and the behavior term is left out of a batch (`on_embedder_failure="invalid"`)."""


class EmbeddingWindowWarning(UserWarning):
    """A text is longer than the embedder's window: its end, where the answer stands, is not embedded."""
