"""OpenRLHF's remote reward: what it sends is judged, and what comes back is what it reads."""

import json
import types

import pytest
from served import RIGHT, Served, error

from tars_rewards.server import ServerSettings
from tars_rewards.server.openrlhf import read_judgements, special_tokens
from tars_rewards.server.refusal import Refusal

PROMPT = "<|im_start|>user\nWhat is 2 plus 2?<|im_end|>\n<|im_start|>assistant\n"
SPECIAL = special_tokens(None, ServerSettings())
HEARD = PROMPT.replace("What", "<|audio_bos|><|AUDIO|><|audio_eos|>What")


def judged(query, prompt=PROMPT, label="4", settings=None, special=SPECIAL):
    body = json.dumps({"query": [query], "prompts": [prompt], "labels": [label]}).encode()
    (judgement,) = read_judgements(body, special, settings or ServerSettings())
    return judgement


def refusal(**body):
    body = {"query": [PROMPT + RIGHT], "prompts": [PROMPT], "labels": ["4"], **body}
    with pytest.raises(Refusal) as caught:
        read_judgements(json.dumps(body).encode(), SPECIAL, ServerSettings(max_completions=3, max_text_chars=500))
    return caught.value


@pytest.mark.parametrize(
    ("query", "prompt"),
    [
        (PROMPT + RIGHT + "<|im_end|>", PROMPT),
        (PROMPT + RIGHT, PROMPT),  # cut off, or stopped by a text
        (HEARD.replace("<|AUDIO|>", "<|AUDIO|>" * 25) + RIGHT + "<|im_end|>", HEARD),
        ("<s>[INST] 2+2? [/INST]" + RIGHT + "</s>", "[INST] 2+2? [/INST]"),
        ("<bos><start_of_turn>2+2?<end_of_turn>\n" + RIGHT + "<end_of_turn>", "<start_of_turn>2+2?<end_of_turn>\n"),
        ("<｜User｜>2+2?<｜Assistant｜>" + RIGHT + "<｜end▁of▁sentence｜>", "<｜User｜>2+2?<｜Assistant｜>"),
        (RIGHT + "<|endoftext|>", ""),
    ],
    ids=["Qwen", "no end", "audio", "Mistral", "Gemma", "DeepSeek", "no prompt"],
)
def test_the_completion_is_the_query_without_prompt_and_special_tokens(query, prompt):
    assert judged(query, prompt).completion == RIGHT


def test_a_completion_that_repeats_the_prompt_keeps_it():
    asked = "What is 2 plus 2?"
    assert judged(asked + asked + RIGHT, asked).completion == asked + RIGHT


def test_the_models_and_the_users_special_tokens_go_too():
    model = types.SimpleNamespace(processor=types.SimpleNamespace(all_special_tokens=["[END]"]))
    special = special_tokens(model, ServerSettings(special_tokens=("~~",)))
    assert judged(f"2+2?~~{RIGHT}[END]", "2+2?~~", special=special).completion == RIGHT
    assert judged(f"2+2?~~{RIGHT}[END]", "2+2?~~").completion == f"{RIGHT}[END]"


def test_tags_of_the_answer_are_no_special_tokens():
    assert judged(PROMPT + RIGHT + "<|im_end|>").completion.count("<") == 4


def test_a_number_is_a_label():
    assert judged(PROMPT + RIGHT, label=4).answer == "4"


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"labels": [None]}, "labels[0]", "--data.label_key"),
        ({"labels": [""]}, "labels[0]", "--data.label_key"),
        ({"labels": ["?!"]}, "labels[0]", "--data.label_key"),
        ({"labels": [{"ground_truth": "4"}]}, "labels[0]", "--data.label_key"),
        ({"labels": [True]}, "labels[0]", "--data.label_key"),
        ({"query": ["another text"]}, "query[0]", "begins with its prompt"),
        ({"query": [PROMPT[20:] + RIGHT]}, "query[0]", "--data.max_len"),
        ({"query": [5]}, "query[0]", "expected a text"),
        ({"prompts": [None]}, "prompts[0]", "expected a text"),
        ({"query": "a"}, "query", "expected a list"),
        ({"labels": []}, "query", "1 queries, 1 prompts and 0 labels"),
    ],
)
def test_what_cannot_be_judged_is_refused(changes, field, message):
    refused = refusal(**changes)
    assert (refused.status, refused.field) == (422, field)
    assert message in refused.message


def test_limits_hold():
    assert refusal(query=["q"] * 4, prompts=["q"] * 4, labels=["4"] * 4).status == 413
    assert refusal(query=[PROMPT + "x" * 501]).status == 413


def test_rewards_are_accuracy_and_format(scorer):
    scorer.go.set()
    completions = [RIGHT, "<answer>The answer is 4.</answer>", RIGHT.replace("4", "5"), "four"]
    body = {
        "query": [f"{PROMPT}{completion}<|im_end|>" for completion in completions],
        "prompts": [PROMPT] * 4,
        "labels": ["4"] * 4,
    }
    with Served(scorer) as server:
        answer = server.client.post("/reward", json=body)
        assert answer.json() == {
            "rewards": [1.5, 1.0, 0.5, 0.0],
            "scores": [1.0, 1.0, 0.0, 0.0],
            "extra_logs": {"correct": [1.0, 1.0, 0.0, 0.0], "format": [1.0, 0.0, 1.0, 0.0]},
        }
        assert server.metric("completions_total") == 4
        unjudged = server.client.post("/reward", json={**body, "labels": ["4", "4", None, "4"]})
        assert unjudged.status_code == 422
        assert error(unjudged)[:2] == ("invalid", "labels[2]")
    assert scorer.batches == []  # no model is asked
