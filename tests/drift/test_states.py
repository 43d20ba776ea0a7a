"""Forced states against stock Hugging Face forwards with `output_hidden_states`."""

import pytest
import torch

from tars_rewards.drift.states import Forcing, force
from tars_rewards.speech.waveform import load_waveform

COMPLETION = "<think>2+2</think><answer>The answer is 4.</answer>"


def stock_states(speech_model, question, *, spoken):
    """States [layers, tokens, hidden] of the completion by the checkpoint's own processor, one row, no hooks."""
    processor, model = speech_model.processor, speech_model.model
    content = [{"type": "audio", "audio": "x"}] if spoken else [{"type": "text", "text": question.prompt}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    audio = [load_waveform(question.audio)] if spoken else None
    start = processor(text=[prompt], audio=audio, return_tensors="pt")["input_ids"].shape[1]
    inputs = processor(text=[prompt + COMPLETION + "<|im_end|>"], audio=audio, return_tensors="pt")
    if hasattr(model, "rope_deltas"):
        model.rope_deltas = None
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    # Hugging Face gives the last layer behind the norm, so it is left out here.
    return torch.stack([each[0, start:] for each in states[1:-1]])


@pytest.fixture
def forcings(speech_model, questions):
    tokens = (*speech_model.tokenize(COMPLETION), speech_model.end_of_turn)
    spoken = [speech_model.prompt(question=None, media=question.audio) for question in questions[:3]]
    written = [speech_model.prompt(question=question.prompt, media=None) for question in questions[:3]]
    return [Forcing((written[i], spoken[i], spoken[(i + 1) % 3]), tokens) for i in range(3)]


def test_states_are_those_of_stock_forwards(speech_model, questions, forcings):
    for index, found in enumerate(force(speech_model, forcings)):
        written = stock_states(speech_model, questions[index], spoken=False)
        spoken = stock_states(speech_model, questions[index], spoken=True)
        other = stock_states(speech_model, questions[(index + 1) % 3], spoken=True)
        for place, states in enumerate((written, spoken, other)):
            torch.testing.assert_close(found.pooled[place, :-1], states.mean(1), atol=2e-5, rtol=1e-5)
        for place, states in enumerate((spoken, other)):
            expected = torch.nn.functional.cosine_similarity(written, states, dim=-1).T
            torch.testing.assert_close(found.cosine[place, :, :-1], expected, atol=2e-5, rtol=0)
        assert found.cosine.shape == (2, len(forcings[index].tokens), len(speech_model.layers))
        # The two comparisons are different ones, or the test could not tell them apart.
        assert (found.cosine[0] - found.cosine[1]).abs().max() > 1e-3


def test_means_are_subtracted_by_prompt_and_layer(speech_model, questions, forcings):
    means = torch.randn(3, len(speech_model.layers), 128, generator=torch.Generator().manual_seed(0))
    found = force(speech_model, forcings[:1], means)[0]
    written = stock_states(speech_model, questions[0], spoken=False)
    for place, question in ((1, questions[0]), (2, questions[1])):
        spoken = stock_states(speech_model, question, spoken=True)
        left, right = written - means[0, :-1, None], spoken - means[place, :-1, None]
        expected = torch.nn.functional.cosine_similarity(left, right, dim=-1).T
        torch.testing.assert_close(found.cosine[place - 1, :, :-1], expected, atol=2e-5, rtol=0)
    # Pooled states stay as they are.
    torch.testing.assert_close(found.pooled, force(speech_model, forcings[:1])[0].pooled)


def test_a_completion_does_not_depend_on_those_beside_it(speech_model, forcings):
    longer = Forcing(forcings[1].prompts, forcings[1].tokens * 2)
    together = force(speech_model, [forcings[0], longer, forcings[2]])
    for index in (0, 2):
        alone = force(speech_model, [forcings[index]])[0]
        torch.testing.assert_close(together[index].pooled, alone.pooled, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(together[index].cosine, alone.cosine, atol=2e-5, rtol=0)


def test_no_hook_is_left_behind(speech_model, forcings):
    modules = [*speech_model.layers, speech_model.model.get_output_embeddings()]

    def hooks():  # transformers has some of its own
        return [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in modules]

    before = hooks()
    force(speech_model, forcings[:1])
    with pytest.raises(RuntimeError, match="size of tensor"):
        force(speech_model, forcings[:1], torch.zeros(3, len(speech_model.layers), 7))
    assert hooks() == before


def test_states_of_zero_have_no_cosine(speech_model, forcings):
    handle = speech_model.layers[1].register_forward_hook(
        lambda module, inputs, output: (
            (torch.zeros_like(output[0]),) if isinstance(output, tuple) else torch.zeros_like(output)
        )
    )
    try:
        found = force(speech_model, forcings[:1])[0]
    finally:
        handle.remove()
    assert found.cosine[:, :, 1].isnan().all()
    assert not found.cosine[:, :, 0].isnan().any()
