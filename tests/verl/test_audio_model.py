"""The trained speech models: encoder cache, frozen towers, masked logits, sharding; against plain Hugging Face ones."""

import subprocess
import sys

import pytest
import torch
from verl.utils.fsdp_utils import _select_fsdp2_wrap_targets
from verl.utils.model import get_hf_auto_model_class
from verl.workers.config.model import HFModelConfig

from tars_rewards.speech.checkpoint import checkpoint_family
from tars_rewards.speech.encoder_cache import EncoderCache
from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO
from tars_rewards.speech.policy import NEVER, prepare_model

FAMILIES = {"qwen2_audio": QWEN2_AUDIO, "qwen2_5_omni": QWEN2_5_OMNI}
BOTH = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def configs(tiny):
    return {
        name: HFModelConfig(path=str(tiny / name), override_config={"attn_implementation": "sdpa"}) for name in FAMILIES
    }


def load(config):
    """As verl's engine does."""
    auto = get_hf_auto_model_class(config.hf_config)
    return auto.from_pretrained(config.local_path, config=config.hf_config, dtype=torch.float32).eval()


def inputs_for(processor, clips):
    """One row per clip; None is a row of text as long as the others."""
    text = "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>2<|im_end|>\n"
    known = [clip for clip in clips if clip is not None]
    spoken = processor(text=[text], audio=known[:1], return_tensors="pt")["input_ids"][0]
    written = torch.full_like(spoken, 40)
    ids = torch.stack([written if clip is None else spoken for clip in clips])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(ids.shape[1]).expand_as(ids),
        "use_cache": False,
        **processor.features(known),
    }


def prepared(config, family, *, frozen=True, never_sampled=()):
    model = load(config)
    prepare_model(model, family, never_sampled=never_sampled, frozen=frozen)
    return model, model.get_submodule(family.audio_tower).forward


@BOTH
def test_verl_loads_the_part_that_is_trained(configs, tiny, name):
    config, family = configs[name], FAMILIES[name]
    assert checkpoint_family(str(tiny / name)) is family
    assert config.hf_config.model_type == family.model_type
    assert config.hf_config.tie_word_embeddings is False
    assert config.architectures == [family.model_class]
    model = load(config)
    assert type(model).__name__ == family.model_class
    assert type(model.get_submodule(family.audio_tower)).__name__.endswith("AudioEncoder")
    assert hasattr(model.get_submodule(family.decoder), "embed_tokens")


def test_other_checkpoints_are_nobodys(tiny, tmp_path):
    assert checkpoint_family(str(tiny / "text")) is None
    assert checkpoint_family(str(tmp_path)) is None


@BOTH
def test_a_clip_is_encoded_once_and_the_output_stays(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    plain = load(config)
    model, cache = prepared(config, family)
    batch = inputs_for(config.processor, [clips[0], clips[2], clips[0], None, clips[4], clips[2]])
    with torch.no_grad():
        expected = plain(**batch).logits
        for _ in range(2):
            torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-6)
    assert (cache.clips, cache.encoded) == (10, 3)
    # Another mixture of known and new clips.
    batch = inputs_for(config.processor, [clips[i] for i in (6, 2)])
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, plain(**batch).logits, rtol=0, atol=1e-6)
    assert (cache.clips, cache.encoded) == (12, 4)


@BOTH
def test_gradients_are_those_without_a_cache(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    plain = load(config)
    plain.get_submodule(family.audio_tower).requires_grad_(False)
    model, cache = prepared(config, family)
    batch = inputs_for(config.processor, [clips[0], clips[2], clips[0]])
    for each in (plain, model, model):
        each.zero_grad()
        each.train()(**batch).logits.log_softmax(-1)[..., 40].sum().backward()
    assert cache.encoded == 2
    trained = 0
    for (label, theirs), (_, ours) in zip(plain.named_parameters(), model.named_parameters(), strict=True):
        assert (theirs.grad is None) == (ours.grad is None), label
        if theirs.grad is not None:
            trained += 1
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=label)
    assert trained > 10


