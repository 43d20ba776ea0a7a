"""The page on scoring: its code runs, and prints what it says."""

import contextlib
import io
import re
from pathlib import Path

from tars_rewards import TARSConfig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scoring.md").read_text()


def test_the_code_prints_what_it_says(tiny, clips):
    namespace = {"model": tiny / "qwen2_5_omni", "clip": clips[0], "config": TARSConfig(beta=0)}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, "scoring.md", "exec"), namespace)
        said = re.findall(r"^# (.*)|print\(.*\)  # (.*)", block, re.MULTILINE)
        assert printed.getvalue().splitlines() == [alone or behind for alone, behind in said]
    assert namespace["pair"]["chosen"] == namespace["best"]["completion"]
