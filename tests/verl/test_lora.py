"""LoRA adapters on their way to vLLM; the whole way is in test_distributed_training.py."""

import types

import pytest

from tars_rewards_verl.lora import _keep_former_name


def mapper(*names):
    def method(name):
        return lambda self: name

    made = type("WeightsMapper", (), {name: method(name) for name in names})
    return types.SimpleNamespace(__name__="vllm", WeightsMapper=made)


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (["get_rename_mapper"], "get_rename_mapper"),  # from vLLM 0.29 on
        (["get_unstacked_mapper"], "get_unstacked_mapper"),  # before
        ([], None),  # before 0.25, where verl does not call it
    ],
)
def test_verl_finds_the_function_by_its_former_name(names, called):
    module = mapper(*names)
    _keep_former_name(module)
    found = getattr(module.WeightsMapper(), "get_unstacked_mapper", None)
    assert called == (found and found())
