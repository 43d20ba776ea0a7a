"""How an adapter changes objects of its framework and of vLLM: after their import, checked first, never in silence.

A patch is a function of the freshly imported module, registered with :func:`after_import`. It checks the object it is
about to replace with :func:`check_signature`, and replaces it by :func:`replace`. Nothing here imports a framework, so
registering patches is cheap enough for every process.

The package may be installed beside a framework that nobody uses with TARS. A patch that does not fit is therefore left out
with a line on stderr, and :func:`require_patches` turns it into an error where TARS or a speech model is used.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, NamedTuple

from tars_rewards.errors import AdapterError

Patch = Callable[[ModuleType], None]

_problems: list[str] = []


def after_import(module_name: str, patch: Patch) -> None:
    """Call ``patch(module)`` once ``module_name`` has been imported: now if it is already, else right after its import.

    Patches of one module run in the order in which they were registered, before the importing code sees the module. An
    :class:`AdapterError` from a patch is kept for :func:`require_patches`.
    """
    module = sys.modules.get(module_name)
    if module is not None:
        _run(patch, module)
        return
    _finder.patches.setdefault(module_name, []).append(patch)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


class TestedFramework(NamedTuple):
    """A framework whose objects an adapter changes, and the versions that this was tested with."""

    name: str  #: of its distribution
    versions: tuple[str, ...]  #: tested ones, the best last
    series: str  #: prefix of the versions that are taken


def require_patches(framework: TestedFramework) -> None:
    """Raise if a framework's version is not a tested one, or if a patch did not fit what it found.

    Raises:
        AdapterError: Names the installed version and the tested ones, or the objects that differ.
    """
    installed, tested = installed_version(framework.name), ", ".join(framework.versions)
    advice = f"install '{framework.name}=={framework.versions[-1]}'"
    if not installed.startswith(framework.series):
        raise AdapterError(
            f"tars-rewards was tested with {framework.name} {tested}, found {installed}; {advice}, or a release of "
            f"tars-rewards that knows {framework.name} {installed}"
        )
    if _problems:
        raise AdapterError(
            f"{framework.name} {installed} differs from the tested {tested}: {'; '.join(_problems)}; {advice}"
        )


def installed_version(distribution: str) -> str:
    """Version of an installed distribution, or ``"none"``."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"


def require_attribute(owner: Any, name: str, label: str) -> Any:
    """``owner.name``, for a patch that is about to replace or use it.

    Args:
        owner: Module or class.
        name: Attribute.
        label: How a message names the owner.

    Raises:
        AdapterError: There is no such attribute.
    """
    try:
        return getattr(owner, name)
    except AttributeError:
        raise AdapterError(f"expected {label} to have {name}, it has not") from None


def check_signature(function: Callable[..., Any], parameters: Sequence[str], label: str) -> None:
    """Check that a function about to be replaced takes the parameters that its replacement was written for.

    Args:
        function: What is to be replaced.
        parameters: Expected parameter names in order, ``self`` included, ``*args`` and ``**kwargs`` without the stars.
        label: How a message names the function.

    Raises:
        AdapterError: The parameters differ.
    """
    found = list(inspect.signature(function).parameters)
    if found != list(parameters):
        raise AdapterError(f"expected {label} to take ({', '.join(parameters)}), it takes ({', '.join(found)})")


def replace(module: Any, name: str, value: Any, parameters: str | None = None) -> None:
    """Put a class or function in the place of a stock one.

    Args:
        module: Where the stock program looks it up: a module or a class.
        name: Its name there.
        value: What takes its place.
        parameters: Of a function: the parameters that ``value`` was written for, separated by spaces.

    Raises:
        AdapterError: There is no such thing to replace, or it takes other parameters.
    """
    stock = require_attribute(module, name, module.__name__)
    if parameters is not None and stock is not value:
        check_signature(stock, parameters.split(), f"{module.__name__}.{name}")
    setattr(module, name, value)


class _PatchingFinder(importlib.abc.MetaPathFinder):
    """Lets the other finders find a patched module and runs its patches at the end of its execution."""

    def __init__(self) -> None:
        self.patches: dict[str, list[Patch]] = {}
        self._searching: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.patches or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching.discard(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module
        if getattr(execute, "runs_patches", False):
            return spec  # reloaded

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for patch in self.patches.get(fullname, []):
                _run(patch, module)

        exec_module.runs_patches = True  # type: ignore[attr-defined]  # a mark; types of functions have no attributes
        # On the instance, so that the loader keeps its class and everything that inspects it still works.
        spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # of this one loader
        return spec


_finder = _PatchingFinder()


def _run(patch: Patch, module: ModuleType) -> None:
    try:
        patch(module)
    except AdapterError as error:
        _problems.append(str(error))
        print(f"tars-rewards: patch of {module.__name__} left out: {error}", file=sys.stderr, flush=True)
