"""OpenRLHF on CPU cores: the stand-ins do what they stand for, and only when asked for."""

import os
import subprocess
import sys

import pytest
import torch

from tars_rewards.errors import AdapterError
from tars_rewards_openrlhf import cpu
from tars_rewards_openrlhf.cpu import flash_attention


@pytest.mark.parametrize(("value", "active"), [("cpu", True), (" CPU ", True), ("cuda", False), ("", False)])
def test_the_switch_is_an_environment_variable(monkeypatch, value, active):
    monkeypatch.setenv(cpu.SWITCH, value)
    assert cpu.active() is active


def test_packing_and_unpacking_leave_every_row_as_it_was():
    values = torch.arange(24.0).reshape(2, 4, 3)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    packed, indices, bounds, longest, lengths = flash_attention.unpad_input(values, mask)
    assert packed.tolist() == [*values[0, :3].tolist(), *values[1, :2].tolist()]
    assert (bounds.tolist(), longest, lengths.tolist()) == ([0, 3, 5], 3, [3, 2])
    assert torch.equal(flash_attention.index_first_axis(values.flatten(0, 1), indices), packed)
    assert torch.equal(flash_attention.pad_input(packed, indices, 2, 4), values * mask[..., None])


def test_ring_attention_is_refused():
    with pytest.raises(AdapterError, match="ring_attn_size 1"):
        flash_attention.all_gather(None, None)


@pytest.mark.slow
def test_a_device_is_the_cpu_and_formats_as_a_number():
    code = (
        "from tars_rewards_openrlhf import cpu; cpu.install()\n"
        "import torch\n"
        "device = torch.cuda.current_device()\n"
        "assert torch.zeros(1).to(device).device.type == 'cpu' and f'cuda:{device}' == 'cuda:0'\n"
        "import openrlhf.models.ring_attn_utils\n"
        "import openrlhf.utils.distributed_util as util\n"
        "assert 'GlooBroadcast' in str(util.stateless_init_process_group.__annotations__)\n"
        "from transformers.utils import is_flash_attn_2_available\n"
        "assert not is_flash_attn_2_available()\n"
        "print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.endswith("fine\n"), done.stderr[-3000:]


@pytest.mark.slow
def test_nothing_stands_in_when_not_asked():
    code = (
        "import torch; before = torch.cuda.current_device\n"
        "import tars_rewards_openrlhf.cli, sys\n"
        "assert torch.cuda.current_device is before and 'flash_attn' not in sys.modules\n"
        "print('fine')"
    )
    clean = {name: value for name, value in os.environ.items() if name != cpu.SWITCH}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=clean, check=False
    )
    assert done.stdout.endswith("fine\n"), done.stderr[-3000:]
