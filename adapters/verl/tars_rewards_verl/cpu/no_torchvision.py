"""Qwen2.5-Omni without torchvision.

Nothing that hears needs torchvision, but two things on the way to Qwen2.5-Omni do:

1. `Qwen2_5OmniProcessor` holds a video processor, and every video processor of transformers wants torchvision.
   A stand-in with the settings, that refuses videos, is registered through `AutoVideoProcessor.register`. It is found
   for checkpoints whose files do not name the class of the video processor.
2. vLLM takes `smart_resize`, plain arithmetic, from a module of transformers that imports torchvision at its top. That
   module is imported once beside an empty torchvision, which is taken away again.

PyPI's torchvision wheels are CUDA builds and fail to import beside a CPU-only torch, so a machine without a GPU may well
have none. With torchvision installed nothing here happens.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_NEEDS_IT = "transformers.models.qwen2_vl.image_processing_qwen2_vl"
_IMPORTED_THERE = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2")


def install() -> bool:
    """Make Qwen2.5-Omni load without torchvision; call once in each process, before processors or vLLM models load.

    Returns:
        Whether torchvision is missing, and the replacements are therefore in place.
    """
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        return False
    _register_video_processor()
    _import_smart_resize()
    return True


def _register_video_processor() -> None:
    import transformers
    from transformers import Qwen2_5OmniConfig, Qwen2_5OmniThinkerConfig
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor  # the top-level name is a dummy here
    from transformers.video_processing_utils import BaseVideoProcessor

    class AudioOnlyVideoProcessor(BaseVideoProcessor):
        """Settings of a video processor, without its function."""

        def __init__(self, **kwargs: Any) -> None:
            # Not the base class's: that one demands torchvision.
            for name, value in {"merge_size": 2, "temporal_patch_size": 2, **kwargs}.items():
                setattr(self, name, value)

        def __call__(self, videos: Any, **kwargs: Any) -> Any:
            raise ImportError("videos need torchvision, which is not installed: this set-up is for audio and text")

    # Processors check their parts against this name, which without torchvision is a dummy that nothing is instance of.
    transformers.BaseVideoProcessor = BaseVideoProcessor
    for config in (Qwen2_5OmniConfig, Qwen2_5OmniThinkerConfig):
        AutoVideoProcessor.register(config, AudioOnlyVideoProcessor, exist_ok=True)


def _import_smart_resize() -> None:
    if _NEEDS_IT in sys.modules:
        return
    empty = {name: ModuleType(name) for name in _IMPORTED_THERE}
    empty["torchvision.transforms.v2"].functional = ModuleType("functional")  # type: ignore[attr-defined]
    sys.modules.update(empty)
    try:
        importlib.import_module(_NEEDS_IT)
    finally:
        for name in empty:
            del sys.modules[name]
