"""LoRA adapters on their way to vLLM 0.29, which gave the function that verl 0.9 calls for them another name.

Without it the first push of an adapter fails: `'WeightsMapper' object has no attribute 'get_unstacked_mapper'`.
"""

from __future__ import annotations

from types import ModuleType

from tars_rewards.integration.patching import after_import, check_signature, require_attribute


def install() -> None:
    """Arrange for the former name to exist too, where vLLM has the new one alone."""
    after_import("vllm.model_executor.models.utils", _keep_former_name)


def _keep_former_name(module: ModuleType) -> None:
    mapper = require_attribute(module, "WeightsMapper", module.__name__)
    if hasattr(mapper, "get_unstacked_mapper") or not hasattr(mapper, "get_rename_mapper"):
        return
    check_signature(mapper.get_rename_mapper, ["self"], "vLLM WeightsMapper.get_rename_mapper")
    mapper.get_unstacked_mapper = mapper.get_rename_mapper
