"""Put the base model together: committed trained part, Whisper's encoder from its package, configuration.

Usage::

    python examples/spoken_reasoning/make_base_model.py --out runs/demo/base
"""

from __future__ import annotations

import argparse
from pathlib import Path

from model import assemble


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Assemble the base model's directory.")
    parser.add_argument("--out", type=Path, required=True, help="directory to write to")
    arguments = parser.parse_args()
    assemble(arguments.out)
    print(f"{arguments.out}: a Qwen2.5-Omni Thinker of 9.0 M parameters")


if __name__ == "__main__":
    main()