@BOTH
def test_silence_is_another_clip(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    model, _ = prepared(config, family)
    batch = inputs_for(config.processor, [clips[0]])
    with torch.no_grad():
        heard = model(**batch).logits
        silenced = model(**{**batch, "input_features": torch.zeros_like(batch["input_features"])}).logits
    assert (heard - silenced).abs().max() > 1e-2


@BOTH
def test_the_cache_stands_back_while_the_encoder_can_change(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    batch = inputs_for(config.processor, [clips[0], clips[0]])
    model, cache = prepared(config, family, frozen=False)
    model(**batch).logits.sum().backward()
    assert (cache.clips, cache.encoded) == (0, 0)
    assert all(
        parameter.grad is not None
        for label, parameter in model.get_submodule(family.audio_tower).named_parameters()
        if label.startswith("layers")
    )
    model, cache = prepared(config, family)
    tower = model.get_submodule(family.audio_tower)
    dropout = tower.config.attention_dropout
    tower.config.attention_dropout = 0.1
    try:
        model.train()(**batch)
        assert cache.clips == 0
        model.eval()(**batch)
        assert cache.clips == 2
    finally:
        tower.config.attention_dropout = dropout


@BOTH
def test_loading_weights_empties_the_cache(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    model, cache = prepared(config, family)
    batch = inputs_for(config.processor, [clips[0]])
    with torch.no_grad():
        before = model(**batch).logits
        doubled = {key: value * 2 if "conv1.bias" in key else value for key, value in model.state_dict().items()}
        model.load_state_dict({key: value + 0.5 if "conv1.bias" in key else value for key, value in doubled.items()})
        assert (model(**batch).logits - before).abs().max() > 1e-3
    assert cache.encoded == 2


def test_the_cache_keeps_to_its_memory_and_drops_the_oldest(configs, clips):
    config, family = configs["qwen2_5_omni"], QWEN2_5_OMNI
    model = load(config)
    tower = model.get_submodule(family.audio_tower).requires_grad_(False)
    one_output = 12 * tower.config.output_dim * 4
    cache = EncoderCache(tower, family, max_bytes=2 * one_output).install()
    for clip, encoded in ((0, 1), (2, 2), (0, 2), (4, 3), (0, 3), (2, 4)):
        with torch.no_grad():
            model(**inputs_for(config.processor, [clips[clip]]))
        assert cache.encoded == encoded, clip
        assert cache._bytes <= 2 * one_output


@BOTH
def test_prompt_only_tokens_get_no_probability_and_the_rest_are_renormalised(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    banned = config.processor.never_sampled()
    plain = load(config)
    model, _ = prepared(config, family, never_sampled=banned)
    batch = inputs_for(config.processor, [clips[0]])
    with torch.no_grad():
        logits = plain(**batch).logits
        logits[..., banned] = float("-inf")
        ours = model(**batch).logits
    assert (ours[..., banned] == NEVER).all()
    probabilities = ours.softmax(-1)
    torch.testing.assert_close(probabilities, logits.softmax(-1), rtol=0, atol=1e-6)
    entropy = -(probabilities * ours.log_softmax(-1)).sum(-1)
    assert torch.isfinite(entropy).all()


@BOTH
def test_nothing_inside_the_audio_tower_is_sharded_by_itself(configs, name):
    config, family = configs[name], FAMILIES[name]
    model, _ = prepared(config, family)
    targets = _select_fsdp2_wrap_targets(model, model._no_split_modules)
    inside = set(model.get_submodule(family.audio_tower).modules())
    layers = [target for target in targets if type(target).__name__ == family.layer_classes[0]]
    assert len(layers) == 3
    assert not inside & set(targets)
    # Without the patch an embedding inside would be chosen.
    assert any(isinstance(module, torch.nn.Embedding) for module in inside)


def test_sharding_of_other_models_is_verls(tiny):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny / "text")
    targets = _select_fsdp2_wrap_targets(model, ["Qwen2DecoderLayer"])
    assert {type(target).__name__ for target in targets} == {"Qwen2DecoderLayer", "Embedding", "Linear"}


FLATTENED = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, {helpers!r})
import verl
from functools import partial
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniDecoderLayer
from verl.workers.config.model import HFModelConfig
from test_audio_model import FAMILIES, inputs_for, load
from tars_rewards.speech.policy import prepare_model
trained, original, clip, directory = sys.argv[1] == "True", sys.argv[2] == "True", sys.argv[3], sys.argv[4]
dist.init_process_group("gloo", init_method=f"file://{{directory}}/meet", rank=0, world_size=1)
config = HFModelConfig(path="{tiny}/qwen2_5_omni", override_config={{"attn_implementation": "sdpa"}})
model, plain = (load(config).requires_grad_(trained) for _ in range(2))  # FSDP1 does not flatten both kinds into one
prepare_model(model, FAMILIES["qwen2_5_omni"], never_sampled=[], frozen=not trained)
tower, cache = model.audio_tower, model.audio_tower.forward
wrap = partial(transformer_auto_wrap_policy, transformer_layer_cls={{Qwen2_5OmniDecoderLayer}})
sharded = FSDP(model, auto_wrap_policy=wrap, use_orig_params=original, device_id=torch.device("cpu"))
norms = []
for each in (sharded, plain):
    logits = each(**inputs_for(config.processor, [clip])).logits
    if trained:
        logits.log_softmax(-1)[..., 40].sum().backward()
    norms.append(sum(float(p.grad.square().sum()) for p in each.parameters() if p.grad is not None))
assert abs(norms[0] - norms[1]) <= 1e-4 * norms[1], norms
print("visible", len(list(tower.parameters())) > 0, "reused", cache.clips > 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trained", "original", "said"),
    [
        (True, False, "visible False reused False"),
        (True, True, "visible True reused False"),
        (False, False, "visible False reused True"),
    ],
)
def test_a_tower_that_fsdp1_flattened_is_trained_unless_it_is_known_to_be_frozen(
    tiny, clips, tmp_path, trained, original, said
):
    code = FLATTENED.format(helpers=str(__file__).rpartition("/")[0], tiny=tiny)
    done = subprocess.run(
        [sys.executable, "-c", code, str(trained), str(original), str(clips[0]), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.stdout.endswith(f"{said}\n"), done.stderr[-3000:]


TWO_RANKS = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, {helpers!r})
import verl
from torch.distributed.fsdp import fully_shard
from torch.distributed.device_mesh import init_device_mesh
from verl.utils.fsdp_utils import _select_fsdp2_wrap_targets
from verl.workers.config.model import HFModelConfig
from test_audio_model import FAMILIES, inputs_for, load
from tars_rewards.speech.policy import prepare_model
rank, name, frozen, clip, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "True", sys.argv[4], sys.argv[5]
dist.init_process_group("gloo", init_method=f"file://{{directory}}/meet", rank=rank, world_size=2)
config = HFModelConfig(path=f"{tiny}/{{name}}", override_config={{"attn_implementation": "sdpa"}})
batches = [inputs_for(config.processor, [clip]), inputs_for(config.processor, [clip, None])]
batches[1] = {{key: value[1:] for key, value in batches[1].items() if torch.is_tensor(value) and "feature" not in key}}
loss = lambda model, batch: model(**batch).logits.log_softmax(-1)[..., 40].sum()
model, plain = load(config), load(config)
family = FAMILIES[name]
prepare_model(model, family, never_sampled=[], frozen=frozen)
mesh = init_device_mesh("cpu", (2,))
for target in _select_fsdp2_wrap_targets(model, model._no_split_modules):
    fully_shard(target, mesh=mesh)
fully_shard(model, mesh=mesh)
loss(model.train(), batches[rank]).backward()   # rank 0 hears, rank 1 reads
(sum(loss(plain.train(), batch) for batch in batches) / 2).backward()
for (label, ours), (_, theirs) in zip(model.named_parameters(), plain.named_parameters()):
    if ours.requires_grad and theirs.grad is not None:
        torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad, rtol=1e-4, atol=1e-5, msg=label)
print("agree", rank)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "frozen"), [("qwen2_audio", True), ("qwen2_5_omni", True), ("qwen2_5_omni", False)])
def test_ranks_with_and_without_audio_reduce_the_same_gradients(tiny, clips, tmp_path, name, frozen):
    code = TWO_RANKS.format(helpers=str(__file__).rpartition("/")[0], tiny=tiny)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), name, str(frozen), str(clips[0]), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=180)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for number, output in enumerate(outputs):
        assert f"agree {number}" in output, output[-3000:]
