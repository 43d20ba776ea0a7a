"""One run of the experiment, from the base to its result: ``python single.py --base natural --arm tars --seed 0 …``.

The run is trained and measured in this process and its children, all on the core that is named. What it leaves in its
directory is ``result.json``; it is merged into the results, and the weights are removed. A run that was interrupted goes on
with the measuring if it had been trained, and else starts anew.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import experiment_results as results
from arms import arm

ALL_SETS = ("dev", "test", "unseen_voices", "noise_0", "noise_5", "noise_10", "noise_20", "new_family")
TRAINED, RESULT = "trained.json", "result.json"


@dataclass(frozen=True)
class Place:
    """Directories of the experiment's working files."""

    out: Path

    @property
    def data(self) -> Path:
        """What data.py prepares."""
        return self.out / "data"

    def base(self, name: str) -> Path:
        """Model directory of a base."""
        return self.out / "bases" / name

    def teacher(self, base: str) -> Path:
        """File of a base's own completions of the training questions."""
        return self.out / "teachers" / f"{base}.parquet"

    def run(self, identity: Mapping[str, Any]) -> Path:
        """Directory of a run."""
        names = [str(identity[name]) for name in ("seed", "steps") if identity["arm"] != "none"]
        names += [f"{identity['learning_rate']:g}"] if identity["learning_rate"] is not None else []
        return self.out / identity["base"] / identity["arm"] / "-".join(names)


def identity_of(base: str, name: str, seed: int, steps: int, learning_rate: float, extra: list[str]) -> dict[str, Any]:
    """What of a result is known before the run."""
    from verl_training import settings_of

    chosen = arm(name)
    if chosen.trainer == "none":
        return {"base": base, "arm": name, "seed": 0, "steps": 0, "learning_rate": None, "settings": []}
    settings = {"verl": settings_of(chosen, learning_rate), "supervised": [f"learning_rate={learning_rate:g}"]}
    known = {"base": base, "arm": name, "seed": seed, "steps": steps, "learning_rate": learning_rate}
    return {**known, "settings": [*settings[chosen.trainer], *extra]}


def run(place: Place, identity: dict[str, Any], *, keep_weights: bool = False) -> dict[str, Any]:
    """Train and measure.

    Args:
        place: Where data and bases are, and the run goes.
        identity: From `identity_of`.
        keep_weights: Leave the checkpoints where they are.

    Returns:
        The result, which is in ``result.json`` too.
    """
    base, name = identity["base"], identity["arm"]
    out = place.run(identity)
    out.mkdir(parents=True, exist_ok=True)
    if (out / RESULT).exists():
        done: dict[str, Any] = json.loads((out / RESULT).read_text())
        if results.identity(done) == results.identity(identity):
            return done
    trained = _trained(place, identity, out)
    started = time.monotonic()
    models = {int(step): Path(path) for step, path in trained["models"].items()}
    checkpoints = [_measured(place, base, step, model, last=max(models)) for step, model in sorted(models.items())]
    log = trained["log"]
    result = {
        **identity,
        "machine": machine(),
        "seconds": {
            "training": trained["seconds"],
            "step_median": round(statistics.median(log["seconds"]), 2) if log else None,
            "measuring": round(time.monotonic() - started, 1),
        },
        "log": log,
        "checkpoints": checkpoints,
    }
    _write(out / RESULT, result)
    if not keep_weights and name != "none":
        for model in models.values():
            shutil.rmtree(model, ignore_errors=True)
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return result


def _trained(place: Place, identity: dict[str, Any], out: Path) -> dict[str, Any]:
    """What the training left: seconds, log by step, model directories by step; trains if that is not done yet."""
    done = out / TRAINED
    if done.exists():
        left: dict[str, Any] = json.loads(done.read_text())
        if left["identity"] == identity and all(Path(model).is_dir() for model in left["models"].values()):
            return left
    base, chosen = place.base(identity["base"]), arm(identity["arm"])
    seed, steps = identity["seed"], identity["steps"]
    started = time.monotonic()
    log: dict[str, list[float | None]] = {}
    if chosen.trainer == "none":
        models = {0: base}
    elif chosen.trainer == "supervised":
        import supervised

        models, log = supervised.train(
            identity["arm"],
            base,
            out,
            data=place.data,
            seed=seed,
            steps=steps,
            learning_rate=identity["learning_rate"],
        )
    else:
        import verl_training
        from step_log import collect

        teacher = _teacher(place, identity["base"]) if chosen.teacher else None
        started = time.monotonic()
        models = verl_training.train(
            identity["settings"], base=base, data=place.data, out=out, seed=seed, steps=steps, teacher=teacher
        )
        log = collect(out / "log", out / "metrics.jsonl")
    trained = {
        "identity": identity,
        "seconds": round(time.monotonic() - started, 1),
        "log": log,
        "models": {step: str(path) for step, path in models.items()},
    }
    _write(done, trained)
    return trained


def _measured(place: Place, base: str, step: int, model: Path, *, last: int) -> dict[str, Any]:
    from gradients import gradients
    from measure import measure

    sets = ALL_SETS if step == last else ("dev", "test") if step == last // 2 else ("dev",)
    reference = None if step == 0 else text_accuracy(place, base)
    return {
        "step": step,
        "sets": measure(model, sets, base_text_accuracy=reference, data=place.data, heard_cache=place.out / "heard"),
        "gradient": gradients(model, data=place.data, heard_cache=place.out / "heard"),
    }


def text_accuracy(place: Place, base: str) -> dict[str, float]:
    """The base's accuracy on text, by set: the denominator of the modality recovery rate.

    Raises:
        FileNotFoundError: The base has not been measured.
    """
    measured = json.loads((place.run(identity_of(base, "none", 0, 0, 0.0, [])) / RESULT).read_text())
    return {name: values["text_accuracy"] for name, values in measured["checkpoints"][0]["sets"].items()}


def _teacher(place: Place, base: str) -> Path:
    """The frozen teacher's file, made by whoever needs it first."""
    from teacher import write_teacher
    from verl_training import embedder

    path = place.teacher(base)
    with _locked(path.with_suffix(".lock")):
        if not path.exists():
            write_teacher(place.base(base), place.data / "train.parquet", path, embedder=str(embedder()))
    return path


def machine() -> str:
    """Processor and number of cores."""
    about = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in about.read_text().splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else 'unknown processor'}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, content: object) -> None:
    made = path.with_suffix(".new")
    made.write_text(json.dumps(content))
    made.replace(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="One run of the experiment.")
    parser.add_argument("--base", required=True)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True, help="directory of the experiment's working files")
    parser.add_argument("--results", type=Path, default=results.PATH, help="file that the result is merged into")
    parser.add_argument("--core", type=int, help="the core to run on; default: all")
    parser.add_argument("--keep-weights", action="store_true")
    parser.add_argument("override", nargs="*", help="settings of verl besides the arm's (after --)")
    args = parser.parse_args()
    # A signal ends the children too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    identity = identity_of(args.base, args.arm, args.seed, args.steps, args.learning_rate, args.override)
    place = Place(args.out.resolve())
    result = run(place, identity, keep_weights=args.keep_weights)
    results.add(result, args.results)


if __name__ == "__main__":
    main()
