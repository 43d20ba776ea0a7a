"""No file is lost, and no result doubled, by a mistaken call or by a second run."""

import json

import pytest
from program import question, write

from tars_rewards import Scorer, TARSConfig
from tars_rewards.errors import InputError
from tars_rewards.scoring.files import check_paths


@pytest.fixture
def scorer():
    return Scorer(None, config=TARSConfig(alpha=0, beta=0))


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "in.jsonl", [question(1), question(2)])


def test_a_file_that_is_no_journal_is_left_alone(scorer, source, tmp_path):
    journal = tmp_path / "out.jsonl.partial"
    journal.write_text("my notes\n")
    with pytest.raises(InputError, match="line 1: expected the journal of an unfinished run"):
        scorer.score_file(source, tmp_path / "out.jsonl", progress=False)
    assert journal.read_text() == "my notes\n"


def test_an_output_that_exists_is_not_touched_unless_asked(scorer, source, tmp_path):
    out = write(tmp_path / "out.jsonl", ["precious\n"])
    with pytest.raises(InputError, match=r"out\.jsonl exists; choose another output, or overwrite it"):
        scorer.score_file(source, out, progress=False)
    assert out.read_text() == "precious\n"
    scorer.score_file(source, out, overwrite=True, progress=False)
    assert len(out.read_text().splitlines()) == 6


@pytest.mark.parametrize("suffix", ["", ".partial", ".bad.jsonl", ".tmp"])
def test_the_source_is_not_written_to(scorer, tmp_path, suffix):
    out = tmp_path / "out.jsonl"
    kept = write(tmp_path / "in.jsonl", [question(1), question(2, id="")])
    (tmp_path / f"out.jsonl{suffix}").symlink_to(kept)
    before = kept.read_bytes()
    with pytest.raises(InputError, match="would be lost"):
        scorer.score_file(kept, out, progress=False, overwrite=True, skip_bad=True)
    assert kept.read_bytes() == before
    check_paths("-", out, overwrite=True)


class Second(Scorer):
    """A scorer during whose work somebody starts the same once more."""

    other = None

    def score_batch(self, questions):
        with pytest.raises(InputError, match="is being written by another run"):
            self.other()
        return super().score_batch(questions)


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_runs_at_once_the_second_is_refused_and_harms_nothing(scorer, tmp_path, overwrite):
    source, out = write(tmp_path / "in.jsonl", [question(number) for number in range(3)]), tmp_path / "out.jsonl"
    first = Second(None, config=TARSConfig(alpha=0, beta=0))
    first.other = lambda: scorer.score_file(source, out, progress=False, overwrite=overwrite)
    assert first.score_file(source, out, progress=False).rows == 9
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["q0"] * 3 + ["q1"] * 3 + ["q2"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
