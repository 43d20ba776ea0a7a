"""Published figures, for the eye: they are of other models and other questions than those measured here."""

from __future__ import annotations

SOURCE = "published, arXiv 2601.05543"

FORCED_COSINE = {
    "mmsu": {"base": 0.9521, "+ rep": 0.9612, "+ rep + beh": 0.9722},
    "obqa": {"base": 0.9526, "+ rep": 0.9608, "+ rep + beh": 0.9730},
}
"""By VoiceBench's set: cosine of spoken and written states of the same completion, mean over 32 layers,
before training and after training with the representation term, and with both terms."""
