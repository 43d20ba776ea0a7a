"""The example in `docs/serving.md` runs, and its tables name what there is."""

import re
from pathlib import Path

import soundfile
from served import Served

from tars_rewards.server import app

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


def test_the_example_runs(scorer, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    soundfile.write(tmp_path / "q1.wav", [0.0] * 800, 16000)
    monkeypatch.chdir(tmp_path)
    scorer.go.set()
    with Served(scorer) as server:
        exec(code, {"url": f"http://127.0.0.1:{server.port}"})
    assert capsys.readouterr().out == "speech 0 1.5\nspeech 1 0.0\ntext 0 1.5\n"


def test_the_routes_are_those_of_the_server():
    named = set(re.findall(r"\| `(?:GET|POST) (\S+)` \|", PAGE))
    assert named == set(app._ROUTES)
