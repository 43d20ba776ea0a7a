"""The tables of `docs/answer_extraction.md`: extractors against the labels of `tests/core/tricky_completions.jsonl`.

Prints them, and below each completion's label and what was read: `python tests/support/extraction_table.py`
"""

import json
from collections import Counter
from pathlib import Path

from tars_rewards.answers import answers_agree
from tars_rewards.extraction import answer_extractor

FILE = Path(__file__).parents[1] / "core" / "tricky_completions.jsonl"
EXTRACTORS = ("tags", "voicebench")
NO_ONE_ANSWER = ("none", "several")


def completions():
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def read(row, extract):
    """What accuracy takes a completion to answer: a letter, the free text it is compared with, "other", or "unparsed"."""
    stated = extract(row["completion"])
    if stated is None:
        return "unparsed"
    candidates = "ABCDEFGHIJ"[: row["options"]] or [row["gold"], row["label"]]
    return next((candidate for candidate in candidates if answers_agree(stated, candidate)), "other")


def compare(rows, extract):
    """Counts over some completions."""
    counts = Counter()
    for row in rows:
        found, label, gold = read(row, extract), row["label"], row["gold"]
        states = label not in NO_ONE_ANSWER
        counts["agrees"] += found == label if states else found in ("unparsed", "other")
        counts["credited"] += found == gold != label
        counts["refused"] += found != gold == label
        counts["unparsed"] += found == "unparsed"
    return counts


def tables():
    rows = completions()
    return "\n\n".join([_agreement(rows), _letters(rows)])


def _agreement(rows):
    groups = {"all": rows, "with an answer tag": [row for row in rows if "<answer>" in row["completion"]]}
    lines = [
        "| completions | extractor | agrees with the label | wrongly credited | wrongly refused | unparsed |",
        "|---|---|---|---|---|---|",
    ]
    for title, some in groups.items():
        for name in EXTRACTORS:
            counts = compare(some, answer_extractor(name))
            numbers = [counts["credited"], counts["refused"], counts["unparsed"]]
            cells = [f"{title} ({len(some)})", f"`{name}`", f"{100 * counts['agrees'] / len(some):.1f} %", *numbers]
            lines.append(f"| {' | '.join(map(str, cells))} |")
        lines.append(f"| {title} ({len(some)}) | `xfinder` | not run | not run | not run | not run |")
    return "\n".join(lines)


def _letters(rows):
    lines = [
        "| the completion states | extractor | misread as A | as B | as C | as D | as none |",
        "|---|---|---|---|---|---|---|",
    ]
    choices = [row for row in rows if row["options"]]
    groups = {
        "no one option": [row for row in choices if row["label"] in NO_ONE_ANSWER],
        "B, C or D": [row for row in choices if row["label"] in ("B", "C", "D")],
    }
    for title, some in groups.items():
        for name in EXTRACTORS:
            pairs = [(read(row, answer_extractor(name)), row["label"]) for row in some]
            misread = Counter(found if found in "ABCD" else "none" for found, label in pairs if found != label)
            shares = [f"{misread[to]} ({100 * misread[to] / len(some):.1f} %)" for to in ("A", "B", "C", "D", "none")]
            lines.append(f"| {title} ({len(some)}) | `{name}` | {' | '.join(shares)} |")
        lines.append(f"| {title} ({len(some)}) | `xfinder` | not run | not run | not run | not run | not run |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
    for row in completions():
        print(row["id"], row["gold"], row["label"], *[read(row, answer_extractor(n)) for n in EXTRACTORS], sep="\t")
