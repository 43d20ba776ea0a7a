"""Pooled states from verl's own log-prob forward, padded and packed, and what is refused there."""

import types

import pytest
import torch
from tensordict import NonTensorStack, TensorDict
from transformers import AutoModelForCausalLM
from verl.utils import tensordict_utils
from verl.utils.model import get_hf_auto_model_class
from verl.workers.config.model import HFModelConfig
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from tars_rewards.errors import AdapterError
from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO
from tars_rewards.speech.policy import prepare_model
from tars_rewards.transport import PackedStates
from tars_rewards_verl.batch import CAPTURE_FLAG, POOLED, POOLED_SCALES
from tars_rewards_verl.engine import completion_mask, compose_engine

PROMPTS, COMPLETIONS = [3, 6, 2], [4, 2, 5]


def nested(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(20, 200, (p + c,), generator=generator) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]


def micro_batch(rows, *, packed, capture=True, generated=None):
    """As verl's worker hands it to the engine."""
    masks = [torch.ones(count, dtype=torch.long) for count in COMPLETIONS] if generated is None else generated
    fields = {
        "input_ids": nested(rows),
        "position_ids": nested([torch.arange(len(row)) for row in rows]),
        "response_mask": nested(masks),
    }
    batch = TensorDict(fields, batch_size=len(rows))
    settings = {"use_remove_padding": packed, "temperature": 1.0, "calculate_entropy": False}
    tensordict_utils.assign_non_tensor(batch, **settings, **({CAPTURE_FLAG: True} if capture else {}))
    return batch


@pytest.fixture(scope="module")
def model(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny / "text", dtype=torch.float32, attn_implementation="sdpa").eval()


@pytest.fixture
def engine(model, monkeypatch):
    return engine_of(model, monkeypatch)


def engine_of(model, monkeypatch):
    """verl's FSDP engine with our mixin, on an unsharded model: no process group, no accelerator."""
    import verl.workers.engine.fsdp.transformer_impl as stock

    monkeypatch.setattr(stock, "get_device_id", lambda: "cpu")
    monkeypatch.setattr(stock, "get_device_name", lambda: "cpu")
    made = object.__new__(compose_engine(FSDPEngineWithLMHead))
    vars(made).update(
        module=model,
        pad_to_length=False,
        use_ulysses_sp=False,
        _autocast_dtype=torch.float32,
        engine_config=types.SimpleNamespace(entropy_checkpointing=False),
    )
    return made


def plain(model, row, completion, layers=None, **inputs):
    """Pooled states [layers, hidden] of one row by itself, by hooks of the test's own."""
    states = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: states.append(out[0] if isinstance(out, tuple) else out))
        for layer in layers or model.model.layers
    ]
    with torch.no_grad():
        model(input_ids=row[None], **inputs)
    for hook in hooks:
        hook.remove()
    return torch.stack([state[0, -completion:].mean(0) for state in states])


def unpacked(output):
    """States [batch, layers, hidden] as the trainer will have them."""
    values, scales = output[POOLED], output[POOLED_SCALES]
    assert (values.dtype, scales.dtype) == (torch.int16, torch.float32)
    return PackedStates(values.reshape(*scales.shape, -1), scales).unpack()


def check(pooled, expected):
    """Equal but for what packing rounds."""
    assert ((pooled - expected).abs() < expected.abs().amax(-1, keepdim=True) / 32767 / 2 + 1e-5).all()


@pytest.mark.parametrize("packed", [False, True])
def test_the_forward_gives_what_each_row_has_by_itself(engine, model, rows, packed):
    with torch.no_grad():
        _, output = engine.forward_step(micro_batch(rows, packed=packed), None, forward_only=True)
        _, stock = engine.forward_step(micro_batch(rows, packed=packed, capture=False), None, forward_only=True)
    found = output["model_output"]
    for row, completion, pooled in zip(rows, COMPLETIONS, unpacked(found), strict=True):
        check(pooled, plain(model, row, completion))
    assert not {POOLED, POOLED_SCALES} & stock["model_output"].keys()
    assert torch.equal(found["log_probs"].values(), stock["model_output"]["log_probs"].values())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("family", [QWEN2_AUDIO, QWEN2_5_OMNI], ids=lambda family: family.checkpoint_type)
