"""An agent loop that writes every generated completion down, or takes those of another run.

verl loads it where completions are made (``actor_rollout_ref.rollout.agent.agent_loop_config_path``). Environment:
``RECORD``, the run's directory; ``REPLAY``, another run's, whose completions are used again in the first ``REPLAY_STEPS``
steps.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class ReplayingAgentLoop(SingleTurnAgentLoop):
    """verl's single-turn loop, with a rollout engine that remembers."""

    async def run(self, sampling_params, priority=0, **kwargs):
        name = "-".join(str(kwargs[part]) for part in ("pair_id", "modality", "session_id"))
        self.server_manager = _Engine(self.server_manager, int(kwargs["global_steps"]), f"{name}.pt")
        return await super().run(sampling_params, priority, **kwargs)


class _Engine:
    def __init__(self, engine, step, name):
        self._engine = engine
        self._step = step
        self._name = name

    def _file(self, run):
        return Path(os.environ[run], "rollouts", str(self._step), self._name)

    async def generate(self, *, prompt_ids, **kwargs):
        if self._step <= int(os.environ["REPLAY_STEPS"]):
            recorded_prompt, output = torch.load(self._file("REPLAY"), weights_only=False)
            assert recorded_prompt == list(prompt_ids)
            return output
        output = await self._engine.generate(prompt_ids=prompt_ids, **kwargs)
        self._file("RECORD").parent.mkdir(parents=True, exist_ok=True)
        torch.save((list(prompt_ids), output), self._file("RECORD"))
        return output
