"""Write the paired data set: each question once spoken and once written.

Usage::

    python examples/spoken_reasoning/make_data.py --out runs/demo/data --train 600 --test 200 --seed 0

writes ``train.parquet``, ``test.parquet`` (and ``dev.parquet`` with ``--dev N``) in the columns verl reads, and the clips
as 16 kHz wav files. The two rows of a pair are adjacent. Questions of different splits are about different things
(`questions.split_of`), and voices of dev and test never speak in the training split.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile
from questions import SPLITS, Question, generate
from speech import SAMPLE_RATE, Speaker, speak

Clip = npt.NDArray[np.float32]
Speak = Callable[[Question], tuple[Speaker, Clip]]


def spoken(question: Question, *, seed: int, held_out: bool) -> tuple[Speaker, Clip]:
    """Who speaks a question, and the clip."""
    speaker = Speaker.draw(question.text, seed, held_out=held_out)
    return speaker, speak(question.text, speaker)


def rows_of(question: Question, split: str, index: int, wav: Path, voice: Speak) -> list[dict[str, Any]]:
    """The spoken row and the written row of a question; its clip is written to ``wav``."""
    speaker, clip = voice(question)
    soundfile.write(wav, clip, SAMPLE_RATE, subtype="PCM_16")
    common = {
        "data_source": f"spoken_reasoning/{question.template}",
        "reward_model": {"style": "rule", "ground_truth": question.answer},
        "pair_id": f"{split}-{index:05d}",
        "answer": question.answer,
    }
    extra = {
        "index": index,
        "split": split,
        "template": question.template,
        "question": question.text,
        "options": len(question.options),
        "voice": speaker.voice,
        "snr_db": speaker.snr_db,
    }
    return [
        {
            **common,
            "modality": modality,
            "prompt": [{"role": "user", "content": content}],
            "audios": audios,
            "extra_info": {**extra, "modality": modality},
        }
        # Absolute, because verl's workers run in directories of their own.
        for modality, content, audios in (("speech", "<audio>", [str(wav)]), ("text", question.text, []))
    ]


def write_split(out: Path, split: str, count: int, seed: int, *, workers: int = 2) -> Path:
    """Write one split of the data set.

    Args:
        out: Directory of the data set.
        split: "train", "dev" or "test".
        count: Questions; twice as many rows.
        seed: The same seed writes the same bytes.
        workers: Processes that speak.

    Returns:
        The parquet file.
    """
    return write_set(
        out,
        split,
        generate(split, count, seed),
        partial(spoken, seed=seed, held_out=split != "train"),
        workers=workers,
    )


def write_set(out: Path, name: str, questions: Sequence[Question], voice: Speak, *, workers: int = 2) -> Path:
    """Write questions as one file of the data set; it appears when it is complete.

    Args:
        out: Directory of the data set.
        name: Name of the file, and ``split`` of its rows.
        questions: Whatever is asked.
        voice: Says who speaks a question and speaks it; a function that can be pickled.
        workers: Processes that speak.

    Returns:
        The parquet file.
    """
    clips = out.resolve() / "wav" / name
    clips.mkdir(parents=True, exist_ok=True)
    indices = range(len(questions))
    wavs = [clips / f"{index:05d}.wav" for index in indices]
    with ProcessPoolExecutor(workers) as pool:
        pairs = pool.map(rows_of, questions, repeat(name), indices, wavs, repeat(voice), chunksize=16)
        table = pd.DataFrame([row for pair in pairs for row in pair])
    path = out / f"{name}.parquet"
    table.to_parquet(path.with_suffix(".new"), index=False)
    return path.with_suffix(".new").replace(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write the paired spoken/written data set.")
    parser.add_argument("--out", type=Path, required=True, help="directory to write to, e.g. runs/demo/data")
    parser.add_argument("--train", type=int, default=600, help="training questions")
    parser.add_argument("--dev", type=int, default=0, help="questions to choose settings by")
    parser.add_argument("--test", type=int, default=200, help="held-out questions")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for split in SPLITS:
        if count := getattr(arguments, split):
            print(f"{write_split(arguments.out, split, count, arguments.seed)}: {count} questions, spoken and written")


if __name__ == "__main__":
    main()
