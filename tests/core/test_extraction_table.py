"""The labelled completions, and that the document's tables are what they give."""

from pathlib import Path

import extraction_table
import pytest

from tars_rewards.answers import answers_agree, check_answer

DOCUMENT = Path(__file__).parents[2] / "docs" / "answer_extraction.md"
ROWS = extraction_table.completions()


def test_the_document_shows_what_the_file_gives() -> None:
    assert extraction_table.tables() in DOCUMENT.read_text(encoding="utf-8"), extraction_table.tables()


def test_enough_different_completions() -> None:
    assert len(ROWS) >= 200
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert len({" ".join(row["completion"].casefold().split()) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_labels_are_options_or_texts(row: dict[str, object]) -> None:
    letters = "ABCDEFGHIJ"[: row["options"]]
    assert not letters or row["gold"] in letters
    assert check_answer(row["gold"])
    if row["label"] not in extraction_table.NO_ONE_ANSWER:
        assert not letters or row["label"] in letters
        assert answers_agree(row["label"], row["label"])  # the label itself would be credited


def test_counts_on_a_few_by_hand() -> None:
    def says_b(completion: str) -> str | None:
        return None if completion == "silent" else "B"

    rows = [
        {"options": 4, "completion": completion, "gold": gold, "label": label}
        for completion, gold, label in [
            ("x", "B", "B"),  # agrees
            ("x", "B", "C"),  # credited for what it does not say
            ("x", "C", "C"),  # refused what it says
            ("x", "B", "none"),  # credited for nothing
            ("silent", "B", "several"),  # agrees
            ("silent", "A", "A"),  # refused
        ]
    ]
    assert extraction_table.compare(rows, says_b) == {"agrees": 2, "credited": 2, "refused": 2, "unparsed": 2}
