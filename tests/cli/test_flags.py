"""The commands' flags: all settings are there, with their documentation, in every form that they take."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import tyro

from tars_rewards import TARSConfig
from tars_rewards.cli import DESCRIPTION, parse
from tars_rewards.cli.commands import COMMANDS
from tars_rewards.cli.flags import registry
from tars_rewards.errors import ConfigError
from tars_rewards.scoring.sampling import Sampling

if TYPE_CHECKING:
    from fractions import Fraction as OnlyForTypeCheckers

SCORE = ("score", "in.jsonl", "--out", "out.jsonl")
HEAVY = ("torch", "numpy", "transformers", "pyarrow", "tqdm", "verl", "openrlhf", "vllm", "fastapi")


def flags_of(help_text):
    return {word.strip(",") for word in help_text.split() if word.startswith("--")}


@pytest.mark.parametrize(("command", "settings"), [("score", TARSConfig), ("sample", Sampling)])
def test_every_setting_is_a_flag(call, command, settings):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert {f"--{each.name.replace('_', '-')}" for each in dataclasses.fields(settings)} <= flags_of(out)


def test_a_flag_without_a_value_leaves_the_default():
    assert parse(SCORE).reward == TARSConfig()


def test_help_is_the_fields_documentation_without_its_line_breaks(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    _, out, _ = call("score", "--help")
    assert '"voicebench" (as VoiceBench\'s scorer reads it)' in out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns_and_documents_every_flag(call, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert max(map(len, out.splitlines()[1:])) <= 80  # the first says how it is called
    assert out.splitlines()[2] == (COMMANDS[command].__doc__ if command else DESCRIPTION).splitlines()[0]
    entries = re.split(r"\((?:default: [^)]*|required)\)", " ".join(out.replace("│", " ").split()))[:-1]
    assert len(entries) >= len(flags_of(out)) - 2  # --help and the completion in the description have no default
    assert all(len(entry.split()) >= 5 for entry in entries), entries


@pytest.mark.parametrize(
    ("typed", "layers"),
    [
        (["deep"], "deep"),
        (["0", "5", "-1"], (0, 5, -1)),
        (["-1"], (-1,)),
        (["7"], (7,)),
        (["0.25", "0.75"], (0.25, 0.75)),
    ],
)
def test_layers_in_all_their_forms(typed, layers):
    assert parse([*SCORE, "--layers", *typed]).reward.layers == layers


def test_a_text_that_may_be_none():
    command = parse([*SCORE, "--embedder-device", "cpu", "--embedding-cache", "None", "--strip-tags"])
    assert command.reward == TARSConfig(embedder_device="cpu", strip_tags=True)


def test_standard_input_and_output():
    command = parse(["score", "-", "--out", "-"])
    assert (command.source, command.out) == ("-", "-")


def test_short_names():
    assert parse(["sample", "in.jsonl", "--out", "-", "--model", "M", "-n", "7"]).sampling.n == 7


@dataclass(frozen=True)
class Settings:
    """As settings may be declared: with names that exist for type checkers only, kept in another form than is declared."""

    terms: Mapping[str | OnlyForTypeCheckers, float] | Iterable[tuple[str | OnlyForTypeCheckers, float]] | None = None
    weight: float = 0.5

    def __post_init__(self):
        object.__setattr__(self, "terms", tuple((self.terms or {}).items()))


Settings.__module__ = TARSConfig.__module__  # as one of ours


@dataclass(frozen=True)
class Holder:
    settings: tyro.conf.OmitArgPrefixes[Settings] = field(default_factory=Settings)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("typed", "terms"),
    [
        ([], ()),
        (["--terms", "None"], ()),
        (["--terms", "my_pkg.terms:brevity", "0.2", "a:b", "1"], (("my_pkg.terms:brevity", 0.2), ("a:b", 1.0))),
    ],
)
def test_a_mapping_is_keys_and_values_in_turn(typed, terms):
    settings = tyro.cli(Holder, args=[*typed, "--weight", "0"], registry=registry).settings
    assert (settings.terms, settings.weight) == (terms, 0.0)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([*SCORE, "--alpha", "-1"], "alpha must be a finite number of at least 0, got -1.0"),
        ([*SCORE, "--layers", "deepest"], "layers must be one of all, shallow"),
        (["sample", "q.jsonl", "--out", "-", "--model", "M", "-n", "0"], "n is 0; expected an integer of at least 1"),
    ],
)
def test_a_setting_out_of_range_is_bad_usage_in_one_sentence(call, typed, said):
    code, out, err = call(*typed)
    assert (code, out) == (2, "")
    assert err.startswith(f"tars-rewards: {said}")
    assert err.count("\n") == 1
    with pytest.raises(ConfigError):
        parse(typed)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "Missing subcommand"),
        (["scor"], "scor"),
        (["score", "in.jsonl"], "--out"),
        ([*SCORE, "--alfa", "1"], "--alfa"),
        ([*SCORE, "--alpha", "much"], "--alpha"),
    ],
)
def test_bad_usage(call, typed, said):
    code, out, err = call(*typed)
    assert (code, out) == (2, "")
    assert said in err


def test_parsing_and_help_load_nothing_heavy():
    code = (
        "import sys; from tars_rewards.cli import main, parse; "
        f"parse({[*SCORE]!r})\n"
        "for command in ([], ['models'], ['score']):\n"
        "    try: main([*command, '--help'])\n"
        "    except SystemExit: pass\n"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []
    assert "tyro-write-completion" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_know_commands_and_flags(call, shell):
    code, out, _ = call("--tyro-print-completion", shell)
    assert code is None
    assert all(name in out for name in COMMANDS)
    assert "embedding-cache" in out
