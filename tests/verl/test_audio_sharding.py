"""The trained speech models in verl's FSDP engines: sharded, flattened, on several ranks, and saved."""

import subprocess
import sys
import types

import pytest
import torch
from safetensors import safe_open
from speech_models import FAMILIES, load, prepared, verl_configs
from verl.utils.fsdp_utils import _select_fsdp2_wrap_targets
from verl.workers.config.model import HFModelConfig
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from tars_rewards.speech.checkpoint import checkpoint_family

BOTH = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def configs(tiny):
    return verl_configs(tiny)


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


# ---- saving


def save(config, model, directory, monkeypatch, *, rank=0, hf_model=True):
    """With verl's engine, whose checkpoint manager here writes what verl's writes of the model."""
    manager = types.SimpleNamespace(
        should_save_hf_model=hf_model,
        save_checkpoint=lambda local_path, **_: model.save_pretrained(f"{local_path}/huggingface"),
    )
    engine = object.__new__(FSDPEngineWithLMHead)
    vars(engine).update(
        model_config=config,
        module=model,
        rank=rank,
        checkpoint_manager=manager,
        _is_offload_param=False,
        _uses_fsdp2_cpu_offload_policy=True,
    )
    monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
    engine.save_checkpoint(str(directory), None, global_step=3)
    with safe_open(directory / "huggingface" / "model.safetensors", "pt") as file:
        return set(file.keys())


@BOTH
def test_what_verl_saves_is_published_by_the_rank_that_wrote_it(configs, tmp_path, monkeypatch, name):
    config, model = configs[name], load(configs[name])
    published = {"qwen2_audio": "language_model.model.layers.0.", "qwen2_5_omni": "thinker.model.layers.0."}[name]
    names = save(config, model, tmp_path / "first", monkeypatch)
    assert any(each.startswith(published) for each in names)
    assert checkpoint_family(str(tmp_path / "first" / "huggingface")) is FAMILIES[name]
    for number, other in enumerate(({"rank": 1}, {"hf_model": False})):
        names = save(config, model, tmp_path / str(number), monkeypatch, **other)
        assert not any(each.startswith(published) for each in names)


def test_lora_policies_and_other_models_are_left_as_verl_saves_them(configs, tiny, tmp_path, monkeypatch, capsys):
    model = load(configs["qwen2_5_omni"])
    model.peft_config = {}
    assert "lm_head.weight" in save(configs["qwen2_5_omni"], model, tmp_path / "lora", monkeypatch)
    assert "has the base weights and the LoRA adapters apart, as verl saves them" in capsys.readouterr().out
    text = HFModelConfig(path=str(tiny / "text"), override_config={"attn_implementation": "sdpa"})
    assert "lm_head.weight" in save(text, load(text), tmp_path / "text", monkeypatch)


FLATTENED = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, {helpers!r})
import verl
from functools import partial
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniDecoderLayer
from verl.workers.config.model import HFModelConfig
from speech_models import FAMILIES, inputs_for, load
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
from speech_models import FAMILIES, inputs_for, load
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
