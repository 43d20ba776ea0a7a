"""Run a training program in processes of its own, read back what it logged, and leave nothing running."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        returncode: Exit code of the entry point; None if the deadline passed.
        seconds: Wall-clock time.
        log: Everything that its processes printed, without colours.
        steps: Logged metrics of each step, in order, with the step's number under ``step``.
        directory: The run's directory (checkpoints under ``checkpoints``).
    """

    returncode: int | None
    seconds: float
    log: str
    steps: list[dict[str, float]]
    directory: Path

    def check(self) -> Run:
        """This run, if it ended well; else an AssertionError with the end of its log."""
        assert self.returncode == 0, f"exit {self.returncode} after {self.seconds:.0f} s\n{self.log[-12000:]}"
        return self


def run(
    command: Sequence[str],
    directory: Path,
    *,
    environment: Mapping[str, str],
    ray_directory: Path,
    parse_steps: Callable[[str], Iterable[dict[str, float]]],
    timeout: float,
) -> Run:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        directory: Its working directory; its output goes to ``log.txt`` there.
        environment: Variables over those of this process.
        ray_directory: Where its Ray keeps its files: what is left of it is known by that, and killed.
        parse_steps: Finds the logged metrics in what its Ray workers printed. That is read from Ray's own files: on
            its way to the driver a long line may come in two pieces.
        timeout: Seconds after which it is killed with all of its processes.
    """
    log_file = directory / "log.txt"
    started = time.monotonic()
    with log_file.open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=directory,
            start_new_session=True,
        )
        try:
            returncode: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            returncode = None
        finally:
            _end(process, ray_directory)
    seconds = time.monotonic() - started
    text = _ANSI.sub("", log_file.read_text(errors="replace"))
    printed = [file.read_text(errors="replace") for file in ray_directory.glob("**/session_2*/logs/worker-*.out")]
    shutil.rmtree(ray_directory, ignore_errors=True)
    return Run(returncode, seconds, text, list(parse_steps("".join(printed))), directory)


def _end(process: subprocess.Popen[bytes], ray_directory: Path) -> None:
    """Kill whatever is left of the run: its descendants, and Ray's daemons, which outlive a killed driver."""
    left = []
    if process.poll() is None:
        left = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
    for candidate in psutil.process_iter(["cmdline"]):
        if any(str(ray_directory) in argument for argument in candidate.info["cmdline"] or ()):
            left += [candidate, *candidate.children(recursive=True)]
    for each in left:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
