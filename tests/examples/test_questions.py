"""The questions: splits, truth, format."""

import re
from itertools import permutations

import pytest
from solver import solve


def test_the_same_seed_gives_the_same_questions_and_another_seed_others(questions):
    assert questions.generate("train", 40, 3) == questions.generate("train", 40, 3)
    assert questions.generate("train", 40, 3) != questions.generate("train", 40, 4)


def test_more_questions_begin_with_the_same_ones(questions):
    assert questions.generate("test", 40, 3)[:12] == questions.generate("test", 12, 3)


def test_no_question_twice_and_templates_in_turn(questions):
    made = questions.generate("test", 300, 0)
    assert len({q.text for q in made}) == 300
    assert {name: sum(q.template == name for q in made) for name in {q.template for q in made}} == dict.fromkeys(
        ("ordering", "arithmetic", "days"), 100
    )


def test_splits_share_neither_a_text_nor_what_a_question_is_about(questions):
    made = {split: questions.generate(split, 600, seed) for seed, split in enumerate(questions.SPLITS)}
    for one, other in permutations(made, 2):
        assert not {q.key for q in made[one]} & {q.key for q in made[other]}
        assert not {q.text for q in made[one]} & {q.text for q in made[other]}


def test_orderings_are_held_out_by_the_set_of_their_names(questions):
    def names(split):
        return {
            frozenset(re.findall(r"[A-Z][a-z]+", q.stem)) & set(questions.NAMES)
            for q in questions.generate(split, 800, 0)
            if q.template in {"ordering"}
        }

    assert not names("train") & names("test")


def test_bad_arguments_are_named(questions):
    with pytest.raises(ValueError, match="expected a split"):
        questions.generate("validation", 1, 0)
    with pytest.raises(ValueError, match="count"):
        questions.generate("train", -1, 0)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_answers_are_true(questions, split):
    made = questions.generate(split, 400, 5)
    assert [q.answer for q in made] == [solve(q.text) for q in made]
    assert all(len(set(q.options)) == len(q.options) for q in made)


def test_the_letters_of_the_answers_are_balanced(questions):
    made = questions.generate("train", 1200, 0)
    assert {len(q.options) for q in made} == {3}
    counts = [sum(q.answer == letter for q in made) for letter in "ABC"]
    assert sum(counts) == 1200
    assert max(counts) < 1.35 * min(counts)


def test_the_wanted_completion_earns_the_whole_base_reward(questions):
    from tars_rewards import TARSReward

    reward = TARSReward()
    for q in questions.generate("train", 100, 0):
        score = reward.base(q.completion, q.answer)
        assert score.correct
        assert score.format
        assert not reward.base(q.completion, "ABC"[("ABC".index(q.answer) + 1) % 3]).correct
