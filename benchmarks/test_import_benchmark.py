"""How long the package takes to be imported, and the program to say what it can do.

Fresh processes in turn, in processor time: a busy machine makes a process wait, but hardly work more. The first turn, which may
read files from a disk and compile them, is not counted. Seconds by the clock are recorded beside it.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from results import GOALS, record

ROUNDS = 15
PYTHON = [sys.executable, "-c"]
ROOT = str(Path(__file__).parents[1])
PROCESSES = {
    "interpreter": [*PYTHON, "pass"],
    "package": [*PYTHON, "import tars_rewards"],
    "reward": [*PYTHON, "from tars_rewards import TARSConfig, TARSReward"],
    "help": [sys.executable, "-m", "tars_rewards.cli", "--help"],
}


def seconds_of(command):
    """Of processor, and by the clock."""
    used, begun = processor_of_children(), time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, cwd=os.path.sep, env={**os.environ, "PYTHONPATH": ROOT}
    )
    return processor_of_children() - used, time.perf_counter() - begun


def processor_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_start_up_time():
    turns = [{name: seconds_of(command) for name, command in PROCESSES.items()} for _ in range(ROUNDS + 1)][1:]

    def more_than_an_interpreter(name, clock=0):
        return 1e3 * statistics.median(turn[name][clock] - turn["interpreter"][clock] for turn in turns)

    shown = {
        "milliseconds of a bare interpreter": round(
            1e3 * statistics.median(turn["interpreter"][0] for turn in turns), 1
        ),
        "milliseconds by the clock": round(more_than_an_interpreter("package", 1), 1),
        "milliseconds of TARSConfig and TARSReward": round(more_than_an_interpreter("reward"), 1),
    }
    help_by_the_clock = round(statistics.median(turn["help"][1] for turn in turns), 3)
    package, help_ = more_than_an_interpreter("package"), statistics.median(turn["help"][0] for turn in turns)
    print(f"\nimport: {package:.1f} ms, {shown}; --help: {help_:.3f} s, {help_by_the_clock} s by the clock")
    met = {
        "import/package": record("import/package", package, rounds=ROUNDS, details=shown),
        "import/help": record("import/help", help_, rounds=ROUNDS, details={"seconds by the clock": help_by_the_clock}),
    }
    assert all(met.values()), {name: str(GOALS[name]) for name, good in met.items() if not good}
