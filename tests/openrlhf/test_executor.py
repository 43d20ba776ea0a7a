"""One completion: what vLLM gets, what comes back, and which errors surface."""

import asyncio
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from embedding_server import EmbeddingServer, Reply
from transformers import AutoTokenizer

from tars_rewards.config import TARSConfig
from tars_rewards.errors import AdapterError, EmbedderFailedError, EmbedderFailureWarning
from tars_rewards.reward import TARSReward
from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO
from tars_rewards.speech.processors import load_processor
from tars_rewards_openrlhf import cpu
from tars_rewards_openrlhf.label import Label

cpu.install()
from tars_rewards_openrlhf.executor import TARSExecutor, user_score  # noqa: E402  (imports OpenRLHF)

FAMILIES = {"qwen2_audio": QWEN2_AUDIO, "qwen2_5_omni": QWEN2_5_OMNI}
SPOKEN = "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>2<|im_end|>\n"
ANSWER = "<think>so</think><answer>The answer is 4.</answer>"


class Engine:
    """Completes every prompt with one text; expands placeholders as told."""

    def __init__(self, tokenizer, *, expand=lambda ids: ids, text=ANSWER, finish="stop"):
        self.tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        self.expand, self.finish, self.calls = expand, finish, []

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        self.calls.append((prompt_token_ids, sampling_params, multi_modal_data))
        await asyncio.sleep(0)
        log_probs = [{token: types.SimpleNamespace(logprob=-0.5)} for token in self.tokens]
        output = types.SimpleNamespace(token_ids=self.tokens, logprobs=log_probs, finish_reason=self.finish)
        return types.SimpleNamespace(prompt_token_ids=self.expand(prompt_token_ids), outputs=[output])


class Embedder:
    max_tokens = float("inf")

    def __init__(self):
        self.calls = []

    def encode(self, texts):
        self.calls.append(list(texts))
        return np.ones((len(texts), 3))


def params(max_tokens=None):
    return types.SimpleNamespace(max_tokens=max_tokens, logprobs=None, logit_bias=None)


def execute(executor, tokenizer, engine, *, prompt="<|im_start|>2<|im_end|>\n", modality="text", clips=None, samples=1,
            max_length=160, validation=False, answer="4", max_tokens=None):  # fmt: skip
    label = Label("q1", modality, answer, validation=validation).dump()

    async def main():
        calls = [
            executor.execute(prompt, label, params(max_tokens), max_length, tokenizer, engine, images=clips)
            for _ in range(samples)
        ]
        return await asyncio.gather(*calls)

    return asyncio.run(main())


@pytest.fixture
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny / "text")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_spoken_prompt_reaches_vllm_with_its_audio_and_the_actor_with_its_features(tiny, name):
    processor = load_processor(str(tiny / name), FAMILIES[name])
    clip = sorted((tiny / "clips").iterdir())[0]
    placeholder = processor.placeholder_id()
    expanded = processor(text=[SPOKEN], audio=[str(clip)], return_tensors="np")["input_ids"][0].tolist()
    engine = Engine(processor.tokenizer, expand=lambda ids: expanded)
    executor = TARSExecutor(TARSReward(TARSConfig(beta=0)), processor=processor)
    (result,) = execute(executor, processor, engine, prompt=SPOKEN, modality="speech", clips=[str(clip)])
    (sent, sampling, media), = engine.calls  # fmt: skip
    assert sent.count(placeholder) == 1
    assert expanded.count(placeholder) == 12
    assert media["audio"][0][0].shape == (8000,)
    assert set(sampling.logit_bias) == set(processor.never_sampled())
    assert sampling.logprobs == 1
    assert result["observation_tokens"] == expanded + engine.tokens
    assert result["action_ranges"] == [(len(expanded), len(expanded) + len(engine.tokens))]
    assert result["rollout_log_probs"] == [0.0] * len(expanded) + [-0.5] * len(engine.tokens)
    features = processor.features([str(clip)])
    for feature, value in features.items():
        assert torch.equal(result["mm_train_inputs"][feature], value)


def test_a_prompt_that_vllm_reads_otherwise_stops_the_run(tiny):
    processor = load_processor(str(tiny / "qwen2_5_omni"), QWEN2_5_OMNI)
    engine = Engine(processor.tokenizer)  # does not expand
    executor = TARSExecutor(TARSReward(TARSConfig(beta=0)), processor=processor)
    clip = str(sorted((tiny / "clips").iterdir())[0])
    with pytest.raises(AdapterError, match=r"pair 'q1', speech: vLLM read a prompt of .* tokens, the processor's has"):
        execute(executor, processor, engine, prompt=SPOKEN, modality="speech", clips=[clip])


def test_the_base_reward_is_accuracy_and_format_and_truncation_costs_the_format(tokenizer):
    executor = TARSExecutor(TARSReward(TARSConfig(beta=0)), processor=None)
    (whole,) = execute(executor, tokenizer, Engine(tokenizer))
    (cut,) = execute(executor, tokenizer, Engine(tokenizer, finish="length"))
    assert (whole["reward"], whole["scores"], whole["truncated"]) == (1.5, 1.0, False)
    assert (cut["reward"], cut["scores"], cut["truncated"]) == (1.0, 1.0, True)
    assert whole["tars"] == {"correct": True, "format": True}


