"""The reward server as ``--reward.remote_url`` of OpenRLHF without TARS."""

import asyncio
import json
import types

import pytest
from launch import HERE, run_openrlhf
from served import RIGHT, HeldScorer, Served
from serving import ServerProcess
from transformers import AutoTokenizer

from tars_rewards_openrlhf import cpu

cpu.install()
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator  # noqa: E402
from openrlhf.utils.agent import SingleTurnAgentExecutor  # noqa: E402

pytestmark = pytest.mark.openrlhf
PROMPT = "<|im_start|>user\nWhat is 2 plus 2?<|im_end|>\n<|im_start|>assistant\n"


def test_a_stock_executor_takes_the_reward(tiny):
    """The executor, HTTP client and experience of OpenRLHF itself; only the text that vLLM would sample is given."""
    tokenizer = AutoTokenizer.from_pretrained(tiny / "text")

    class Engine:
        async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
            tokens = tokenizer(f"{RIGHT}<|im_end|>", add_special_tokens=False)["input_ids"]
            output = types.SimpleNamespace(token_ids=tokens, logprobs=None, finish_reason="stop")
            return types.SimpleNamespace(outputs=[output])

    params = types.SimpleNamespace(max_tokens=50, logprobs=None)
    with Served(HeldScorer()) as server:
        executor = SingleTurnAgentExecutor([f"http://127.0.0.1:{server.port}/reward"])

        async def main():
            calls = [executor.execute(PROMPT, label, params, 400, tokenizer, Engine()) for label in ("4", "5")]
            return await asyncio.gather(*calls)

        right, wrong = asyncio.run(main())
    experiences = [SamplesGenerator._process_response_into_experience(None, each) for each in (right, wrong)]
    assert [each.rewards.item() for each in experiences] == [1.5, 0.5]
    assert [each.scores.item() for each in experiences] == [1.0, 0.0]
    assert [each.info["format"].item() for each in experiences] == [1.0, 1.0]


@pytest.mark.training
@pytest.mark.variant
def test_a_stock_training_is_rewarded_by_the_server(tiny, tmp_path):
    rows = [{"prompt": f"What is {a} plus {b}?", "label": str(a + b)} for a in range(4) for b in range(4)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ServerProcess(None) as server:
        overrides = {
            "data.label_key": "label",
            "reward.remote_url": f"{server.url}/reward",
            "algo.advantage.estimator": "group_norm",
            "tars.embedder": None,
        }
        run = run_openrlhf(
            tmp_path / "run",
            model=tiny / "text",
            data=tmp_path / "train.jsonl",
            overrides=overrides,
            program=[str(HERE / "stock.py")],
        ).check()
        judged = server.metric("tars_rewards_completions_total")
        failed = server.metric("tars_rewards_questions_failed_total")
    assert judged == 16  # 2 steps of 4 questions with 2 completions
    assert failed == 0
    for step in run.steps:
        # A model made at random says nothing that is right; that there is a reward is what stock OpenRLHF insists on.
        assert step["reward"] == step["correct"] + 0.5 * step["format"] == 0
    assert len(run.steps) == 2
