"""What the frozen audio tower makes of a set's clips, kept on disk: no arm changes it, and it is most of the work.

It is kept in float32. In float16, half the size, one greedy completion of 200 came out otherwise.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pandas as pd
import paths  # noqa: F401  (lets the demo's modules be found)
import torch
import xxhash
from evaluate import read_clips
from inference import hear
from model import Thinker
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import Qwen2_5OmniProcessor

KEY, STATES, LENGTHS = "key", "states", "lengths"
_NOT_OF_THE_TOWER = ("proj.", "audio_bos_eos_token.")  # behind what is kept; each base has its own


def heard(thinker: Thinker, processor: Qwen2_5OmniProcessor, table: pd.DataFrame, file: Path) -> list[torch.Tensor]:
    """Outputs of the audio tower before its projector, from a file if that is of the same clips and the same tower.

    Args:
        thinker: Whose tower.
        processor: Its processor.
        table: The spoken rows of a set, from `evaluate.read_table`.
        file: Where they are kept; written anew where it is of other clips or another tower. Processes may share it.

    Returns:
        As `inference.hear`; read from the disk when they are looked at.
    """
    key = key_of(thinker, table)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others wait for what the first one makes
        if not file.exists() or _stored_key(file) != key:
            made = hear(thinker, processor, read_clips(table))
            tensors = {STATES: torch.cat(made), LENGTHS: torch.tensor([len(each) for each in made])}
            written = file.with_suffix(".new")
            save_file(tensors, written, metadata={KEY: key})
            os.replace(written, file)
    with safe_open(file, "pt") as stored:
        states, lengths = stored.get_tensor(STATES), stored.get_tensor(LENGTHS)
    return list(states.split(lengths.tolist()))


def key_of(thinker: Thinker, table: pd.DataFrame) -> str:
    """Digest of the tower's frozen weights and of the contents of the clips."""
    digest = xxhash.xxh3_128()
    for name, weight in sorted(thinker.audio_tower.state_dict().items()):
        if not name.startswith(_NOT_OF_THE_TOWER):
            digest.update(name.encode())
            digest.update(weight.contiguous().numpy())
    for clips in table["audios"]:
        content = Path(clips[0]).read_bytes()
        digest.update(f"{len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def _stored_key(file: Path) -> str | None:
    with safe_open(file, "pt") as stored:
        return (stored.metadata() or {}).get(KEY)
