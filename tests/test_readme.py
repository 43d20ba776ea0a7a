"""What the README says can be done: its snippet runs, its targets, links, settings and limits exist."""

import contextlib
import dataclasses
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(ROOT.glob("examples/*/README.md")),
    *sorted(ROOT.glob("benchmarks/**/*.md")),
    *sorted(ROOT.glob("docs/*.md")),
]


def test_the_python_snippets_print_what_they_say():
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert snippets
    for snippet in snippets:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(snippet, "README.md", "exec"), {})
        assert printed.getvalue().split() == " ".join(re.findall(r"print\(.*?\)\s+# (.*)", snippet)).split()


def test_the_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", document.read_text(), re.MULTILINE)
    }
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    prose = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)", prose):
        assert link.startswith("https://") or (document.parent / link).exists(), link


def test_every_setting_named_exists():
    from tars_rewards.config import TARSConfig
    from tars_rewards_verl.options import VerlOptions

    known = {field.name for owner in (TARSConfig, VerlOptions) for field in dataclasses.fields(owner)}
    table = re.search(r"\| `reward\.custom_kwargs\.`.*?\n\n", README, re.DOTALL)
    rows = table[0].strip().splitlines()[2:]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    named |= set(re.findall(r"reward\.custom_kwargs\.([a-z_]+)", README))
    assert {"alpha", "beta", "embedder"} <= named <= known


def test_ci_calls_the_readmes_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_was_left_to_be_filled_in(document):
    assert not re.search(r"\b[A-Z]+_(FIGURES|TABLE)\b|\bTODO\b|\bTBD\b", document.read_text())


def test_the_flags_named_exist():
    from tars_rewards.config import TARSConfig
    from tars_rewards.integration.options import AdapterOptions

    text = "".join(document.read_text() for document in DOCUMENTS)
    known = {field.name for owner in (TARSConfig, AdapterOptions) for field in dataclasses.fields(owner)} | {
        "audio_key"
    }
    named = set(re.findall(r"--tars\.([a-z_]+)", text))
    assert {"alpha", "beta"} <= named <= known
