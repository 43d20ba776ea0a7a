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
    from step_signal import STANDARD, agreement

    generator = torch.Generator().manual_seed(0)
    shared, nothing = torch.ones(64, 500), torch.zeros(64, 500)
    noise = torch.randn(64, 500, generator=generator)
    vectors = {"accuracy": shared + noise, "base": noise, "text": nothing, "behavior": 10 * shared}
    found = agreement(vectors, {STANDARD: {}, "with": {"behavior": 1.0}}, many=32)
    assert abs(found[STANDARD]["step"]) < 0.2  # of a question with itself it is 0.7
    assert found["with"]["step"] > 0.9
    assert found["with"]["many"] == pytest.approx(found["with"]["step"], abs=0.05)
    assert found["with"]["difference"] > 10 * found["with"]["difference_error"] > 0
    assert found[STANDARD]["difference"] == found[STANDARD]["difference_error"] == 0


def test_the_cosine_is_of_different_questions_and_its_error_of_leaving_one_out():
    from step_signal import STANDARD, agreement

    generator = torch.Generator().manual_seed(1)
    made = {
        name: torch.randn(12, 40, generator=generator, dtype=torch.float64) + 0.5
        for name in ("accuracy", "base", "term")
    }
    vectors, rewards = made | {"text": torch.zeros(12, 40)}, {STANDARD: {}, "term (2)": {"term": 2.0}}

    def cosine(rows, step):
        accuracy, gradient = made["accuracy"][rows], (made["base"] + 2 * made["term"])[rows]
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]

        def squared(of, size):
            different = sum(float(of[i] @ of[j]) for i, j in pairs) / len(pairs)
            return sum(float(each @ each) for each in of) / len(of) / size + (1 - 1 / size) * different

        product = sum(float(accuracy[i] @ gradient[j]) for i, j in pairs) / len(pairs)
        return product / (squared(accuracy, 5) * squared(gradient, step)) ** 0.5

    found = agreement(vectors, rewards, step=3, many=5)["term (2)"]
    assert found["step"] == pytest.approx(cosine(list(range(12)), 3))
    assert found["many"] == pytest.approx(cosine(list(range(12)), 5))
    left_out = torch.tensor([cosine([row for row in range(12) if row != out], 3) for out in range(12)])
    error = float(((left_out - left_out.mean()) ** 2).sum() * 11 / 12) ** 0.5
    assert found["step_error"] == pytest.approx(error, rel=1e-4)


def test_the_table_has_a_row_for_each_reward():
    from step_signal import REWARDS, table

    values = {
        "step": 0.0123,
        "step_error": 0.001,
        "many": -0.5,
        "many_error": 0.02,
        "difference": 0.1,
        "difference_error": 0.03,
    }
    rows = table({"natural": dict.fromkeys(REWARDS, values)}).splitlines()
    assert rows[0].count("|") == rows[1].count("|") == 5
    assert len(rows) == 2 + len(REWARDS)
    assert rows[2] == "| standard RL | .012 ± .001 | -.500 ± .020 |  |"
    assert rows[3] == "| TARS (1, 1) | .012 ± .001 | -.500 ± .020 | +.100 ± .030 |"
