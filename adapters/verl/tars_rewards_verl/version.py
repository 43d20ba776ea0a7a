"""The versions of verl that this adapter was tested with."""

from __future__ import annotations

from tars_rewards.integration import patching

VERL = patching.TestedFramework("verl", versions=("0.9.1",), series="0.9.")


def require_verl() -> None:
    """Raise if verl is not a tested version, or if something in it is not as expected.

    Raises:
        AdapterError: Names the installed version and the tested ones, or the objects that differ.
    """
    patching.require_patches(VERL)
