"""A checkpoint as the policy that verl trains."""

import torch


def test_what_is_trained_is_what_verls_adapter_trains(base):
    import policies
    from model import load

    from tars_rewards.speech.families import QWEN2_5_OMNI
    from tars_rewards.speech.policy import prepare_model

    thinker, processor = load(base)
    prepare_model(thinker, QWEN2_5_OMNI, never_sampled=QWEN2_5_OMNI.never_sampled(processor), frozen=True)
    expected = {name for name, parameter in thinker.named_parameters() if parameter.requires_grad}
    policy, _ = policies.load_policy(base)
    assert set(policies.trained_parameters(policy)) == expected
    assert {name.split(".")[0] for name in expected} == {"model", "lm_head"}  # not the projector

    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(policy(input_ids=ids).logits, thinker(input_ids=ids).logits)
    probabilities = policy(input_ids=ids).logits.softmax(-1)
    assert probabilities[..., QWEN2_5_OMNI.never_sampled(processor)].max() == 0


def test_logits_of_completions_are_those_of_each_by_itself(base):
    from inference import embed
    from policies import completion_logits, load_policy

    policy, processor = load_policy(base)
    prompts, completions = ["Hello", "one two three four", "so"], [[7, 8, 9], [10], [11, 12, 13, 14, 15]]
    with torch.no_grad():
        together = completion_logits(policy, [embed(policy, processor, text) for text in prompts], completions)
        alone = []
        for text, tokens in zip(prompts, completions, strict=True):
            ids = processor.tokenizer(text).input_ids + tokens
            alone.append(policy(input_ids=torch.tensor([ids])).logits[0, -len(tokens) - 1 : -1])
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_one_thread_is_given_back():
    from policies import one_thread

    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
