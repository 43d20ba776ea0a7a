"""Checkpoints of speech models: whose they are, and how a trained one is published."""

from __future__ import annotations

import json
from pathlib import Path

from tars_rewards.errors import AdapterError
from tars_rewards.speech.families import TrainableFamily, find_trainable

_INDEX = "model.safetensors.index.json"


def checkpoint_model_type(path: str) -> str | None:
    """``model_type`` of a checkpoint directory or hub id; None if it has no config that can be read."""
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(path)
    except OSError:
        return None
    model_type: str | None = config.get("model_type")
    return model_type


def checkpoint_family(path: str) -> TrainableFamily | None:
    """Family of a checkpoint directory or hub id; None if it is none that can be trained, or has no readable config."""
    return find_trainable(checkpoint_model_type(path))


def publish(directory: str | Path, source: str, family: TrainableFamily) -> None:
    """Give a saved policy the names and the config of a published checkpoint of its family.

    transformers writes the trained part alone, by the names that it has in memory. Hugging Face reads those again; vLLM
    knows the published ones only. Each file of weights is written anew beside the old one and then takes its place.

    Args:
        directory: What ``save_pretrained`` wrote. Already published ones stay as they are.
        source: Checkpoint that the training began with; its config is taken where the trained part is one of several.
        family: Family of the model.

    Raises:
        AdapterError: The directory holds no safetensors.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file
    from transformers import PreTrainedConfig

    config, _ = PreTrainedConfig.get_config_dict(source)
    config.pop("_commit_hash", None)
    if config.get("model_type") != family.checkpoint_type:
        return  # the training began with the part alone, and ends with it
    directory = Path(directory)
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise AdapterError(f"expected a saved model in {directory}, found no *.safetensors there")
    for file in files:
        with safe_open(file, "pt") as opened:
            names = {name: family.published_name(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            if all(name == published for name, published in names.items()):
                continue
            tensors = {published: opened.get_tensor(name) for name, published in names.items()}
            metadata = opened.metadata()
        aside = file.with_suffix(".tmp")
        save_file(tensors, aside, metadata=metadata)
        aside.replace(file)
    index = directory / _INDEX
    if index.exists():
        content = json.loads(index.read_text())
        content["weight_map"] = {family.published_name(name): file for name, file in content["weight_map"].items()}
        index.write_text(json.dumps(content, indent=2) + "\n")
    file = directory / "config.json"
    trained = json.loads(file.read_text())
    if family.part and trained.get("model_type") == family.model_type:
        # What is left of the checkpoint (a speech synthesiser) was not loaded, so it is not there to be saved.
        config = {**config, family.part: trained, "enable_audio_output": False}
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
