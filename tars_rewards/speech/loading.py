"""A checkpoint from a directory or the hub, loaded to be scored: weights, processor, device and dtype."""

from __future__ import annotations

import os
from typing import Any

import torch

from tars_rewards.errors import ConfigError, MissingDependencyError, UnsupportedConfigError
from tars_rewards.speech.adapters import load_adapter
from tars_rewards.speech.families import family_of
from tars_rewards.speech.family import SpeechModelFamily

_DTYPES = ("float32", "bfloat16", "float16")


def choose_device(device: str | torch.device) -> torch.device:
    """The device of a name; ``"auto"`` is CUDA where there is one, else MPS, else the CPU.

    Raises:
        ConfigError: There is no such device here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch's way to say "not compiled with CUDA" is an AssertionError
        raise ConfigError(
            f"expected device to be 'auto' or a device of this machine ('cpu', 'cuda', 'cuda:0', 'mps'), got {device!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype | str:
    """The dtype of a name; ``"auto"`` is float32 on the CPU, and the checkpoint's (still ``"auto"``) elsewhere.

    Raises:
        ConfigError: Models are not loaded in such a dtype.
    """
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    for name in _DTYPES:
        named: torch.dtype = getattr(torch, name)
        if dtype in (name, named):
            return named
    raise ConfigError(f"expected dtype to be 'auto' or one of {', '.join(_DTYPES)}, got {dtype!r}")


def checkpoint_family(path: str) -> SpeechModelFamily:
    """Family of a checkpoint directory or hub name.

    Raises:
        ConfigError: There is no such checkpoint, or none within reach.
        UnsupportedConfigError: It is of no known family.
    """
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(path)
    except (OSError, ValueError) as error:  # a name that can be none on the hub is a ValueError
        raise ConfigError(_unreachable(path, error)) from error
    if not config:
        raise ConfigError(_unreachable(path, FileNotFoundError("it has no config.json")))
    return family_of(config.get("model_type"))


def load_model(path: str, family: SpeechModelFamily, *, device: torch.device, dtype: torch.dtype | str) -> Any:
    """Weights of a checkpoint in eval mode.

    Raises:
        ConfigError: The weights are not within reach or cannot be read.
        UnsupportedConfigError: The installed transformers lacks the model, or the checkpoint lacks some of its weights.
        MissingDependencyError: The model needs a package that is not installed.
    """
    model_class = _model_class(family)
    try:
        model, report = model_class.from_pretrained(path, dtype=dtype, output_loading_info=True)
    except ImportError as error:
        raise _missing_dependency("model", family, error) from error
    except OSError as error:
        raise ConfigError(_unreachable(path, error)) from error
    if missing := sorted(report["missing_keys"]):
        raise UnsupportedConfigError(
            f"the checkpoint {path} lacks {len(missing)} weights of {family.model_class}, which would be made up at random: "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}. Is it complete, and of {family.name}?"
        )
    load_adapter(model, path, family)
    return model.to(device).eval()


def load_processor(path: str, family: SpeechModelFamily) -> Any:
    """Processor of a checkpoint.

    Raises:
        ConfigError: Its files are not within reach or cannot be read.
        UnsupportedConfigError: The installed transformers lacks the model.
        MissingDependencyError: The processor needs a package that is not installed.
    """
    _model_class(family)  # one that is too old says so better than by what it stumbles over
    try:
        return family.load_processor(path)
    except ImportError as error:
        raise _missing_dependency("processor", family, error) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the processor of {family.name} cannot be loaded from {path}: {error} Put the files that it is made of (the "
            "feature extractor's, the tokenizer's, the chat template) beside the weights, as the published checkpoint has "
            "them"
        ) from error


def _model_class(family: SpeechModelFamily) -> Any:
    import transformers

    model_class = getattr(transformers, family.model_class, None)
    if model_class is None:
        raise UnsupportedConfigError(
            f"{family.name} needs a transformers that has {family.model_class}; {transformers.__version__} has not. Install "
            "another version"
        )
    return model_class


def _missing_dependency(what: str, family: SpeechModelFamily, error: ImportError) -> MissingDependencyError:
    return MissingDependencyError(
        f"the {what} of {family.name} needs a package that is not installed: {' '.join(str(error).split())}"
    )


def _unreachable(path: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    if os.path.isdir(path):
        return f"the directory {path} is not a checkpoint that can be loaded: {reason}"
    return (
        f"expected model to be a checkpoint directory or a name on the Hugging Face hub, got {path!r}: there is no such "
        f"directory, and from the hub it cannot be had ({reason}). Check the spelling and the network, or download the "
        "checkpoint and give its directory"
    )
