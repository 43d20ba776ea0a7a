"""The program `tars-rewards` in a process of its own, and files for it."""

import json
import os
import subprocess
import sys

RIGHT = "<think>2+2</think><answer>The answer is 4.</answer>"


def question(number, **changes):
    completions = {"speech": [RIGHT, "four"], "text": [RIGHT]}
    return {"id": f"q{number}", "prompt": "2+2?", "answer": "4", "completions": completions, **changes}


def write(path, rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def start(*arguments, environment=(), **options):
    """Start the program, its three streams being pipes unless said otherwise."""
    command = [sys.executable, "-m", "tars_rewards.cli", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    variables = {**os.environ, "COLUMNS": "80", **dict(environment)}
    return subprocess.Popen(command, text=True, env=variables, **{**pipes, **options})
