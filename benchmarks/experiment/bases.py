"""The three base models of the experiment: which they are, how they were trained, how they are put together.

Usage::

    python benchmarks/experiment/bases.py natural

trains one anew (about 15 minutes of one core, less once the stages that they share are kept under ``--work``) and
rewrites ``bases/natural/trained.safetensors``.

The ordinary base is the demo's (`make base-model` trains it anew).

The natural base starts from a text stage of its own (.99 of written dev questions) and hears 1,600 clips. It was chosen on the
dev set alone, never by a result of RL. Criteria: words transcribed >= .95, text >= .90, speech clearly above chance (.333) and
well below text (.40 to .65), 20 to 50 % of groups all wrong at T = 1. What was tried, on the first 120 dev questions (words: 30
clips; standard errors .045 speech, .03 text):

======  ===============  ==================================  ======  ====  =====
clips   answers a step   text a step, steps, learning rate   speech  text  words
======  ===============  ==================================  ======  ====  =====
20      4                10, 400, 2e-3                       .25     .79   .98    (100 questions)
120     2                10, 400, 2e-3                       .358    .692  .935
240     4                10, 400, 2e-3                       .375    .817  .983
120     1                20, 500, 1.2e-3                     .308    .858  .878
120     4, from 300      20, 500, 1.5e-3                     .300    .908  .998
240     4, from 200      20, 500, 1.5e-3                     .417    .942  .998   natural
======  ===============  ==================================  ======  ====  =====

0 and 60 clips were not measured. Answers that begin only when hearing is learnt leave text and hearing whole; with fewer
than 240 clips, speech stays at chance. On the first 400 dev questions the natural base has .475 speech (ordering .224,
arithmetic .489, days .714), .928 text, .998 words (60 clips); of 80 groups at T = 1, .30 are all wrong, .55 mixed.
So the natural base has seen 240 spoken chains of thought, about 5 times each.

The constructed base is the ordinary one after 80 steps in which 19 of 20 answers to what it hears leave the reasoning out. It
can reason on speech and hardly ever does: at T = 1, .027 of its answers to 250 dev questions reason; .28 of the groups are all
wrong. Greedy it has .324 speech and .966 text. Two others were tried before it, by standard RL alone, and replaced before any
other training: one in which the reasoning was left out from the start had never learnt to reason on speech (of 29 such answers
.24 were right) and stayed at chance at either learning rate; one with 9 of 10 answers without reasoning still reasoned in .055
of them, and standard RL had brought that back to .68 after 20 steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import paths
import torch
from model import COMMITTED, TRAINED_FILE, Thinker, load, load_trained, new_thinker, save_checkpoint, save_trained
from model import assemble as assemble_model
from questions import Question
from recipe import Recipe, heard_clips, spoken_examples, train_listening, train_text
from transformers import Qwen2_5OmniProcessor, Qwen2TokenizerFast

SEED = 11
ORDINARY = "ordinary"  # the demo's base: supervised from the start of stage 2 with spoken chains of thought, seed 0
RECIPES = {
    "natural": Recipe(
        seed=SEED,
        listen_steps=500,
        text_per_step=20,
        reasoned_clips=240,
        reasoned_from=200,
        listen_learning_rate=1.5e-3,
    ),
    "constructed": Recipe(
        seed=SEED + 1,
        clips=480,
        reasoned_clips=480,
        direct_share=0.95,
        listen_steps=80,
        transcribed_per_step=4,
        reasoned_per_step=8,
        text_per_step=12,
        listen_learning_rate=2e-4,
        projector_learning_rate=2e-4,
    ),
}
STARTS_FROM = {"constructed": ORDINARY}
"""Base that another one is trained on from; the others begin with a text stage."""


def trained_file(name: str) -> Path:
    """The committed trained part of a base.

    Raises:
        ValueError: There is no base of that name.
    """
    if name == ORDINARY:
        return COMMITTED / TRAINED_FILE
    if name not in RECIPES:
        raise ValueError(f"expected a base of {sorted([*RECIPES, ORDINARY])}, got {name!r}")
    return paths.EXPERIMENT / "bases" / name / TRAINED_FILE


def assemble(name: str, directory: Path) -> None:
    """Write a base as a Qwen2.5-Omni checkpoint, with the demo's tokenizer and processor.

    Args:
        name: A key of `RECIPES`, or `ORDINARY`.
        directory: Where to; created if missing.
    """
    assemble_model(directory, trained_file(name))


def train(recipe: Recipe, out: Path, work: Path, *, start_from: Path | None = None) -> None:
    """Train a base and write its trained part to ``out``.

    Args:
        recipe: The base's recipe.
        out: The file to write.
        work: Directory where the text stage and the encoded clips are kept, to be shared by bases of the same seed.
        start_from: Trained part of another base, in the place of a text stage.
    """
    start = time.time()

    def report(stage: str, step: int, losses: str) -> None:
        if step % 50 == 0:
            print(f"{time.time() - start:6.0f} s  {stage} {step:5d}  {losses}", flush=True)

    thinker, processor = untrained(recipe, work)
    text_stage = start_from or work / f"text_stage_{recipe.seed}.safetensors"
    if not text_stage.exists():
        for step, loss in train_text(thinker, processor, recipe):
            report("text", step, f"loss {loss:.3f}")
        _write(thinker, text_stage)
    load_trained(thinker, text_stage)  # in float16 also where it was trained just now
    transcribed, reasoned = spoken_examples(processor, recipe, clips(thinker, processor, recipe, work))
    for step, losses in train_listening(thinker, processor, recipe, transcribed, reasoned):
        report("listening", step, "  ".join(f"{kind} {loss:.3f}" for kind, loss in losses.items()))
    _write(thinker, out)
    print(f"{time.time() - start:6.0f} s  wrote {out}")


def untrained(recipe: Recipe, work: Path) -> tuple[Thinker, Qwen2_5OmniProcessor]:
    """The model before the text stage."""
    directory = work / f"untrained_{recipe.seed}"
    tokenizer = Qwen2TokenizerFast.from_pretrained(COMMITTED)
    save_checkpoint(new_thinker(tokenizer, seed=recipe.seed), directory)
    return load(directory)


def clips(
    thinker: Thinker, processor: Qwen2_5OmniProcessor, recipe: Recipe, work: Path
) -> Sequence[tuple[Question, torch.Tensor]]:
    """The encoded clips of a recipe's listening stage; the tower is frozen, so they are the same for all bases."""
    kept = work / f"heard_{recipe.seed}_{recipe.clips}.pt"
    if not kept.exists():
        made = kept.with_suffix(".new")
        torch.save(heard_clips(thinker, processor, recipe), made)
        made.replace(kept)
    loaded: Sequence[tuple[Question, torch.Tensor]] = torch.load(kept, weights_only=False)
    return loaded


def _write(thinker: Thinker, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_suffix(".new")
    save_trained(thinker, made)
    made.replace(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train a base model of the experiment.")
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, help="file to write; default: the committed one")
    parser.add_argument("--work", type=Path, default=paths.WORK / "training", help="where shared stages are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in another order give another model of the same kind
    start = STARTS_FROM.get(arguments.name)
    train(
        RECIPES[arguments.name],
        arguments.out or trained_file(arguments.name),
        arguments.work,
        start_from=trained_file(start) if start else None,
    )


if __name__ == "__main__":
    main()
