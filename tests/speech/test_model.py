"""Every family through SpeechModel, against Hugging Face models and processors that know nothing of it."""

import gc

import pytest
import torch
import transformers
from tiny_registry import media, reference, with_completion
from torch.nn import Conv1d, Conv2d

from tars_rewards.capture import capture_hidden_states
from tars_rewards.errors import AdapterError
from tars_rewards.speech.families import find_family
from tars_rewards.speech.memo import ENCODED

QUESTION = "What is 2 plus 2?"
INSTRUCTION = "Answer with a number."
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def speech(tiny_family):
    return tiny_family.speech


@pytest.fixture
def heard(tiny_family):
    """Gives a prompt with a clip or an image."""

    def prompt(seed, **kwargs):
        given = media(tiny_family.module, seed)
        return tiny_family.speech.prompt(question=None, media=given, instruction=INSTRUCTION, **kwargs)

    return prompt


@pytest.fixture
def read(speech):
    return speech.prompt(question=QUESTION, media=None, instruction=INSTRUCTION)


def completions(speech):
    texts = ("<think>2+2</think><answer>The answer is 4.</answer>", "Four.", "It is 4, I believe.")
    return [[*speech.tokenize(text), speech.end_of_turn] for text in texts]


@torch.no_grad()
def scored(speech, prompts, tokens, padding):
    """Per row: log-probs of the completion's tokens, and pooled states of every layer."""
    batch = speech.batch(prompts, tokens, padding=padding)
    mask = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    for row, completion in enumerate(tokens):
        end = int(batch["attention_mask"][row].nonzero().max()) + 1
        mask[row, end - len(completion) : end] = True
    with capture_hidden_states(speech.model, mask, layers=speech.layers) as captured:
        log_probs = speech.model(**batch).logits.log_softmax(dim=-1)
    rows = []
    for row, completion in enumerate(tokens):
        before = log_probs[row, :-1][mask[row, 1:]]
        rows.append((before[range(len(completion)), completion], captured.pooled[row]))
    return rows


def assert_same(ours, theirs):
    for (log_probs, states), (other_log_probs, other_states) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(log_probs, other_log_probs, **CLOSE)
        torch.testing.assert_close(states, other_states, **CLOSE)


def encoder_calls(tiny_family):
    """Counts how often convolutions outside the text decoder's layers run: every encoder has some."""
    calls = []
    model = tiny_family.speech.model
    layers = model.get_submodule(tiny_family.speech.family.decoder).layers
    parts = [each for each in set(model.modules()) - set(layers.modules()) if isinstance(each, Conv1d | Conv2d)]
    if hasattr(tiny_family.module, "ENCODER"):
        parts = [model.get_submodule(tiny_family.module.ENCODER)]
    for part in parts:
        part.register_forward_hook(lambda *_: calls.append(None))
    return calls


def test_what_is_loaded(tiny_family):
    speech = tiny_family.speech
    assert speech.family is find_family(tiny_family.module.MODEL_TYPE)
    assert (speech.device.type, speech.dtype, speech.model.training) == ("cpu", torch.float32, False)
    assert len(speech.layers) == speech.model.config.get_text_config().num_hidden_layers
    assert speech.end_of_turn in speech.stop_ids
    assert speech.processor.tokenizer.eos_token_id in speech.stop_ids
    assert not speech.stop_ids & set(speech.never_sampled)
    assert speech.family.placeholder_id(speech.processor) in speech.never_sampled


def test_prompts_are_those_of_the_checkpoints_own_template(tiny_family, heard, read):
    plain = reference(tiny_family.module, tiny_family.directory, INSTRUCTION, media(tiny_family.module, 1))
    assert list(heard(1).token_ids) == plain["input_ids"][0].tolist()
    plain = reference(tiny_family.module, tiny_family.directory, f"{QUESTION}\n{INSTRUCTION}", None)
    assert list(read.token_ids) == plain["input_ids"][0].tolist()


def test_a_system_turn_goes_before(tiny_family, heard):
    words = "Be brief."
    if not getattr(tiny_family.module, "SYSTEM_TURN", True):
        with pytest.raises(AdapterError, match="give its text as the instruction"):
            heard(0, system=words)
        return
    with_turn = tiny_family.speech.processor.tokenizer.decode(list(heard(0, system=words).token_ids))
    without = tiny_family.speech.processor.tokenizer.decode(list(heard(0).token_ids))
    assert words in with_turn
    assert words not in without
    assert with_turn.index(words) < with_turn.index(INSTRUCTION)


def test_states_and_log_probs_are_those_of_a_plain_forward(tiny_family, heard, read):
    speech, module = tiny_family.speech, tiny_family.module
    plain = getattr(transformers, speech.family.model_class).from_pretrained(tiny_family.directory).eval()
    tokens = completions(speech)[:2]
    last = []
    plain.get_submodule(speech.family.decoder).norm.register_forward_pre_hook(lambda _, args: last.append(args[0]))
    expected = []
    for text, given, completion in (
        (INSTRUCTION, media(module, 1), tokens[0]),
        (f"{QUESTION}\n{INSTRUCTION}", None, tokens[1]),
    ):
        inputs = with_completion(reference(module, tiny_family.directory, text, given), completion)
        if hasattr(module, "prepare"):
            module.prepare(plain, tiny_family.directory, given is not None)
        with torch.no_grad():
            output = plain(**inputs, output_hidden_states=True)
        log_probs = output.logits.log_softmax(dim=-1)[0, -len(completion) - 1 : -1]
        layers = [*output.hidden_states[1:-1], last[-1]]  # Hugging Face gives the last one behind the final norm
        if hasattr(module, "states"):
            layers = module.states(output.hidden_states)
        states = torch.stack([layer[0, -len(completion) :].mean(dim=0) for layer in layers])
        expected.append((log_probs[range(len(completion)), completion], states))
    assert_same(scored(speech, [heard(1), read], tokens, "right"), expected)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_padded_batch_is_its_rows(speech, heard, read, padding):
    prompts, tokens = [heard(0), read, heard(1)], completions(speech)
    single = [scored(speech, [prompt], [row], "right")[0] for prompt, row in zip(prompts, tokens, strict=True)]
    assert_same(scored(speech, prompts, tokens, padding), single)
    turned = scored(speech, prompts[::-1], tokens[::-1], padding)
    assert_same(turned[::-1], single)


