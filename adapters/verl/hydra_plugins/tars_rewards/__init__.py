"""Hydra plugin of tars-rewards (found by Hydra through the namespace package ``hydra_plugins``)."""
