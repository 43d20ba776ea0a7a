"""Run the experiment, as far as it has not been run: ``make experiment ARMS="grpo tars" SEEDS="0 1" STEPS=100``.

Runs that are in ``results.json``, with the same steps and settings, are skipped. The others go one to a core, seed by seed,
so that what there is after an interruption is balanced: with all arms of the first seed before any of the second. A run
that fails is told of with the end of its log and stops no other; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import experiment_results as results
from arms import ARMS, ARMS_OF, BASES, LEARNING_RATE, arm
from single import RESULT, Place, identity_of
from verl_training import ENVIRONMENT

HERE = Path(__file__).resolve().parent
LINES = 30  # of a failed run's log


class Pool:
    """Runs single.py on cores, a run at a time on each, and stops them all when it is told to.

    Args:
        jobs: Runs at a time.
        cores: The cores that may be used; each run has one of them to itself, unless there are more runs than cores.
        program: What runs.
    """

    def __init__(self, jobs: int, cores: Sequence[int], program: Path = HERE / "single.py") -> None:
        self._program = program
        self._cores: queue.Queue[int | None] = queue.Queue()
        for job in range(jobs):
            # With more runs than cores the kernel spreads them.
            self._cores.put(cores[job] if jobs <= len(cores) else None)
        self._jobs = jobs
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def run(self, commands: Sequence[tuple[str, list[str], Path]]) -> list[str]:
        """Run commands; returns the names of those that failed.

        Args:
            commands: Name, arguments of single.py, and directory of each run.
        """
        with ThreadPoolExecutor(self._jobs) as threads:
            done = threads.map(lambda command: self._one(*command), commands)
            return [name for name, good in zip([name for name, _, _ in commands], done, strict=True) if not good]

    def stop(self) -> None:
        """End all runs, and begin no other."""
        self.stopped = True
        with self._lock:
            for process in self._processes:
                process.terminate()

    def _one(self, name: str, arguments: list[str], directory: Path) -> bool:
        core = self._cores.get()
        try:
            return self.stopped or self._begin(name, arguments, directory, core)
        finally:
            self._cores.put(core)

    def _begin(self, name: str, arguments: list[str], directory: Path, core: int | None) -> bool:
        directory.mkdir(parents=True, exist_ok=True)
        log, started = directory / "run.log", time.monotonic()
        where = [] if core is None else ["--core", str(core)]
        command = [sys.executable, str(self._program), *where, *arguments]
        with log.open("w") as stream:
            with self._lock:
                # A session of its own: an interrupt from the keyboard comes to the runs through `stop` alone.
                process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
                self._processes.add(process)
            if self.stopped:
                process.terminate()
            code = process.wait()
            with self._lock:
                self._processes.discard(process)
        seconds = time.monotonic() - started
        if self.stopped:
            say(f"{name}: stopped after {seconds:.0f} s")
        elif code:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-LINES:])
            say(f"{name}: FAILED with exit code {code} after {seconds:.0f} s; the end of {log}:\n{end}")
        else:
            say(f"{name}: done in {seconds:.0f} s{told(directory)}")
        return code == 0 or self.stopped


def told(directory: Path) -> str:
    """The result of a run in a few words."""
    result = json.loads((directory / RESULT).read_text())
    last = result["checkpoints"][-1]["sets"]["dev"]
    return f"; dev: speech {last['speech_accuracy']:.3f}, text {last['text_accuracy']:.3f}"


def say(text: str) -> None:
    """A line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def plan(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Identities of the runs to do: the bases themselves, measured without training, and then the trainings."""

    trainings = [
        identity_of(base, name, seed, args.steps, rate, args.override)
        for seed in args.seeds
        for base in args.bases
        for name in args.arms or ARMS_OF[base]
        for rate in args.learning_rates or (LEARNING_RATE,)
        if arm(name).trainer != "none"
    ]
    return [identity_of(base, "none", 0, 0, 0.0, []) for base in args.bases], trainings


def execute(args: argparse.Namespace, pool: Pool) -> list[str]:
    """Do the runs that are not done; returns the names of those that failed."""
    place = Place(args.out.resolve())
    untrained, trainings = plan(args)
    have = results.load(args.results)
    # A base is measured again where its result is not at hand: it is the other runs' denominator.
    untrained = [each for each in untrained if not (place.run(each) / RESULT).exists()]
    missing = [each for each in trainings if results.find(have, each) is None]
    say(f"{len(trainings) - len(missing)} of {len(trainings)} trainings are done; {len(missing)} to do")
    if untrained or missing:
        prepare(place, args.bases)
    failed = pool.run([_command(place, each, args) for each in untrained])
    lost = {name.split()[0] for name in failed}
    if lost:
        say(f"the runs of {', '.join(sorted(lost))} are left out, for what they would be compared with has failed")
    return failed + pool.run([_command(place, each, args) for each in missing if each["base"] not in lost])


def prepare(place: Place, bases: Sequence[str]) -> None:
    """Make the data and the bases, where they are not there yet."""
    import bases as recipes
    import data

    data.prepare(place.data)
    for base in bases:
        if not (place.base(base) / "config.json").exists():
            recipes.assemble(base, place.base(base))


def _command(place: Place, identity: dict[str, Any], args: argparse.Namespace) -> tuple[str, list[str], Path]:
    names = {"--base": "base", "--arm": "arm", "--seed": "seed"}
    arguments = [part for option, name in names.items() for part in (option, str(identity[name]))]
    arguments += ["--steps", str(identity["steps"])]
    arguments += ["--learning-rate", str(identity["learning_rate"] or 0.0)]
    arguments += ["--out", str(place.out), "--results", str(args.results.resolve())]
    arguments += ["--keep-weights"] if args.keep_weights else []
    name = " ".join(str(identity[key]) for key in ("base", "arm", "seed"))
    name += f" (learning rate {identity['learning_rate']:g})" if len(args.learning_rates or ()) > 1 else ""
    return name, [*arguments, "--", *args.override], place.run(identity)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line; see the Makefile's target ``experiment``."""
    parser = argparse.ArgumentParser(
        description="Run the experiment.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="default: the base's own")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--bases", nargs="+", choices=BASES, default=list(BASES))
    parser.add_argument("--steps", type=int, default=100, help="updates")
    parser.add_argument(
        "--learning-rates", nargs="+", type=float, help="to choose among; default: the one that was chosen"
    )
    parser.add_argument("--jobs", type=int, help="runs at a time; default: one to a core")
    parser.add_argument("--out", type=Path, default=Path("runs/experiment"), help="working files")
    parser.add_argument("--results", type=Path, default=results.PATH, help="committed results")
    parser.add_argument("--keep-weights", action="store_true", help="do not remove checkpoints after the measuring")
    parser.add_argument("override", nargs="*", help="settings of verl for all RL arms (after --)")
    return parser.parse_args(words)


def main() -> None:
    """Do what the command line asks for."""
    args = parse_arguments()
    os.environ.update(ENVIRONMENT)
    cores = sorted(os.sched_getaffinity(0))
    pool = Pool(args.jobs or len(cores), cores)

    def stop(number: int, _: FrameType | None) -> None:
        say(f"stopping, on signal {number}")
        pool.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    failed = execute(args, pool)
    if failed:
        say(f"{len(failed)} runs failed: {', '.join(failed)}")
    sys.exit(1 if failed or pool.stopped else 0)


if __name__ == "__main__":
    main()
