"""A larger policy with the demo's rollouts: ``python benchmarks/larger_policy.py --out DIRECTORY``.

The demo's embedder (MiniLM, 22 M parameters) is larger than its policy (9 M), which no real training's is. Here the demo's
decoder of 4 layers x 128 lies inside one of 6 layers x 512, and computes the same:

- Each of the demo's parameters is a corner of a larger one that is zero besides. What is added to the residual stream, to
  the heads and to the neurons of its layers stays zero.
- RMSNorm divides by the root of a mean, which over four times as many dimensions is half as large. Its weights are halved
  and its epsilon is quartered, neither of which rounds.
- The further layers read the residual stream and compute with random weights, but their last projections are zero, so that
  they add zero to it.

To a framework and to vLLM it is a checkpoint like any other, and they compute with every weight of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples" / "spoken_reasoning"))

from model import COMMITTED, TRAINED_FILE, Thinker, load_trained, new_thinker, save_checkpoint
from transformers import Qwen2TokenizerFast

WIDER = 4  # a power of 4, so that its root does not round
LAYERS = 6


def enlarge(demo: Thinker, *, wider: int = WIDER, layers: int = LAYERS) -> Thinker:
    """A thinker of the same outputs, whose decoder is ``wider`` times as wide and has ``layers`` layers."""
    config, of_demo = demo.config.to_dict(), demo.state_dict()
    text = config["text_config"]
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
        text[name] *= wider
    text |= {"num_hidden_layers": layers, "layer_types": None, "rms_norm_eps": text["rms_norm_eps"] / wider}
    config["audio_config"]["output_dim"] = config["vision_config"]["out_hidden_size"] = text["hidden_size"]
    torch.manual_seed(0)
    larger = Thinker(type(demo.config)(**config)).float()
    with torch.no_grad():
        for name, parameter in larger.named_parameters():
            if name in of_demo:
                parameter.zero_()
                parameter[tuple(map(slice, of_demo[name].shape))] = of_demo[name]
                if name.startswith("model.") and name.endswith("norm.weight"):
                    parameter /= wider**0.5
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
    return larger


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write the larger policy.")
    parser.add_argument("--out", type=Path, required=True, help="directory to write to")
    arguments = parser.parse_args()
    demo = new_thinker(Qwen2TokenizerFast.from_pretrained(COMMITTED))
    load_trained(demo, COMMITTED / TRAINED_FILE)
    save_checkpoint(enlarge(demo), arguments.out)


if __name__ == "__main__":
    main()
