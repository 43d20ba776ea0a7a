"""Imports and plugins, tried in processes of their own: they are slow, have side effects, and may crash.

``python -m tars_rewards.cli.probes NAME …`` answers in lines of JSON, ``[what, error or null, note]``.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from tars_rewards.errors import TARSError

PLUGINS = {"verl": ("verl.plugins", "tars_rewards"), "vllm": ("vllm.general_plugins", "tars_rewards")}
"""By framework: group and name of the entry point through which it loads this package."""


class Answer(NamedTuple):
    """What came of a trial."""

    what: str
    error: str | None  #: a sentence; None: all is well
    note: str = ""


def imported(modules: Sequence[str]) -> list[Answer]:
    """Try to import modules, in a process that goes on after one that fails; a crash costs that module only."""
    left, answers = list(modules), list[Answer]()
    while left:
        found, end = _run(["imports", *left])
        answers += found
        left = left[len(found) :]
        if left:  # it died over the next one
            answers.append(Answer(left.pop(0), end))
    return answers


def plugin(framework: str) -> Answer:
    """Let a framework load its plugin, and say whether it did."""
    answers, end = _run([framework])
    return answers[0] if answers else Answer(framework, end)


def entry_point(framework: str) -> EntryPoint | None:
    """The entry point through which a framework loads this package; None if it is not registered."""
    group, name = PLUGINS[framework]
    return next(iter(entry_points(group=group, name=name)), None)


def _run(arguments: Sequence[str]) -> tuple[list[Answer], str]:
    """Answers of a trial, and how its process ended."""
    command = [sys.executable, "-m", __name__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return [Answer(*json.loads(line)) for line in done.stdout.splitlines()], f"exit code {done.returncode}: {last}"


def _imports(modules: Sequence[str]) -> Iterator[Answer]:
    for name in modules:
        note = ""
        try:
            module = importlib.import_module(name)
            note = _torch_build(module) if name == "torch" else ""
        except Exception as error:  # whatever a broken package raises
            yield Answer(name, _sentence(error))
        else:
            yield Answer(name, None, note)


def _torch_build(torch: object) -> str:
    cuda = torch.version.cuda  # type: ignore[attr-defined]
    if cuda is None:
        return "built without CUDA"
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]  # type: ignore[attr-defined]
    return f"CUDA {cuda}: {', '.join(devices) or 'no device found'}"


def _verl() -> None:
    import verl

    from tars_rewards_verl.loaded import require_loaded
    from tars_rewards_verl.version import require_verl

    require_loaded()
    importlib.import_module(f"{verl.__name__}.trainer.ppo.v1")  # what the plugin changes
    require_verl()


def _openrlhf() -> None:
    importlib.import_module("openrlhf")
    from tars_rewards_openrlhf.stock import require_openrlhf

    require_openrlhf()


def _vllm() -> None:
    registered = entry_point("vllm")
    if registered is not None:
        registered.load()()  # as vLLM does in each of its processes
    importlib.import_module("vllm")


_TRIALS: dict[str, Callable[[], None]] = {"verl": _verl, "openrlhf": _openrlhf, "vllm": _vllm}


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, TARSError) else f"{type(error).__name__}: {error}"


def _answers(name: str, *arguments: str) -> Iterator[Answer]:
    if name == "imports":
        yield from _imports(arguments)
        return
    try:
        _TRIALS[name]()
    except Exception as error:
        yield Answer(name, _sentence(error))
    else:
        yield Answer(name, None)


if __name__ == "__main__":
    # Libraries print to standard output; only the answers go to the one that this process was given.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        for answer in _answers(*sys.argv[1:]):
            print(json.dumps(answer), file=out, flush=True)
