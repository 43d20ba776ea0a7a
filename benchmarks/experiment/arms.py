"""The arms of the experiment: what each is trained by. All else is the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

TARS = "tars_rewards.verl:TARSReward"
BASES = ("natural", "constructed", "ordinary")
LEARNING_RATE = 1e-4
"""Of all arms; chosen on the dev set, by standard RL alone, as README.md says."""


@dataclass(frozen=True)
class Arm:
    """One way to train a base, or none."""

    about: str
    trainer: Literal["none", "supervised", "verl"] = "verl"
    reward: str = TARS  #: verl's reward.custom
    kwargs: Mapping[str, object] = field(default_factory=dict)  #: reward.custom_kwargs over those of verl.yaml
    teacher: bool = False  #: the reward needs the frozen base's own completions
    after_the_fact: bool = False  #: thought of when results of others had been seen


ARMS = {
    "none": Arm("no training", trainer="none"),
    "sft": Arm("cross-entropy on the base's own correct text completions, given speech", trainer="supervised"),
    "distillation": Arm("on-policy: reverse KL to the frozen base that reads the question", trainer="supervised"),
    "grpo": Arm("standard RL: the base reward alone", kwargs={"alpha": 0, "beta": 0}),
    "representation": Arm("and the representation term", kwargs={"beta": 0}),
    "behavior": Arm("and the behavior term", kwargs={"alpha": 0}),
    "tars": Arm("and both"),
    "symmetric": Arm("both, for text completions too, towards correct speech", reward="rewards:SymmetricReward"),
    "frozen_teacher": Arm(
        "both, towards the frozen base's correct text", reward="rewards:FrozenTeacherReward", teacher=True
    ),
    "reasoning_format": Arm(
        "standard RL, the format rewarded only where the answer reasons",
        reward="rewards:ReasoningFormatReward",
        kwargs={"alpha": 0, "beta": 0},
    ),
    "tars_16": Arm("TARS, its representation term with the weight 16", kwargs={"alpha": 16}, after_the_fact=True),
}

_DECLARED = tuple(name for name, each in ARMS.items() if not each.after_the_fact)
ARMS_OF = {"natural": tuple(ARMS), "constructed": _DECLARED, "ordinary": ("none", "grpo", "tars")}
"""The arms that are run on each base."""


def arm(name: str) -> Arm:
    """The arm of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in ARMS:
        raise ValueError(f"expected an arm of {', '.join(ARMS)}; got {name!r}")
    return ARMS[name]
