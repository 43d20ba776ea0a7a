"""Loading in pieces: what DeepSpeed gathers is there when it says so, and frequencies keep their precision."""

import copy
import types

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2AudioForConditionalGeneration

from tars_rewards.errors import AdapterError
from tars_rewards_openrlhf import cpu
from tars_rewards_openrlhf.cpu import leaves
from tars_rewards_openrlhf.zero3 import restore_rotary

cpu.install()
import deepspeed  # noqa: E402
from deepspeed.runtime.zero import partition_parameters  # noqa: E402


def piece(values, ranks=2):
    """A parameter of which a rank holds its part."""
    parameter = torch.nn.Parameter(torch.empty(0))
    parameter.ds_tensor = torch.tensor(values)
    parameter.ds_tensor.ds_numel = len(values)
    parameter.ds_numel = len(values) * ranks
    parameter.ds_shape = torch.Size([parameter.ds_numel])
    return parameter


def test_weights_that_are_gathered_together_are_all_there_at_the_end(monkeypatch):
    class Late:
        """An all-gather of gloo's: what is not waited for has not arrived."""

        def __init__(self, output, part):
            self.output, self.part = output, part

        def wait(self):
            self.output.copy_(torch.cat([self.part, self.part]))

    def all_gather_into_tensor(output, part, group, async_op):
        late = Late(output, part)
        return late if async_op else late.wait()

    init = partition_parameters.Init.__new__(partition_parameters.Init)
    init.local_device, init.use_all_gather_into_tensor = "cpu", True
    monkeypatch.setattr(init, "_partition_world_size", lambda _: 2, raising=False)
    monkeypatch.setattr(init, "_partition_rank", lambda _: 0, raising=False)
    monkeypatch.setattr(init, "get_partition_dp_group", lambda _: None, raising=False)
    monkeypatch.setattr(partition_parameters.dist, "all_gather_into_tensor", all_gather_into_tensor)
    weight, bias = piece([1.0, 2.0, 3.0]), piece([4.0])
    init._allgather_params_coalesced([weight, bias])
    assert weight.tolist() == [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
    assert bias.tolist() == [4.0, 4.0]


def test_another_deepspeed_is_refused():
    class Init:
        def _allgather_params_coalesced(self, param_list, stream): ...

    with pytest.raises(AdapterError, match=r"Init.* to take \(self, param_list, hierarchy, quantize\)"):
        leaves._gather_to_the_end(types.SimpleNamespace(Init=Init, __name__="partition_parameters"))


@pytest.fixture
def one_rank(monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "0")
    deepspeed.init_distributed("gloo")
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("name", "cls"), [("text", AutoModelForCausalLM), ("qwen2_audio", Qwen2AudioForConditionalGeneration)]
)
def test_rotary_frequencies_are_those_of_a_model_loaded_at_once(one_rank, tiny, name, cls):
    from transformers.integrations import HfDeepSpeedConfig

    whole = cls.from_pretrained(tiny / name, dtype=torch.bfloat16)
    config = {"zero_optimization": {"stage": 3}, "bf16": {"enabled": True}, "train_batch_size": 1}
    held = HfDeepSpeedConfig(copy.deepcopy(config))  # transformers loads in pieces as long as there is one
    loaded = cls.from_pretrained(tiny / name, dtype=torch.bfloat16)
    del held
    buffers = [buffer for buffer, _ in whole.named_buffers() if "inv_freq" in buffer]
    assert not torch.equal(loaded.get_buffer(buffers[0]).float(), whole.get_buffer(buffers[0]))  # else not needed
    assert restore_rotary(loaded) == 1
    for buffer in buffers:
        assert torch.equal(loaded.get_buffer(buffer), whole.get_buffer(buffer))
    assert restore_rotary(whole) == 0
