"""`tars-rewards doctor`: whether what is installed fits together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tars_rewards.cli import probes
from tars_rewards.cli.installation import (
    EXTRAS,
    FAILURES,
    PROJECT,
    TESTED,
    Finding,
    installed_version,
    module_of,
    survey,
)

if TYPE_CHECKING:
    from tars_rewards.cli.commands import Doctor

_COLORS = {"ok": "green", "absent": "dim", "missing": "red", "outside": "red", "broken": "red"}
_NOT_MODULES = ("python", *TESTED)  # not tried by importing them
_EXPLAINED = ("outside", "broken")  # below the table, where there is room


def doctor(command: Doctor) -> int:
    """Look at everything, print it, and return 1 if something that is installed does not fit or does not work.

    Raises:
        ConfigError: This package itself was not installed.
    """
    with Console(stderr=True).status("importing what is installed, up to a minute"):
        findings = examine()
    ok = not any(each.state in FAILURES for each in findings)
    if command.format == "json":
        print(json.dumps({"ok": ok, "findings": [dataclasses.asdict(each) for each in findings]}, indent=2))
    else:
        _show(findings, ok)
    return 0 if ok else 1


def examine() -> list[Finding]:
    """Versions, then imports of what is there and fits, then plugins."""
    findings = survey()
    modules = {each.name: module_of(each.name) for each in findings if each.installed and each.name not in _NOT_MODULES}
    frameworks = [name for name in (*TESTED, "vllm") if installed_version(name)]
    with ThreadPoolExecutor(2) as pool:  # each waits for a process
        trials = {name: pool.submit(probes.plugin, name) for name in frameworks}
        imports = {answer.what: answer for answer in probes.imported(sorted(set(modules.values())))}
        plugins = {name: trial.result() for name, trial in trials.items()}
    answers = {name: imports[module] for name, module in modules.items()} | plugins
    checked = [_with_answer(each, answers.get(each.name)) for each in findings]
    return checked + [_plugin(name, plugins.get(name)) for name in probes.PLUGINS]


def _with_answer(finding: Finding, answer: probes.Answer | None) -> Finding:
    if answer is None or finding.state != "ok":
        return finding
    if answer.error:
        return dataclasses.replace(finding, state="broken", note=answer.error)
    return dataclasses.replace(finding, note=answer.note or finding.note)


def _plugin(framework: str, answer: probes.Answer | None) -> Finding:
    group, name = probes.PLUGINS[framework]
    registered = probes.entry_point(framework)
    if registered is None:
        note = f"not registered as {name}; reinstall {PROJECT}"
        return Finding("plugins", group, None, "", "absent" if answer is None else "missing", note)
    if answer is None:
        return Finding("plugins", group, registered.value, "", "absent", f"{framework} is not installed")
    if answer.error:
        return Finding("plugins", group, registered.value, "", "broken", answer.error)
    return Finding("plugins", group, registered.value, "", "ok", f"{framework} {installed_version(framework)} loads it")


def _show(findings: Sequence[Finding], ok: bool) -> None:
    console = Console(highlight=False, markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column, wraps in (("", False), ("installed", False), ("wanted", False), ("", False), ("", True)):
        table.add_column(column, no_wrap=not wraps, overflow="fold")
    for group in dict.fromkeys(each.group for each in findings):
        table.add_row(Text(group, "bold"))
        for each in (each for each in findings if each.group == group):
            installed = "" if each.installed is None else "registered" if group == "plugins" else each.installed
            note = "" if each.state in _EXPLAINED else each.note
            table.add_row(f"  {each.name}", installed, each.wanted, Text(each.state, _COLORS[each.state]), note)
    console.print(table)
    for extra, purpose in EXTRAS.items():
        absent = [each.name for each in findings if each.group == extra and each.state in ("absent", "missing")]
        if absent:
            command = f"pip install '{PROJECT}[{extra}]'"
            console.print(f"missing for {purpose}: {', '.join(absent)}; {command}", soft_wrap=True)
    for each in (each for each in findings if each.state in _EXPLAINED):
        reason = each.note if each.state == "broken" else f"found {each.installed}, wanted {each.wanted}; {each.note}"
        console.print(Text(f"{each.state}: {each.name}: {reason}", "red"), soft_wrap=True)
    console.print("what is installed fits together" if ok else "what is installed does not fit together")
