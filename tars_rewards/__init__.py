"""TARS rewards for Speech LLMs.

Reward terms are pure functions over rollouts; a framework only brings the rollouts in and carries the rewards out.

Importing this package loads neither torch nor a training framework: every public name is imported when it is first
used.

Example:
    >>> from tars_rewards import Rollout, TARSConfig, TARSReward
    >>> reward = TARSReward(TARSConfig(alpha=0, beta=0))
    >>> right = "<think>9 is more than 4.</think><answer>The answer is B.</answer>"
    >>> result = reward([
    ...     Rollout("q1", "speech", completion=right, answer="B"),
    ...     Rollout("q1", "speech", completion="B, I think", answer="B"),
    ...     Rollout("q1", "text", completion=right, answer="B"),
    ... ])
    >>> result.total.tolist()
    [1.5, 0.0, 1.5]
    >>> result.reference.tolist()
    [2, 2, -1]
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tars_rewards._version import __version__

if TYPE_CHECKING:
    from tars_rewards.advantage import modality_normalized_advantages
    from tars_rewards.batch import RolloutBatch
    from tars_rewards.capture import capture_hidden_states
    from tars_rewards.config import TARSConfig
    from tars_rewards.errors import TARSError
    from tars_rewards.metrics import ModalityGap, modality_gap
    from tars_rewards.protocol import AnswerExtractor, BaseScore, Embedder, RewardResult, RewardTerm, Rollout, TermValue
    from tars_rewards.reward import TARSReward
    from tars_rewards.scoring.question import Completion, Question
    from tars_rewards.scoring.rows import ScoredQuestion
    from tars_rewards.scoring.scorer import Scorer

__all__ = [
    "AnswerExtractor",
    "BaseScore",
    "Completion",
    "Embedder",
    "ModalityGap",
    "Question",
    "RewardResult",
    "RewardTerm",
    "Rollout",
    "RolloutBatch",
    "ScoredQuestion",
    "Scorer",
    "TARSConfig",
    "TARSError",
    "TARSReward",
    "TermValue",
    "__version__",
    "capture_hidden_states",
    "modality_gap",
    "modality_normalized_advantages",
]

_HOME = {
    "AnswerExtractor": "protocol",
    "BaseScore": "protocol",
    "Completion": "scoring.question",
    "Embedder": "protocol",
    "ModalityGap": "metrics",
    "Question": "scoring.question",
    "RewardResult": "protocol",
    "RewardTerm": "protocol",
    "Rollout": "protocol",
    "RolloutBatch": "batch",
    "ScoredQuestion": "scoring.rows",
    "Scorer": "scoring.scorer",
    "TARSConfig": "config",
    "TARSError": "errors",
    "TARSReward": "reward",
    "TermValue": "protocol",
    "capture_hidden_states": "capture",
    "modality_gap": "metrics",
    "modality_normalized_advantages": "advantage",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