def test_samples_of_a_prompt_are_read_once_and_embedded_while_others_generate(tokenizer):
    embedder = Embedder()
    executor = TARSExecutor(TARSReward(embedder=embedder), processor=None)
    results = execute(executor, tokenizer, Engine(tokenizer), samples=4)
    assert len(executor._prompts) == 1
    assert all(result["tars"]["embedding"].tolist() == [1, 1, 1] for result in results)
    assert all(result["tars"]["over_window"] is False for result in results)
    assert all(0 <= result["tars"]["embedding_seconds"] < 60 for result in results)
    assert embedder.calls == [[ANSWER]]
    (validated,) = execute(executor, tokenizer, Engine(tokenizer), validation=True)
    assert "embedding" not in validated["tars"]


def test_what_is_never_compared_is_not_embedded(tokenizer):
    embedder = Embedder()
    executor = TARSExecutor(TARSReward(embedder=embedder), processor=None)
    (wrong,) = execute(executor, tokenizer, Engine(tokenizer), modality="text", answer="5")
    assert wrong["tars"]["embedding"].tolist() == [0]
    assert not embedder.calls
    execute(executor, tokenizer, Engine(tokenizer), modality="speech", answer="5")
    assert embedder.calls == [[ANSWER]]


def test_a_window_that_is_not_told_is_not_called_zero(tokenizer):
    embedder = Embedder()
    embedder.max_tokens = None
    with pytest.warns(UserWarning, match="does not tell its window"):
        (result,) = execute(TARSExecutor(TARSReward(embedder=embedder), processor=None), tokenizer, Engine(tokenizer))
    assert np.isnan(result["tars"]["over_window"])


def test_an_embedder_that_fails_stops_the_run_or_is_noted(tokenizer):
    with EmbeddingServer(always=Reply(401)) as server:
        stop = TARSConfig(embedder="m", embedder_url=server.url)
        with pytest.raises(EmbedderFailedError, match="status 401"):
            execute(TARSExecutor(TARSReward(stop), processor=None), tokenizer, Engine(tokenizer))
        invalid = replace(stop, on_embedder_failure="invalid")
        executor = TARSExecutor(TARSReward(invalid), processor=None)
        with pytest.warns(EmbedderFailureWarning, match="status 401"):
            results = execute(executor, tokenizer, Engine(tokenizer), samples=4)
        results += execute(executor, tokenizer, Engine(tokenizer, text="another"), modality="speech")
    assert len(server.requests) == 2  # the dead endpoint is not waited for by every completion
    assert [result["reward"] for result in results] == [1.5] * 4 + [0.0]
    for result in results:
        scores = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in result["tars"].items()}
        assert scores["embedder_failed"] == 1
        assert scores["embedding"].tolist() == [0]


def test_a_prompt_that_leaves_no_room_is_not_cut(tokenizer):
    executor = TARSExecutor(TARSReward(TARSConfig(beta=0)), processor=None)
    with pytest.raises(
        AdapterError, match=r"pair 'q1', text: a prompt of \d+ tokens leaves no room for 12.*--data.max_len"
    ):
        execute(executor, tokenizer, Engine(tokenizer), max_length=14, max_tokens=12)


def test_a_failing_reward_function_fails_the_completion_with_its_own_error(tokenizer, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def reward_func(queries, prompts, labels):\n    raise KeyError(labels[0]['rubric'])\n")
    executor = TARSExecutor(TARSReward(TARSConfig(beta=0)), processor=None, endpoints=[str(file)])
    with pytest.raises(KeyError, match="harsh"):
        execute(executor, tokenizer, Engine(tokenizer), answer={"rubric": "harsh"})


def test_a_users_reward_function_gives_the_base_reward(tokenizer, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def reward_func(queries, prompts, labels):\n"
        "    assert queries[0].startswith(prompts[0]) and labels == ['gold']\n"
        "    return {'rewards': 0.75, 'scores': 1.0, 'extra_logs': {'mine': 3}}\n"
    )
    executor = TARSExecutor(TARSReward(TARSConfig(beta=0)), processor=None, endpoints=[str(file)])
    (result,) = execute(executor, tokenizer, Engine(tokenizer), answer="gold")
    assert (result["reward"], result["scores"], result["extra_logs"]) == (0.75, 1.0, {"mine": 3})
    assert result["tars"] == {"correct": True, "format": True}


def test_a_reward_server_is_asked_with_the_users_own_label(tokenizer):
    import json
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps({"rewards": [0.5], "scores": [1.0]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/reward"
        executor = TARSExecutor(TARSReward(TARSConfig(beta=0)), processor=None, endpoints=[url])
        (result,) = execute(executor, tokenizer, Engine(tokenizer), answer=["gold"])
        server.shutdown()
    assert asked[0]["labels"] == [["gold"]]
    assert asked[0]["query"][0].startswith(asked[0]["prompts"][0])
    assert (result["reward"], result["tars"]["correct"]) == (0.5, True)


@pytest.mark.parametrize(
    ("returned", "correct", "reward"),
    [
        ({"rewards": 1.5}, True, 1.5),
        ({"rewards": 0.5}, False, 0.5),
        ({"rewards": torch.tensor([2.0]), "scores": torch.tensor([0.0])}, False, 2.0),
        ({"rewards": [0.1], "scores": 1}, True, 0.1),
        ({"rewards": 0.0, "extra_logs": {"correct": 1}}, True, 0.0),
        ({"rewards": 3.0, "extra_logs": {"correct": False}}, False, 3.0),
    ],
)
def test_what_a_reward_function_may_return(returned, correct, reward):
    score, _ = user_score(returned, False)
    assert (score.correct, score.reward) == (correct, pytest.approx(reward))


@pytest.mark.parametrize("returned", [None, 1.0, {}, {"rewards": "high"}, {"rewards": float("nan")}, {"rewards": []}])
def test_what_it_may_not_return_is_shown(returned):
    with pytest.raises(AdapterError, match="reward function"):
        user_score(returned, False)
