"""The wheel, built and installed into an environment of its own, holds the package and nothing else."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command, **environment):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=300, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, ROOT)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    environment = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    return python


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"tars_rewards", "tars_rewards_verl", "tars_rewards_openrlhf", "hydra_plugins"}
    assert "tars_rewards/py.typed" in names
    page = {
        f"tars_rewards/report/{name}" for name in ("style.css", "templates/report.html.j2", "templates/parts.html.j2")
    }
    assert page <= set(names)
    assert "hydra_plugins/tars_rewards/plugin.py" in names
    assert "hydra_plugins/__init__.py" not in names  # a namespace package, shared with other plugins


@pytest.mark.slow
def test_imports_without_any_dependency_and_declares_its_entry_points(python):
    print(run(python, "-c", "import tars_rewards; print(tars_rewards.__version__)"))
    out = run(
        python, "-c", "from importlib.metadata import entry_points as e\n"
        "print([p.value for g in ('verl.plugins', 'vllm.general_plugins') for p in e(group=g)])",
    )  # fmt: skip
    assert "tars_rewards_verl.plugin" in out
    assert "tars_rewards.integration.vllm_plugin:register" in out


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["verl", "openrlhf"])
def test_the_doors_say_what_is_missing(python, framework):
    door = f"import tars_rewards.{framework}"
    done = subprocess.run([python, "-c", door], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"pip install 'tars-rewards[{framework}]'" in done.stderr


@pytest.mark.slow
def test_scores_with_the_dependencies_in_reach(python, tmp_path):
    program = (
        "import tars_rewards, tars_rewards.verl\n"
        "from tars_rewards import Rollout, TARSConfig, TARSReward\n"
        f"assert {str(python.parent.parent)!r} in tars_rewards.__file__, tars_rewards.__file__\n"
        "r = TARSReward(TARSConfig(alpha=0, beta=0))\n"
        "c = '<think>x</think><answer>The answer is B.</answer>'\n"
        "print(r([Rollout('q', 'text', completion=c, answer='B')]).total.tolist())"
    )
    # Not run from the checkout, whose own copy would be imported.
    site = sysconfig.get_paths()["purelib"]
    done = subprocess.run(
        [python, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": site},
        check=False,
    )  # fmt: skip
    assert done.stdout.strip().endswith("[1.5]"), done.stderr[-1500:]
