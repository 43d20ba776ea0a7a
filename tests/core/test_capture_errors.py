"""What capture refuses, with a sentence that says what to do, and that its hooks never stay behind."""

import pickle

import pytest
import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from tars_rewards.capture import capture_hidden_states
from tars_rewards.errors import CaptureError

ONES = torch.ones(2, 3, dtype=torch.bool)


class Decoder(nn.Module):
    """Two layers; `run` says which layers a forward calls."""

    def __init__(self, run=(0, 1), layer=nn.Identity) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(2, 4)
        self.layers = nn.ModuleList([layer(), layer()])
        self.run = run

    def forward(self, hidden):
        for index in self.run:
            hidden = self.layers[index](hidden)
        return hidden


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def refuses(model, mask, inputs, match, **kwargs):
    with pytest.raises(CaptureError, match=match) as caught, capture_hidden_states(model, mask, **kwargs):
        model(inputs)
    assert hooks(model) == 0
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("mask", "cu_seqlens", "match"),
    [
        (ONES.long(), None, r"to be boolean, got torch.int64. Pass mask.bool\(\)"),
        (ONES[0], None, r"\[batch, tokens\], got \[3\]. If it is packed"),
        (ONES, [0, 3, 6], r"packed completion_mask of shape \[1, total\] or \[total\] .* got \[2, 3\]"),
        (ONES.reshape(1, 6), [3, 6], "starts at 0 and never falls"),
        (ONES.reshape(1, 6), [0, 4, 3], "starts at 0 and never falls"),
        (ONES.reshape(1, 6), [0.0, 6.0], "row of integers"),
        (ONES.reshape(1, 6), [[0, 6]], "one row of integers"),
        (ONES.reshape(1, 6), [], "starts at 0"),
        (ONES.reshape(1, 6), [0, 3, 7], "end within the 6 tokens of completion_mask, got 7"),
        (ONES.reshape(1, 6), [0, 3, 5], "False behind the last packed row, which ends at 5; it is True at 1 tokens"),
    ],
)
def test_masks_that_contradict_themselves(mask, cu_seqlens, match):
    bounds = None if cu_seqlens is None else torch.tensor(cu_seqlens)
    refuses(Decoder(), mask, torch.ones(2, 3, 4), match, cu_seqlens=bounds)


@pytest.mark.parametrize("states", [torch.ones(2, 5, 4), torch.ones(3, 2, 4), torch.ones(1, 6, 4), torch.ones(2, 3)])
def test_a_mask_of_another_shape_than_the_layers_outputs(states):
    """A sequence that grew inside the model (audio placeholders), a transposed one, a packed one, a flat one."""
    message = refuses(Decoder(), ONES, states, r"layer 0 \(Identity\) to be \[2, 3\] tokens")
    assert f"got {list(states.shape)}. Give the mask" in message


def test_a_packed_mask_on_a_padded_forward():
    bounds = torch.tensor([0, 3, 6])
    refuses(Decoder(), ONES.reshape(1, 6), torch.ones(2, 3, 4), r"\[1, 6\] tokens", cu_seqlens=bounds)


def test_an_output_that_is_no_tensor():
    class Strange(nn.Module):
        def forward(self, hidden):
            return {"states": hidden}

    refuses(Decoder(layer=Strange), ONES, torch.ones(2, 3, 4), "got a dict")


def test_a_layer_called_twice():
    match = "one call of each layer .* second one of layer 1"
    message = refuses(Decoder(run=[0, 1, 1]), ONES, torch.ones(2, 3, 4), match)
    assert "Open one context for each forward" in message


def test_a_layer_never_called():
    refuses(Decoder(run=[0]), ONES, torch.ones(2, 3, 4), r"each of the 2 layers to run once .* layers \[1\] did not")


def test_no_forward_at_all():
    with pytest.raises(CaptureError, match=r"layers \[0, 1\] did not"), capture_hidden_states(Decoder(), ONES):
        pass


def test_two_forwards_in_one_context_and_generation():
    config = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, vocab_size=9)
    special = dict(num_key_value_heads=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model = Qwen2ForCausalLM(Qwen2Config(**config, **special))
    ids = torch.ones(2, 3, dtype=torch.long)
    with capture_hidden_states(model, ONES):
        model(ids)
        with pytest.raises(CaptureError, match="second one of layer 0"):
            model(ids)
    with pytest.raises(CaptureError, match="none around generate"), capture_hidden_states(model, ONES):
        model.generate(ids, max_new_tokens=2, min_new_tokens=2)
    assert hooks(model) == 0


def test_states_cannot_be_read_before_the_context_has_ended():
    model = Decoder()
    with capture_hidden_states(model, ONES) as captured:
        model(torch.ones(2, 3, 4))
        with pytest.raises(CaptureError, match="Read them behind the with block"):
            _ = captured.pooled
    assert captured.valid.all()


def test_an_exception_of_the_forward_comes_through_and_leaves_no_hook():
    class Fails(nn.Module):
        def forward(self, hidden):
            raise ZeroDivisionError("of the model itself")

    model = Decoder(layer=Fails)
    states = []

    def run():
        with capture_hidden_states(model, ONES) as captured:
            states.append(captured)
            assert hooks(model) == 2
            model(torch.ones(2, 3, 4))

    with pytest.raises(ZeroDivisionError, match="of the model itself"):
        run()
    assert hooks(model) == 0
    with pytest.raises(CaptureError, match="an exception ended it"):
        _ = states[0].valid


def test_hooks_are_gone_after_success_and_others_hooks_stay():
    model, seen = Decoder(), []
    model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    with capture_hidden_states(model, ONES), capture_hidden_states(model, ONES):  # captures do not mind each other
        model(torch.ones(2, 3, 4))
    assert seen == [1]
    assert hooks(model) == 1
