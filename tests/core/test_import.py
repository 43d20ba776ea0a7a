"""What importing the package loads, and what it exports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tars_rewards

HEAVY = ["torch", "numpy", "transformers", "sentence_transformers", "verl", "openrlhf", "vllm", "ray", "xxhash"]
PROBE = "import sys, {modules}; print(*sorted(set({heavy}) & set(sys.modules)))"


def loaded_by(modules: str, environment: dict[str, str] | None = None) -> list[str]:
    code = PROBE.format(modules=modules, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split()


def test_import_is_light() -> None:
    assert loaded_by("tars_rewards") == []


def test_what_users_import_first_is_light_too() -> None:
    modules = "tars_rewards.protocol, tars_rewards.config, tars_rewards.errors, tars_rewards.reward"
    assert loaded_by(modules) == []


def test_the_purity_test_can_fail(tmp_path: Path) -> None:
    """The same probe on a package that imports torch."""
    package = tmp_path / "impure"
    package.mkdir()
    (package / "__init__.py").write_text("import torch\n")
    assert "torch" in loaded_by("impure", {"PYTHONPATH": str(tmp_path), "PATH": ""})


@pytest.mark.parametrize("name", tars_rewards.__all__)
def test_exports(name: str) -> None:
    assert getattr(tars_rewards, name) is not None
    assert name in dir(tars_rewards)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        tars_rewards.nonsense  # noqa: B018


def test_every_export_has_a_home() -> None:
    assert set(tars_rewards._HOME) == set(tars_rewards.__all__) - {"__version__"}


def core_modules() -> list[Path]:
    outside = {"capture", "decoder_layers", "verl", "openrlhf", "_version"}
    return [path for path in Path(tars_rewards.__file__).parent.glob("*.py") if path.stem not in outside]


@pytest.mark.parametrize("path", core_modules(), ids=lambda path: path.stem)
def test_the_core_does_not_know_the_word_audio(path: Path) -> None:
    assert not re.search(r"audio|\bwav", path.read_text(encoding="utf-8"), re.IGNORECASE)


@pytest.mark.parametrize("path", core_modules(), ids=lambda path: path.stem)
def test_modules_fit_in_the_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
