"""What capture is given: modules by their place in the model, decoders by whose prompt they read, types by a sentence."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import WhisperConfig, WhisperModel

from tars_rewards.capture import capture_hidden_states
from tars_rewards.decoder_layers import decoder_layers
from tars_rewards.errors import CaptureError

MASK, IDS = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 5, dtype=torch.long)


class PreNormBlock(nn.Module):
    """A layer whose class speaks of norms."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LayerNorm(4)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.inner(hidden)


class Wrapper(nn.Module):
    """As a sharding or adapter library puts around a module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.inner(hidden)


class Decoder(nn.Module):
    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(9, 4)
        self.layers = nn.ModuleList([PreNormBlock(), PreNormBlock()])
        self.norm = nn.LayerNorm(4) if norm is None else norm

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embed_tokens(ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.norm(hidden)


def final_norm(model: nn.Module, layers: object = None) -> str:
    with torch.no_grad(), capture_hidden_states(model, MASK, layers=layers) as captured:
        model(IDS)
    return captured.final_norm


def test_layers_with_norm_in_their_name_are_before_the_final_norm() -> None:
    model = Decoder()
    assert final_norm(model) == "before"
    assert final_norm(model, "layers") == "before"
    assert final_norm(model, model.layers) == "before"
    assert final_norm(model, list(model.layers)[:1]) == "before"
    assert final_norm(model, [model.layers[0].inner]) == "before"  # a norm, but inside a layer


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(4), Wrapper(nn.LayerNorm(4)), torch.compile(nn.LayerNorm(4), backend="eager"), nn.Identity()]
)
def test_what_stands_behind_the_layers_is_the_final_norm_whatever_its_name(norm: nn.Module) -> None:
    model = Decoder(norm)
    assert final_norm(model, [model.layers[0], model.norm]) == "after"
    assert final_norm(model, [model.norm]) == "after"
    held = nn.ModuleList([model])  # a list that holds the whole decoder is no list of layers
    with torch.no_grad(), capture_hidden_states(held, MASK, layers=[model.layers[0], model.norm]) as captured:
        model(IDS)
    assert captured.final_norm == "after"


def test_the_final_norm_of_a_decoder_that_is_not_known() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.steps = nn.Identity(), nn.Identity(), nn.ModuleList([PreNormBlock()])
            self.last = nn.LayerNorm(4)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            hidden = self.second(self.first(ids[..., None].float().expand(-1, -1, 4)))
            return self.last(self.steps[0](hidden))

    model = Stack()
    assert final_norm(model, "steps") == "before"
    assert final_norm(model, [model.steps[0], model.last]) == "after"
    assert final_norm(model, [model.first, model.second]) == "before"  # layers that stand in no list


class Unknown(nn.Module):
    """A text decoder of an unknown kind beside a speech recogniser, which has a decoder of the known kind."""

    def __init__(self, asks: str = "words") -> None:
        super().__init__()
        special = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0, decoder_start_token_id=1, vocab_size=64)
        encoder = dict(encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, num_mel_bins=8)
        decoder = dict(decoder_layers=3, decoder_attention_heads=2, decoder_ffn_dim=32)
        self.tower = WhisperModel(WhisperConfig(d_model=16, **encoder, **decoder, **special))
        self.words, self.steps, self.asks = nn.Embedding(9, 4), nn.ModuleList([nn.Linear(4, 4)]), asks

    def get_input_embeddings(self) -> object:
        if self.asks == "nobody":
            raise NotImplementedError
        return self.words if self.asks == "words" else None


def test_the_only_decoder_found_must_be_the_one_that_reads_the_prompt() -> None:
    model = Unknown()
    with pytest.raises(CaptureError, match=r"found 'tower.decoder', which the model's prompt does not go into") as it:
        decoder_layers(model)
    assert "'steps' (1 x Linear)" in str(it.value)
    assert decoder_layers(model, layers="steps") == list(model.steps)
    with pytest.raises(CaptureError, match="does not go into"):
        decoder_layers(Wrapper(model))


@pytest.mark.parametrize("asks", ["nobody", "none"])
def test_a_model_that_does_not_say_what_reads_the_prompt(asks: str) -> None:
    assert len(decoder_layers(Unknown(asks))) == 3


def test_a_tower_beside_the_decoder_is_not_asked() -> None:
    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv1d(1, 1, 1)

        def get_input_embeddings(self) -> nn.Module:
            return self.conv1

    text = Decoder()
    assert decoder_layers(nn.ModuleDict({"tower": Tower(), "text": text})) == list(text.layers)


def test_embeddings_that_share_their_table_are_the_same() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.decoder = nn.Embedding(9, 4), Decoder()
            self.decoder.embed_tokens.weight = self.shared.weight

        def get_input_embeddings(self) -> nn.Module:
            return self.shared

    model = Shared()
    assert decoder_layers(model) == list(model.decoder.layers)


PACKED = MASK.reshape(1, 10)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((Decoder(), MASK.tolist()), "completion_mask to be a tensor, got a list. Pass torch.as_tensor"),
        ((Decoder(), MASK.numpy()), "completion_mask to be a tensor, got a ndarray"),
        ((Decoder(), None), "completion_mask to be a tensor, got a NoneType"),
        ((Decoder(), PACKED, [0, 5, 10]), "cu_seqlens= to be a tensor, got a list"),
        ((Decoder(), PACKED, np.array([0, 5, 10])), "cu_seqlens= to be a tensor, got a ndarray"),
        ((Decoder(), PACKED, torch.tensor([False, True])), "one row of integers"),
        ((Decoder(), PACKED, torch.tensor([0, 10], dtype=torch.complex64)), "one row of integers"),
        ((Decoder(), MASK, None, 3), "layers= to be None, a name or several modules, got a int"),
        ((Decoder(), MASK, None, nn.Linear(2, 2)), "several modules, got a Linear"),
        ((Decoder(), MASK, None, [0, 1]), r"those at \[0, 1\] are not inside it"),
        ((Decoder(), MASK, None, [[nn.Identity()]]), r"those at \[0\] are not inside it"),
        ((lambda ids: ids, MASK), "the model to be a torch.nn.Module, got a function"),
    ],
)
def test_arguments_of_another_type(arguments: tuple, match: str) -> None:
    model, mask, bounds, layers = (*arguments, None, None)[:4]
    with pytest.raises(CaptureError, match=match), capture_hidden_states(model, mask, cu_seqlens=bounds, layers=layers):
        pass
