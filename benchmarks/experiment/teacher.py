"""The frozen teacher: what the untrained base answers to the written questions, and its hidden states over that.

Of every training question the base samples a few completions at temperature 1; the first that is right is kept. Questions
of which none is right are left out: they have no reference, as with a moving one.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import paths  # noqa: F401  (lets the demo's modules be found)
import torch
from evaluate import pooled_states
from inference import embed, generate, prompt_text
from model import load

from tars_rewards import TARSConfig, TARSReward

SAMPLES = 4


@torch.no_grad()
def write_teacher(base: Path, questions: Path, out: Path, *, embedder: str, seed: int = 0) -> int:
    """Write the teacher's completions as a parquet file with pair_id, completion, states [layers][hidden] and embedding.

    Args:
        base: Model directory of the base.
        questions: The training questions, from ``data.py``.
        out: The file to write.
        embedder: Sentence embedder of the behavior term.
        seed: Of the sampling.

    Returns:
        The number of questions that have a completion.
    """
    thinker, processor = load(base)
    table = pd.read_parquet(questions)
    table = table[table["modality"] == "text"].reset_index(drop=True)
    texts = [extra["question"] for extra in table["extra_info"]]
    prompts = [embed(thinker, processor, prompt_text(processor, text)) for text in texts]
    done = generate(
        thinker, processor, [prompt for prompt in prompts for _ in range(SAMPLES)], temperature=1.0, seed=seed
    )
    reward = TARSReward(TARSConfig(embedder=embedder, embedder_device="cpu"))
    chosen: dict[int, int] = {}
    for index, completion in enumerate(done.text):
        row = index // SAMPLES
        answer = str(table["answer"][row])
        if row not in chosen and reward.base(completion, answer, truncated=done.truncated[index]).correct:
            chosen[row] = index
    completions = [done.text[index] for index in chosen.values()]
    states = pooled_states(thinker, [prompts[row] for row in chosen], [done.tokens[index] for index in chosen.values()])
    made = out.with_suffix(".new")
    out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(
        {
            "pair_id": [table["pair_id"][row] for row in chosen],
            "completion": completions,
            "states": states.numpy().tolist(),
            "embedding": reward.embed(completions).tolist(),
        }
    ).to_parquet(made, index=False)
    made.replace(out)
    return len(chosen)
