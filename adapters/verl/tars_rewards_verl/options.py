"""Options of the verl adapter, besides those of the reward (:class:`tars_rewards.config.TARSConfig`).

One of the reward's has another default here: ``embedder_device`` is "cpu" (:class:`tars_rewards_verl.reward.TARSReward`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tars_rewards.errors import ConfigError
from tars_rewards.integration.options import AdapterOptions


@dataclass(frozen=True)
class VerlOptions(AdapterOptions):
    """What the adapter needs to know that the reward does not.

    Raises:
        ConfigError: A value is out of range.
    """

    weight_push_deadline: float = 300.0
    """Seconds that one message of a weight push to vLLM, or its acknowledgement, may take before the run is stopped."""

    rollout_poll: float | None = None
    """Seconds between two looks of the trainer for finished rollouts, which a step waits for in vain. None: verl's 2 s, which no
    setting of its own changes; of steps of a few seconds that is a large part."""

    finaliser_workers: int = 0
    """Processes, a core each, that compute the representation term of a step, spread by pair. 0: the trainer does. For
    steps of many thousands of completions, see docs/scaling.md."""

    def __post_init__(self) -> None:
        super().__post_init__()
        workers = self.finaliser_workers
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise ConfigError(f"finaliser_workers must be a number of processes, or 0 for none, got {workers!r}")
        if not self.weight_push_deadline > 0:
            raise ConfigError(
                f"weight_push_deadline must be a positive number of seconds, got {self.weight_push_deadline}"
            )
        if self.rollout_poll is not None and not self.rollout_poll > 0:
            raise ConfigError(f"rollout_poll must be a positive number of seconds or null, got {self.rollout_poll}")
