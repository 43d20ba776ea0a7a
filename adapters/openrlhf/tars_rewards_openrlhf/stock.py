"""The versions of OpenRLHF that this adapter was tested with, and the plain classes behind its Ray actors."""

from __future__ import annotations

from typing import Any

from tars_rewards.errors import AdapterError
from tars_rewards.integration import patching

OPENRLHF = patching.TestedFramework("openrlhf", versions=("0.11.2",), series="0.11.2")


def require_openrlhf() -> None:
    """Raise if OpenRLHF is not a tested version.

    Raises:
        AdapterError: Names the installed version and the tested ones.
    """
    patching.require_patches(OPENRLHF)


def plain_class(module: Any, name: str) -> Any:
    """The Python class behind an actor class of a module, which Ray does not let anybody derive from.

    Raises:
        AdapterError: The module has no such class, or Ray keeps it elsewhere.
    """
    actor = patching.require_attribute(module, name, module.__name__)
    try:
        return actor.__ray_metadata__.modified_class.__ray_actor_class__
    except AttributeError as error:
        raise AdapterError(
            f"expected {module.__name__}.{name} to be a Ray actor class of ray 2.55; it is a {type(actor).__name__} "
            f"without {error.name}"
        ) from error
