"""What a step's gradient knows: against the gradients of gradients.py, and on made-up vectors."""

import pytest
import torch


def test_gradients_of_the_questions_add_up_to_the_policy_gradient(base, data, heard_cache, monkeypatch):
    import step_signal
    from gradients import policy_gradients
    from policies import load_policy, trained_parameters

    sampled, given = {}, []

    def recorded(*args, _stock=step_signal.sample, **settings):
        samples, rollouts = _stock(*args, **settings)
        sampled.update(samples)
        return samples, rollouts

    def recorded_advantages(rollouts, _stock=step_signal.advantages):
        given.append(_stock(rollouts))
        return given[-1]

    monkeypatch.setattr(step_signal, "sample", recorded)
    monkeypatch.setattr(step_signal, "advantages", recorded_advantages)
    found = step_signal.question_gradients(base, data=data, heard_cache=heard_cache, questions=4)
    assert {name: vectors.shape for name, vectors in found.items()} == dict.fromkeys(
        ("accuracy", "base", "representation", "centred", "behavior", "text"), (4, step_signal.COORDINATES)
    )

    thinker, processor = load_policy(base)
    questions = step_signal.read_table(data, "dev").head(4)
    audio = step_signal.heard(thinker, processor, step_signal.read_table(data, "dev"), heard_cache / "dev.safetensors")
    single = step_signal.make_prompts(thinker, processor, questions, audio[:4])  # with gradient, through their words
    prompts = [prompt for modality in ("speech", "text") for prompt in single[modality] for _ in range(4)]
    tokens = [ids for done in sampled.values() for ids in done.tokens]
    advantage, total = given[0], sum(map(len, tokens))
    zeros = torch.zeros_like(advantage["base"])
    spoken = torch.cat([torch.ones(len(zeros) // 2), torch.zeros(len(zeros) // 2)])
    representation = advantage["base"] + spoken * advantage["representation"]
    vectors, _ = policy_gradients(
        thinker,
        prompts,
        tokens,
        {
            "standard": advantage["base"],
            "representation": representation,
            "behavior": advantage["base"],
            "tars": representation,
        },
    )
    size = sum(parameter.numel() for parameter in trained_parameters(thinker).values())
    drawn = torch.randperm(size, generator=torch.Generator().manual_seed(0))[: step_signal.COORDINATES]
    expected = -total * vectors["standard"][drawn]
    summed = (found["base"] + found["text"]).sum(0).double()
    assert expected.norm() > 0
    assert float((summed - expected).norm() / expected.norm()) < 1e-3
    term = -total * (vectors["representation"] - vectors["standard"])[drawn]
    assert float((found["representation"].sum(0).double() - term).norm() / term.norm()) < 1e-3


def test_a_direction_that_all_questions_share_is_known_to_a_step():
    from step_signal import agreement

    generator = torch.Generator().manual_seed(0)
    shared, nothing = torch.ones(32, 500), torch.zeros(32, 500)
    noise = torch.randn(32, 500, generator=generator)
    vectors = {"accuracy": shared + noise, "base": noise, "text": nothing, "behavior": 10 * shared}
    found = agreement(vectors, {"without": {}, "with": {"behavior": 1.0}})
    assert abs(found["without"]["step"]) < 0.2  # the questions of a step are not those that say where accuracy rises
    assert found["with"]["step"] > 0.9
    assert found["with"]["half"] == pytest.approx(found["with"]["step"], abs=0.05)


def test_the_table_has_a_row_for_each_reward():
    from step_signal import REWARDS, table

    rows = table({"natural": {name: {"step": 0.0123, "half": -0.5} for name in REWARDS}}).splitlines()
    assert rows[0].count("|") == rows[1].count("|") == 4
    assert len(rows) == 2 + len(REWARDS)
    assert rows[2] == "| standard RL | 0.012 | -0.500 |"
