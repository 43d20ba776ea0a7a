"""TARS rewards for Speech LLMs."""

from tars_rewards._version import __version__

__all__ = ["__version__"]
