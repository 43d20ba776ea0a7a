"""What goes in, what comes out, and what can be plugged in: the whole package on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from tars_rewards.batch import RolloutBatch
    from tars_rewards.transport import PackedStates

    Array = npt.NDArray[Any] | Tensor


@dataclass(frozen=True)
class Rollout:
    """One sampled completion. Its identity is (pair_id, modality, sample_id), never its position or its prompt."""

    pair_id: str  #: the question; the two modalities of a question share it
    modality: str  #: the config's target modality (default "speech") or its anchor modality (default "text")
    sample_id: int | None = None  #: which sample of this question and modality; None: order of appearance
    completion: str = ""  #: the generated text, without the prompt
    answer: str | None = None  #: the right answer: an option's letter, or free text
    hidden_states: Array | PackedStates | None = field(default=None, compare=False, repr=False)
    """[layers, hidden], any float dtype: each decoder layer's output, averaged over the completion's tokens. From another
    process they may come packed (`transport.py`); `numpy.asarray` makes an array of either."""
    truncated: bool = False  #: generation stopped at the length limit
    correct: bool | None = None  #: whether the answer is right; None: judged from `answer` and `completion`
    embedding: Array | None = field(default=None, compare=False, repr=False)
    """[dim] sentence embedding of the completion, if already computed (a list will do); None: the embedder is asked."""
    embedding_failed: bool = False  #: it was to be computed already, and the embedder failed; it is not asked again
    base: BaseScore | None = None
    """The base score, where a framework or a user's own reward function has it already; then `answer` and `correct` are
    not looked at and the text is not parsed. None: computed from them."""


@dataclass(frozen=True, eq=False)
class RewardResult:
    """Rewards of a batch, in the order of its rollouts. Where a term is not valid its value is 0, never NaN."""

    total: Float[Tensor, " rollouts"]  #: what the policy is trained on
    components: Mapping[
        str, Float[Tensor, " rollouts"]
    ]  #: accuracy, format, representation, behavior, your own; unweighted
    valid: Mapping[str, Bool[Tensor, " rollouts"]]  #: same keys; False: does not apply, or could not be computed
    reference: Int[Tensor, " rollouts"]  #: index of the anchor rollout compared with; -1 where there is none
    metrics: Mapping[str, float]  #: ready to log, all under "tars/"
    layer_similarity: Float[Tensor, "rollouts layers"] | None = None  #: only with `return_layers`; else None


class BaseScore(NamedTuple):
    """What a completion earns by itself: `reward = correct + format_weight * format`, or any finite reward of yours."""

    correct: bool
    format: bool
    reward: float


class TermValue(NamedTuple):
    """A term's value for every rollout, and where that value exists; elsewhere it is 0."""

    values: Float[Tensor, " rollouts"]
    valid: Bool[Tensor, " rollouts"]

    @classmethod
    def nowhere(cls, rollouts: int) -> TermValue:
        """A term that exists for no rollout, to be filled in: float32 on the CPU, whatever torch's defaults are."""
        import torch

        return cls(
            torch.zeros(rollouts, dtype=torch.float32, device="cpu"),
            torch.zeros(rollouts, dtype=torch.bool, device="cpu"),
        )


class RepresentationFunction(Protocol):
    """Stands for `representation.representation_term`, settings applied, where the hidden states are elsewhere."""

    def __call__(
        self, batch: RolloutBatch, reference: Int[Tensor, " rollouts"], /
    ) -> tuple[TermValue, Float[Tensor, "rollouts chosen"]]:
        """The term, and the cosine of every chosen layer."""


class RewardTerm(Protocol):
    """A term of the target rollouts' reward; most compare each with its reference (an index into the batch, -1: none).

    What it says of anchor rollouts is left out: they are never rewarded for anything but the base reward.
    """

    def __call__(self, batch: RolloutBatch, reference: Int[Tensor, " rollouts"], /) -> TermValue:
        """Value and validity of the term for every rollout of the batch."""


class Embedder(Protocol):
    """Anything that turns texts into vectors.

    Optional attributes are used where present: `max_tokens` (math.inf: no limit) and `count_tokens(list[str]) ->
    list[int]` to notice texts that do not fit, `batch_size` (texts a call, default 32), and `model_id`, which an on-disk
    cache needs. A plain SentenceTransformer tells its window by itself; of any other without `max_tokens` a warning says
    once that it cannot be noticed.
    """

    def encode(self, texts: list[str], /) -> Array:
        """[len(texts), dim], one row a text, numpy or torch."""


class AnswerExtractor(Protocol):
    """Finds the answer in a completion. What it raises is passed on: a failure is never a wrong answer.

    Where it has a method `batch(list[str]) -> list[str | None]`, a batch of rollouts is read in one call of that.
    """

    def __call__(self, completion: str, /) -> str | None:
        """Return the text that states the answer, or None where the completion states none or more than one."""
