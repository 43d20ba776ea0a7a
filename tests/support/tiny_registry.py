"""Every tiny family in ``tiny_families``: found by its file, made once, and how Hugging Face itself would be asked.

A module there has ``NAME``, ``MODEL_TYPE``, ``available()`` and ``make(directory)``. What is not as usual with a family
it says by one more of these:

====================================  ====================================================================================
``MEDIUM``                            "image", where it is not "audio"
``processor(directory)``              the processor, where a user would not ask for ``AutoProcessor``
``reference(directory, text, media)``  the inputs of one user turn, where a processor is not asked with parts of a content
``prepare(model, directory, heard)``  what a user does to a loaded model before it listens or reads
``states(hidden_states)``             each layer's states, where Hugging Face's are something else
``ENCODER``                           the module that encodes, where no convolution does
``SYSTEM_TURN``                       False, where there can be none before a clip
====================================  ====================================================================================
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch


def families() -> list[Any]:
    """The modules, by name."""
    files = sorted((Path(__file__).parent / "tiny_families").glob("*.py"))
    modules = [importlib.import_module(f"tiny_families.{file.stem}") for file in files if file.stem != "__init__"]
    return [module for module in modules if hasattr(module, "MODEL_TYPE")]


def media(module: Any, seed: int) -> np.ndarray:
    """A clip of half a second to one and a half (16 kHz), or an image, both of noise."""
    generator = np.random.default_rng(seed)
    if getattr(module, "MEDIUM", "audio") == "image":
        return generator.integers(0, 256, (40 + seed, 50, 3), dtype=np.uint8)
    samples = 8000 * (1 + seed % 3)
    tone = np.sin(np.arange(samples) * (0.05 + 0.03 * seed))
    return (0.3 * tone + generator.normal(0, 0.1, samples)).astype(np.float32)


def reference(module: Any, directory: Path, text: str, given: np.ndarray | None) -> dict[str, torch.Tensor]:
    """Inputs of one user turn as Hugging Face's documentation makes them, without a line of this package's prompts."""
    if hasattr(module, "reference"):
        return dict(module.reference(directory, text, given))
    if hasattr(module, "processor"):
        processor = module.processor(directory)
    else:
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(directory)
    medium = getattr(module, "MEDIUM", "audio")
    content = [] if given is None else [{"type": medium, medium: given}]
    turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
    return dict(
        processor.apply_chat_template(
            [turn], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
    )


def with_completion(inputs: dict[str, torch.Tensor], completion: list[int]) -> dict[str, torch.Tensor]:
    """The same prompt followed by a completion; further inputs per token are 0 there."""
    prompt = inputs["input_ids"]
    longer = {
        "input_ids": torch.tensor([completion]),
        "attention_mask": torch.ones(1, len(completion), dtype=torch.long),
    }
    zeros = torch.zeros(1, len(completion), dtype=torch.long)
    return {
        name: torch.cat([value, longer.get(name, zeros)], dim=1) if value.shape == prompt.shape else value
        for name, value in inputs.items()
    }
