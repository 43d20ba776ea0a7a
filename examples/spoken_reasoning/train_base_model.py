"""Train the base model's committed part anew: tokenizer, text stage, listening stage (`recipe`).

Usage (``make base-model``; under 20 minutes on two cores)::

    python examples/spoken_reasoning/train_base_model.py

rewrites ``base_model/`` beside this file. Clips are spoken and encoded once, at the start.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from model import COMMITTED, TRAINED_FILE, load, new_thinker, save_checkpoint, save_trained
from recipe import Recipe, heard_clips, spoken_examples, train_listening, train_text
from tokenizer import save_processor, train_tokenizer, training_texts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the base model's committed part.")
    parser.add_argument("--out", type=Path, default=COMMITTED, help="directory for the trained part and the tokenizer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = Recipe(seed=arguments.seed)
    start = time.time()

    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(training_texts())
    save_processor(tokenizer, arguments.out)
    thinker = new_thinker(tokenizer, seed=recipe.seed)
    with tempfile.TemporaryDirectory() as scratch:
        save_checkpoint(thinker, Path(scratch), files=arguments.out)
        thinker, processor = load(Path(scratch))

    def report(stage: str, step: int, losses: str) -> None:
        if step % 50 == 0:
            print(f"{time.time() - start:6.0f} s  {stage} {step:5d}  {losses}", flush=True)

    for step, loss in train_text(thinker, processor, recipe):
        report("text", step, f"loss {loss:.3f}")
    transcribed, reasoned = spoken_examples(processor, recipe, heard_clips(thinker, processor, recipe))
    print(f"{time.time() - start:6.0f} s  {len(transcribed)} clips spoken and encoded", flush=True)
    for step, losses in train_listening(thinker, processor, recipe, transcribed, reasoned):
        report("listening", step, "  ".join(f"{kind} {loss:.3f}" for kind, loss in losses.items()))
    save_trained(thinker, arguments.out / TRAINED_FILE)
    print(f"{time.time() - start:6.0f} s  wrote {arguments.out / TRAINED_FILE}")


if __name__ == "__main__":
    main()
