"""Reward terms of a user's own, found by import path."""

import torch

from tars_rewards import TermValue


def brevity(batch, reference):
    """1 / (1 + words), of every completion, anchors included."""
    values = [1.0 / (1 + len(rollout.completion.split())) for rollout in batch.rollouts]
    return TermValue(torch.tensor(values), torch.tensor([bool(r.completion) for r in batch.rollouts]))


class Overlap:
    """Share of the reference's words that the completion has too; only where there is a reference."""

    made = 0

    def __init__(self):
        type(self).made += 1

    def __call__(self, batch, reference):
        term = TermValue.nowhere(len(batch))
        for index in torch.nonzero(reference >= 0).flatten().tolist():
            theirs = set(batch.rollouts[reference[index]].completion.split())
            term.values[index] = len(theirs & set(batch.rollouts[index].completion.split())) / len(theirs)
            term.valid[index] = True
        return term


class Plain:
    """Its instances cannot be called."""


number = 3
