"""The three base models: what is committed, what their recipes teach."""

from dataclasses import replace

import pytest
import torch

NAMES = ("natural", "constructed", "ordinary")


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    """The model directory of each base."""
    import bases

    directories = {name: tmp_path_factory.mktemp(name) for name in NAMES}
    for name, directory in directories.items():
        bases.assemble(name, directory)
    return directories


@pytest.fixture(scope="module")
def loaded(assembled):
    import model

    return {name: model.load(directory) for name, directory in assembled.items()}


def test_there_are_three_and_another_is_refused(tmp_path):
    import bases

    assert {*bases.RECIPES, bases.ORDINARY} == set(NAMES)
    with pytest.raises(ValueError, match="expected a base of"):
        bases.assemble("demo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_they_differ_in_what_is_trained_and_in_nothing_else(loaded):
    import model

    states = [loaded[name][0].state_dict() for name in NAMES]
    trained = model.trained_parameters(loaded["natural"][0]).keys()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        for name in states[one]:
            # The tower's embedding of its two marks gets no gradient: prompts have the marks as tokens.
            if name != "audio_tower.audio_bos_eos_token.weight":
                assert torch.equal(states[one][name], states[other][name]) is (name not in trained), name


def test_the_committed_parts_are_small():
    import bases

    assert all(bases.trained_file(name).stat().st_size < 3e6 for name in NAMES)


def test_they_have_seeds_of_their_own_and_one_tokenizer(assembled):
    import bases

    seeds = [recipe.seed for recipe in bases.RECIPES.values()]
    assert len({0, *seeds}) == len(NAMES)  # 0: the demo's
    assert bases.STARTS_FROM == {"constructed": bases.ORDINARY}
    assert len({(directory / "tokenizer.json").read_bytes() for directory in assembled.values()}) == 1


def spoken_answers(processor, recipe):
    from questions import generate
    from recipe import spoken_examples

    clips = [(question, torch.zeros(1, 384)) for question in generate("train", 240, 0)]
    transcribed, answered = spoken_examples(processor, recipe, clips)
    assert [example.completion for example in transcribed] == [question.text for question, _ in clips]
    return answered


def test_what_the_recipes_teach_to_answer_what_is_heard(loaded):
    import bases
    from describe_bases import reasons

    from tars_rewards import TARSReward

    processor = loaded["natural"][1]
    answered = {name: spoken_answers(processor, recipe) for name, recipe in bases.RECIPES.items()}
    assert len(answered["natural"]) == len(answered["constructed"]) == 240
    assert all(reasons(example.completion) for example in answered["natural"])
    assert sum(reasons(example.completion) for example in answered["constructed"]) == 12
    base = TARSReward().base
    for direct, whole in zip(answered["constructed"], answered["natural"], strict=True):
        letter = whole.completion.split("The answer is ")[1][0]
        score = base(direct.completion, letter)
        assert score.correct
        assert score.format


def test_the_answers_without_reasoning_are_evenly_spread_over_the_templates(loaded):
    import bases
    from describe_bases import reasons

    recipe = replace(bases.RECIPES["constructed"], direct_share=0.5)
    kinds = [reasons(example.completion) for example in spoken_answers(loaded["natural"][1], recipe)]
    assert {sum(kinds[template::3]) for template in range(3)} == {40}


def test_the_think_block_says_whether_an_answer_reasons():
    from describe_bases import reasons

    assert reasons("<think>one two three four five</think><answer>The answer is A.</answer>")
    assert not reasons("<think>one two three four</think><answer>The answer is A.</answer>")
    assert not reasons("<think></think><answer>The answer is A, said one of the five.</answer>")
    assert not reasons("one two three four five")