def test_speech_and_text_side_by_side(tiny, clips, monkeypatch, family, packed):
    """Speech models, whose positions have three axes in Omni; every row against a plain forward of it alone."""
    config = HFModelConfig(path=str(tiny / family.checkpoint_type), override_config={"attn_implementation": "sdpa"})
    processor = config.processor
    auto = get_hf_auto_model_class(config.hf_config)
    model, reference = (
        auto.from_pretrained(config.local_path, config=config.hf_config, dtype=torch.float32).eval() for _ in range(2)
    )
    prepare_model(model, family, never_sampled=[], frozen=True)
    text = "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>2<|im_end|>\n"
    heard = [processor(text=[text], audio=[clip], return_tensors="pt")["input_ids"][0] for clip in clips[:2]]
    rows = [torch.cat([heard[0], torch.tensor([40, 41, 42, 43])]), torch.arange(50, 53), heard[1]]
    completions, features = [4, 2, 1], [processor.features([clips[0]]), {}, processor.features([clips[1]])]
    batch = micro_batch(rows, packed=packed, generated=[torch.ones(n, dtype=torch.long) for n in completions])
    if family.mrope:
        batch["position_ids"] = nested([torch.arange(len(row)).expand(4, -1).contiguous() for row in rows])
    batch["multi_modal_inputs"] = NonTensorStack(*features)
    with torch.no_grad():
        _, output = engine_of(model, monkeypatch).forward_step(batch, None, forward_only=True)
    layers = reference.get_submodule(family.decoder).layers
    for row, n, inputs, pooled in zip(rows, completions, features, unpacked(output["model_output"]), strict=True):
        positions = torch.arange(len(row))[None]
        expected = plain(reference, row, n, layers, position_ids=positions, **inputs)
        check(pooled, expected)


def test_only_the_forward_that_the_trainer_meant_is_captured(engine, rows, monkeypatch):
    called = []
    monkeypatch.setattr(FSDPEngineWithLMHead, "forward_step", lambda *args: called.append(args[1:]) or (0, {}))
    batch = micro_batch(rows, packed=True)
    assert engine.forward_step(batch, "loss", False) == (0, {})  # an update
    assert called == [(batch, "loss", False)]


@pytest.mark.parametrize("packed", [False, True])
def test_a_row_without_a_generated_token_is_zero(engine, rows, packed):
    generated = [torch.ones(4, dtype=torch.long), torch.zeros(2, dtype=torch.long), torch.ones(5, dtype=torch.long)]
    with torch.no_grad():
        _, output = engine.forward_step(micro_batch(rows, packed=packed, generated=generated), None, forward_only=True)
    pooled = unpacked(output["model_output"])
    assert pooled.any(dim=-1).tolist() == [[True] * 3, [False] * 3, [True] * 3]
    assert torch.isfinite(pooled).all()


# ---- masks


def test_a_padded_mask_is_on_the_last_tokens_that_were_generated(rows):
    generated = [torch.tensor([1, 0, 0, 1]), torch.tensor([1, 1]), torch.tensor([1, 1, 1, 1, 0])]
    mask, offsets = completion_mask(micro_batch(rows, packed=False, generated=generated), packed=False)
    assert offsets is None
    assert mask.dtype == torch.bool
    assert mask.int().tolist() == [
        [0, 0, 0, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1, 1],
        [0, 0, 1, 1, 1, 1, 0, 0],
    ]


def test_a_packed_mask_has_the_rows_one_after_another(rows):
    mask, offsets = completion_mask(micro_batch(rows, packed=True), packed=True)
    assert offsets.tolist() == [0, 7, 15, 22]
    assert mask.int().tolist() == [0, 0, 0, 1, 1, 1, 1] + [0] * 6 + [1, 1] + [0, 0] + [1] * 5


@pytest.mark.parametrize("padded", ["input_ids", "response_mask"])
def test_another_layout_is_refused_by_name(rows, padded):
    batch = micro_batch(rows, packed=False)
    batch[padded] = batch[padded].to_padded_tensor(0)
    with pytest.raises(AdapterError, match=r"expected nested input_ids and response_mask .* not supported"):
        completion_mask(batch, packed=False)
