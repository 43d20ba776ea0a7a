"""A reward server in a process of its own, questions to ask it, and a crowd of clients in another process."""

from __future__ import annotations

import base64
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Rewards of a batch and of a question alone differ by the rounding of the forward pass: padding changes its shapes.
REWARD_TOLERANCE = 1e-5  # of total and of representation, which are at most a few units
LOG_PROB_TOLERANCE = 1e-5  # relative


def environment(**more: str) -> dict[str, str]:
    """This process's variables, with one thread for torch and this checkout on the path."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **more,
    }


def make_rows(
    clips: Sequence[Path], count: int, *, samples: int = 4, words: int = 20, seed: int = 0
) -> list[dict[str, Any]]:
    """Questions with uploaded clips and `samples` completions of each modality, of differing lengths around `words`."""
    generator = random.Random(seed)
    uploads = [{"bytes": base64.b64encode(clip.read_bytes()).decode()} for clip in clips]
    rows = []
    for index in range(count):
        a, b = generator.randint(0, 9), generator.randint(0, 9)

        def completion(right: int) -> str:
            thought = " ".join(
                str(generator.randint(0, 99)) for _ in range(generator.randint(words // 2, words * 3 // 2))
            )
            said = right if generator.random() < 0.7 else right + 1
            return f"<think>{thought}</think><answer>The answer is {said}.</answer>"

        rows.append(
            {
                "id": f"q{index}",
                "prompt": f"What is {a} plus {b}?",
                "audio": uploads[index % len(uploads)],
                "answer": str(a + b),
                "completions": {
                    modality: [completion(a + b) for _ in range(samples)] for modality in ("speech", "text")
                },
            }
        )
    return rows


def same_rows(got: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> bool:
    """Whether flat rows are equal: numbers within the tolerances, everything else exactly."""
    if len(got) != len(expected):
        return False
    for mine, theirs in zip(got, expected, strict=True):
        if mine.keys() != theirs.keys():
            return False
        for name, value in theirs.items():
            if not isinstance(value, float) or not isinstance(mine[name], float):
                if mine[name] != value:
                    return False
            elif abs(mine[name] - value) > (
                LOG_PROB_TOLERANCE * abs(value) if name == "log_prob" else REWARD_TOLERANCE
            ):
                return False
    return True


class ServerProcess:
    """``serve_program.py`` in a process; a context that ends it.

    Args:
        model: Directory of a Speech LLM; None: accuracy and format only.
        settings: Of `ServerSettings`, over a free port.
        variables: Of the environment.
        wait: Seconds until it must be ready; 0: do not wait for that, only for its address.
        options: Further options of the program, such as ``hold``.
    """

    def __init__(
        self,
        model: Path | None,
        *,
        settings: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
        wait: float = 60,
        **options: Any,
    ) -> None:
        task = {"model": None if model is None else str(model), "settings": {"port": 0, **(settings or {})}, **options}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "serve_program.py"), json.dumps(task)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**(variables or {})),
        )
        self.lines: list[str] = []
        self._arrived: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self.expect("listening")["url"]
        if wait:
            self.expect("ready", wait)

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line)
            self._arrived.put(line)
        self._arrived.put(None)

    def expect(self, event: str, seconds: float = 60) -> dict[str, Any]:
        """Wait for a line of the log."""
        until = time.monotonic() + seconds
        while (line := self._arrived.get(timeout=max(0.01, until - time.monotonic()))) is not None:
            if line.startswith("{") and (entry := json.loads(line))["event"] == event:
                return entry
        raise AssertionError(f"the server ended before {event!r}:\n{''.join(self.lines)}")

    def metric(self, name: str) -> float:
        """Value of a metric without labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as page:
            lines = page.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        return self.process.wait(seconds)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def crowd(
    url: str, rows: Sequence[Mapping[str, Any]], directory: Path, *, clients: int, seconds: float
) -> dict[str, Any]:
    """Let clients ask for `seconds` from a process of their own, each one question after the other.

    Returns:
        ``sent``: how many requests; ``answers``: a row's number, the status, the answer, and the seconds from the beginning
        until it was there.
    """
    task = {"url": url, "rows": list(rows), "clients": clients, "seconds": seconds}
    (directory / "task.json").write_text(json.dumps(task))
    subprocess.run(
        [sys.executable, str(HERE / "crowd.py"), str(directory)], check=True, env=environment(), timeout=seconds + 120
    )
    return json.loads((directory / "answers.json").read_text())


def check_crowd(result: Mapping[str, Any], expected: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Every request of a crowd was answered, each by its own question's rewards, which are those of the Python API."""
    answers = result["answers"]
    assert len(answers) == result["sent"], f"{result['sent'] - len(answers)} requests of {result['sent']} were lost"
    refused = [answer for answer in answers if answer[1] != 200]
    assert not refused, f"{len(refused)} of {len(answers)} were not scored; the first: {refused[0]}"
    wrong = [number for number, _, body, _ in answers if not same_rows(body["rewards"][0], expected[number])]
    assert not wrong, f"{len(wrong)} of {len(answers)} answers are not those of their question; the first: {wrong[0]}"