def test_what_is_heard_moves_the_states_and_what_is_read_does_not_hear(speech, heard, read):
    tokens = completions(speech)[:1] * 2
    first, beside_first = scored(speech, [heard(0), read], tokens, "right")
    second, beside_second = scored(speech, [heard(1), read], tokens, "right")
    assert ((first[1] - second[1]).norm(dim=-1) > 1e-2 * first[1].norm(dim=-1)).all()
    assert_same([beside_first], [beside_second])
    placeholder = speech.family.placeholder_id(speech.processor)
    assert not read.features
    assert placeholder not in read.token_ids
    assert set(speech.batch([read], tokens[:1], padding="right")) <= {
        "input_ids",
        "attention_mask",
        "position_ids",
        *speech.family.token_inputs,
    }


def test_a_clip_is_encoded_once_for_each_prompt(tiny_family, heard, read):
    speech = tiny_family.speech
    calls, tokens = encoder_calls(tiny_family), completions(speech)
    prompt = heard(0)
    scored(speech, [read], tokens[:1], "right")
    assert not calls
    scored(speech, [prompt, read, prompt], tokens, "right")
    once = len(calls)
    assert once
    scored(speech, [prompt, prompt, read], tokens, "left")
    speech.model.generate(**speech.batch([prompt, prompt], padding="left"), max_new_tokens=2, do_sample=False)
    assert len(calls) == once
    scored(speech, [heard(0)], tokens[:1], "right")
    assert len(calls) == 2 * once
    before = scored(speech, [prompt], tokens[:1], "right")
    speech.forget()
    assert_same(scored(speech, [prompt], tokens[:1], "right"), before)
    assert len(calls) == 3 * once


def test_what_is_kept_goes_with_the_prompt_or_when_told(speech, heard):
    speech.forget()
    prompts = [heard(0), heard(1)]
    speech.batch(prompts, padding="right")
    assert len(speech._memo) == 2
    del prompts[0]
    gc.collect()
    assert len(speech._memo) == 1
    speech.forget()
    assert len(speech._memo) == 0


def test_batches_may_be_prepared_before_they_are_run(speech, heard):
    prompts, tokens = [heard(0), heard(1)], completions(speech)[:1]
    batches = [speech.batch([prompt], tokens, padding="right") for prompt in prompts]
    speech.forget()
    with torch.no_grad():
        early = [speech.model(**batch).logits for batch in batches]
        late = [speech.model(**speech.batch([prompt], tokens, padding="right")).logits for prompt in prompts]
    for one, other in zip(early, late, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_generation_is_the_same_alone_and_leaves_nothing_behind(speech, heard, read):
    prompts, tokens = [heard(0), read, heard(1)], completions(speech)
    before = scored(speech, prompts, tokens, "right")
    kwargs = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [*speech.never_sampled, *speech.stop_ids]}
    together = speech.model.generate(**speech.batch(prompts, padding="left"), **kwargs)[:, -6:]
    assert_same(scored(speech, prompts, tokens, "right"), before)
    for row, prompt in enumerate(prompts):
        alone = speech.model.generate(**speech.batch([prompt], padding="left"), **kwargs)[0, -6:]
        assert together[row].tolist() == alone.tolist()


def test_generation_ends_with_the_turn_and_never_with_a_placeholder(speech, heard):
    wanted = [speech.never_sampled]
    head = speech.model.get_output_embeddings()
    hook = head.register_forward_hook(
        lambda _, __, logits: logits.index_add(
            -1, torch.tensor(wanted[0]), torch.full((*logits.shape[:-1], len(wanted[0])), 1e4)
        )
    )
    try:
        inputs = {**speech.batch([heard(0)], padding="left"), "max_new_tokens": 4, "do_sample": False}
        length = inputs["input_ids"].shape[1]
        assert set(speech.model.generate(**inputs)[0, length:].tolist()) <= set(speech.never_sampled)
        allowed = speech.model.generate(**inputs, suppress_tokens=speech.never_sampled)[0, length:].tolist()
        assert not set(allowed) & set(speech.never_sampled)
        wanted[0] = [speech.end_of_turn]
        assert speech.model.generate(**inputs)[0, length:].tolist() == [speech.end_of_turn]
    finally:
        hook.remove()


@pytest.mark.parametrize(
    "text", ["", " two  spaces\n\nand lines\t", "Ünïcödé 漢字 🎧", "<answer>{eos}</answer>", "a,b .c 'd"]
)
def test_a_completion_is_read_back_as_it_was_written(speech, text):
    text = text.format(eos=speech.processor.tokenizer.eos_token)
    tokens = speech.tokenize(text)
    assert speech.detokenize(tokens) == text
    assert not speech.stop_ids & set(tokens)
    assert speech.detokenize([*tokens, speech.end_of_turn]) == text


def test_written_batches_bring_no_encoded_media(speech, heard, read):
    assert ENCODED not in speech.batch([read], padding="left")
    assert ENCODED in speech.batch([read, heard(0)], padding="left")
