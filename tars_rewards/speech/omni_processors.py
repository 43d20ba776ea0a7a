"""Processors of the Omni families where torchvision is not installed: without video, which nothing here asks for."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2_5OmniProcessor, Qwen3OmniMoeProcessor
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available


class _WithoutVideo:
    """Goes in front of a stock class, whose video part needs torchvision even if no video ever comes."""

    def __init__(
        self,
        image_processor: Any = None,
        feature_extractor: Any = None,
        tokenizer: Any = None,
        chat_template: Any = None,
    ) -> None:
        ProcessorMixin.__init__(self, image_processor, feature_extractor, tokenizer, chat_template=chat_template)
        # The stock class reads the size of a merged patch from it, with or without videos.
        self.video_processor = image_processor
        for name in ("image", "audio", "video", "vision_bos", "vision_eos", "audio_bos", "audio_eos"):
            setattr(self, f"{name}_token", getattr(tokenizer, f"{name}_token"))


class OmniProcessorWithoutVideo(_WithoutVideo, Qwen2_5OmniProcessor):
    """Processor of Qwen2.5-Omni without its video part."""


class Qwen3OmniProcessorWithoutVideo(_WithoutVideo, Qwen3OmniMoeProcessor):
    """Processor of Qwen3-Omni without its video part."""


def qwen2_5_omni_class() -> Any:
    """The stock class where torchvision is installed, else the one without video."""
    return Qwen2_5OmniProcessor if is_torchvision_available() else OmniProcessorWithoutVideo


def qwen3_omni_class() -> Any:
    """The stock class where torchvision is installed, else the one without video."""
    return Qwen3OmniMoeProcessor if is_torchvision_available() else Qwen3OmniProcessorWithoutVideo
