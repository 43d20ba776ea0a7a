"""States of one completion after several prompts, compared token by token inside the forward pass.

The rows of a completion (after the written prompt, the spoken one, another question's spoken one) go through the model in
one batch. As soon as a layer has run, its tokens are compared and averaged, so that nothing of size [tokens, hidden]
outlives the layer: what stays of a completion is [layers, hidden] a prompt and [tokens, layers] a comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from tars_rewards.capture import capture_hidden_states
from tars_rewards.drift.measures import centre
from tars_rewards.similarity import cosine

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from tars_rewards.speech.model import Prompt, SpeechModel


class Forcing(NamedTuple):
    """A completion, and the prompts that it is fed after."""

    prompts: tuple[Prompt, ...]  #: the first is the one that the others are compared with
    tokens: tuple[int, ...]  #: of the completion, at least one

    @property
    def length(self) -> int:
        """Tokens of all its rows, padding included."""
        return len(self.prompts) * (max(len(prompt.token_ids) for prompt in self.prompts) + len(self.tokens))


class ForcedStates(NamedTuple):
    """What a forward pass tells of a completion; float32 on the CPU."""

    pooled: Float[Tensor, "prompts layers hidden"]  #: averaged over the completion's tokens
    cosine: Float[Tensor, "others tokens layers"]
    """Of each token's state after the first prompt and after each of the others; NaN where a state is zero."""


@torch.inference_mode()
def force(
    model: SpeechModel, forcings: Sequence[Forcing], means: Float[Tensor, "prompts layers hidden"] | None = None
) -> list[ForcedStates]:
    """Run one forward pass over completions after each of their prompts.

    Args:
        model: The model.
        forcings: Completions, each with as many prompts.
        means: Subtracted from every token's state before the comparison, by the prompt's place; None: nothing is.

    Returns:
        In the order of the forcings. States are those that leave a layer: the last layer's are from before the final norm.
    """
    rows = [(prompt, forcing.tokens) for forcing in forcings for prompt in forcing.prompts]
    batch = model.batch([prompt for prompt, _ in rows], [tokens for _, tokens in rows], padding="right")
    mask = torch.zeros(batch["input_ids"].shape, dtype=torch.bool)
    places = []
    for row, (prompt, tokens) in enumerate(rows):
        places.append(slice(len(prompt.token_ids), len(prompt.token_ids) + len(tokens)))
        mask[row, places[-1]] = True
    comparison = _Comparison(forcings, places, means)
    handles = [layer.register_forward_hook(comparison.hook(number)) for number, layer in enumerate(model.layers)]
    handles.append(model.model.get_output_embeddings().register_forward_pre_hook(_one_logit))
    try:
        with capture_hidden_states(model.model, mask.to(model.device), layers=model.layers) as captured:
            model.model(**batch, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    pooled = torch.split(captured.pooled.cpu(), [len(forcing.prompts) for forcing in forcings])
    return [ForcedStates(*each) for each in zip(pooled, comparison.results(), strict=True)]


def _one_logit(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0][:, :1], *inputs[1:])  # nobody asks for logits here


class _Comparison:
    def __init__(self, forcings: Sequence[Forcing], places: Sequence[slice], means: Tensor | None) -> None:
        self._forcings = forcings
        self._places = places
        self._means = means
        self._layers: dict[int, list[Tensor]] = {}

    def hook(self, layer: int) -> Any:
        """Forward hook of a layer."""

        def compare(_: nn.Module, inputs: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple | list) else output
            self._layers[layer] = self._compare(layer, hidden)

        return compare

    def _compare(self, layer: int, hidden: Tensor) -> list[Tensor]:
        found, row = [], 0
        for forcing in self._forcings:
            states = [
                self._shifted(hidden[row + place, self._places[row + place]], place, layer)
                for place in range(len(forcing.prompts))
            ]
            row += len(states)
            first = states[0].expand(len(states) - 1, *states[0].shape)
            values, exists = cosine(first, torch.stack(states[1:]))
            found.append(values.masked_fill(~exists, torch.nan))
        return found

    def _shifted(self, states: Tensor, place: int, layer: int) -> Tensor:
        if self._means is None:
            return states.float()
        return centre(states, self._means[place, layer].to(states.device))

    def results(self) -> list[Float[Tensor, "others tokens layers"]]:
        """Cosines of each completion, once the forward has ended."""
        by_forcing = zip(*(found for _, found in sorted(self._layers.items())), strict=True)
        return [torch.stack([layer.cpu() for layer in layers], dim=-1) for layers in by_forcing]
