"""verl's training worker on two ranks against one process: the same rows, the same states, rewards and updates."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from truth import rounding
from verl.workers.config.model import HFModelConfig

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.protocol import BaseScore
from tars_rewards.transport import PackedStates
from tars_rewards_verl.batch import POOLED, POOLED_SIDE
from tars_rewards_verl.cpu.attention import NAME as FLASH

QUESTIONS, SAMPLES, MICRO = 2, 3, 3
LENGTHS = [(3, 14), (6, 12), (2, 15), (9, 11), (4, 17), (5, 7), (3, 13), (8, 16), (6, 9), (2, 12), (7, 3), (5, 18)]
SP = {"sp": 2, "attention": FLASH}
# Each against the single-process case named; all packed unless said otherwise.
CASES = {
    "fsdp2": {"one": "text", "update": True},
    "padded": {"one": "text", "packed": False, "update": True},
    "varlen": {"one": "text", "attention": FLASH, "update": True},
    "checkpointed": {"one": "text", "checkpointing": True, "update": True},
    "dynamic": {"one": "text", "dynamic": True, "tokens": 40, "update": True},
    "fixed_length": {"one": "text", "engine": {"pad_to_length": True, "pad_to_length_bucket": 64}},
    "entropy_compiled": {"one": "text", "use_torch_compile": True},
    "layers_compiled": {"one": "text", "compile": "layers", "update": True},
    "model_compiled": {"one": "text", "compile": "model", "first": True, "update": True},
    "lora": {"one": "lora", "reference": True, "update": True},
    "ulysses": {"one": "text", "update": True, **SP},
    "ulysses_checkpointed": {"one": "text", "checkpointing": True, "update": True, **SP},
    "ulysses_dynamic": {"one": "text", "dynamic": True, "tokens": 20, "update": True, **SP},
    "ulysses_fixed_length": {"one": "text", "engine": {"pad_to_length": True, "pad_to_length_bucket": 63}, **SP},
    "ulysses_lora": {"one": "lora", "reference": True, "update": True, **SP},
    "qwen2_audio_ulysses": {"one": "qwen2_audio", "update": True, **SP},
    "qwen2_5_omni_ulysses": {"one": "qwen2_5_omni", "update": True, **SP},
}
# One process, padded rows, torch's own attention.
SINGLE = {name: {"packed": False, "update": True} for name in ("text", "qwen2_audio", "qwen2_5_omni")}
SINGLE["lora"] = {"packed": False, "update": True, "reference": True}


def text_rows():
    """Rows of real different lengths; one with a gap, one without a generated token."""
    generator = torch.Generator().manual_seed(0)
    rows = [
        {"tokens": torch.randint(20, 200, (p + c,), generator=generator).tolist(), "generated": [1] * c}
        for p, c in LENGTHS
    ]
    rows[4]["generated"][2:9] = [0] * 7
    rows[10]["generated"] = [0] * 3
    return rows


def spoken_rows(model, clips, directory):
    """The same completions; the first half of each question's rows hear a clip."""
    processor = HFModelConfig(path=str(model)).processor
    text = "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>2<|im_end|>\n"
    rows = text_rows()
    for number, row in enumerate(rows):
        if number % (2 * SAMPLES) < SAMPLES:
            clip = clips[number // SAMPLES]
            heard = processor(text=[text], audio=[clip], return_tensors="pt")["input_ids"][0].tolist()
            row["tokens"] = heard + row["tokens"][LENGTHS[number][0] :]
            row["features"] = str(directory / f"{model.name}-{number}.features")
            torch.save(processor.features([clip]), row["features"])
    return rows


def adapter_of(model, directory):
    """A rank 8 adapter that changes something: peft's own starts at zero."""
    torch.manual_seed(0)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model), LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear")
    )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    adapted.save_pretrained(directory)
    return {"lora_rank": 8, "lora_adapter_path": str(directory)}


def start(cases, rows, directory, size):
    directory.mkdir()
    run = directory / "run.json"
    run.write_text(json.dumps({"cases": cases, "rows": rows, "directory": str(directory)}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"VERL_PLATFORM": "cpu", "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    script = Path(__file__).with_name("distributed_engine.py")
    return [
        subprocess.Popen(
            [sys.executable, str(script), str(run)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": "0", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


@pytest.fixture(scope="module")
def everything(tiny, clips, tmp_path_factory):
    """Results of all cases, by name."""
    directory = tmp_path_factory.mktemp("distributed")
    rows = {name: spoken_rows(tiny / name, clips, directory) for name in ("qwen2_audio", "qwen2_5_omni")}
    rows["text"] = rows["lora"] = text_rows()
    adapter = adapter_of(tiny / "text", directory / "adapter")

    def complete(name, case):
        one = case.pop("one", name)
        model, mrope = tiny / ("text" if one == "lora" else one), one == "qwen2_5_omni"
        lora = adapter if one == "lora" else {}
        return {"name": name, "model": str(model), "data": one, "micro": MICRO, "mrope": mrope, "lora": lora, **case}

    runs = {
        size: start([complete(name, dict(case)) for name, case in cases.items()], rows, directory / str(size), size)
        for size, cases in ((1, SINGLE), (2, CASES))
    }
    processes = [process for run in runs.values() for process in run]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-4000:]
    found = {name: read(directory / "1", name) for name in SINGLE}
    return found | {name: read(directory / "2", name) for name in CASES} | {"adapter": adapter, "rows": rows}


def read(directory, name):
    """What the ranks wrote, in the order of the rows."""
    ranks = [torch.load(path) for path in sorted(directory.glob(f"{name}-*.pt"))]
    joined = {}
    for label, value in ranks[0].items():
        joined[label] = value
        if isinstance(value, dict):
            joined[label] = {field: [row for rank in ranks for row in rank[label][field]] for field in value}
    return joined


def unpacked(states):
    return [PackedStates.from_flat(*row).unpack() for row in zip(states[POOLED], states[POOLED_SIDE], strict=True)]


def rewards(states):
    """The core's reward of the rows as rollouts."""
    rollouts = []
    for number, hidden in enumerate(unpacked(states)):
        question, rest = divmod(number, 2 * SAMPLES)
        modality, sample = divmod(rest, SAMPLES)
        rollouts.append(
            Rollout(
                pair_id=f"q{question}",
                modality=("speech", "text")[modality],
                sample_id=sample,
                completion=f"answer {number}",
                hidden_states=hidden,
                base=BaseScore(number % 3 != 1, True, 1.0),
            )
        )
    return TARSReward(TARSConfig(beta=0.0))(rollouts, step=3)


def assert_same(found, expected, scale=1):
    """States to 1e-6 and log-probs to 2e-6, times ``scale``: behind an update with Adam rounding errors are magnified.

    What differs by so little may be packed into the next of two steps, of which the ninth largest value is 32767.
    """
    assert found.keys() == expected.keys()
    for ours, theirs in zip(unpacked(found), unpacked(expected), strict=True):
        assert ((ours - theirs).abs() <= 1e-6 * scale + 2.02 * rounding(theirs)).all()
    for ours, theirs in zip(found["log_probs"], expected["log_probs"], strict=True):  # the last is of the next row
        torch.testing.assert_close(ours[:-1], theirs[:-1], rtol=0, atol=2e-6 * scale)


def test_the_cut_goes_through_completions_and_leaves_ranks_without_tokens_of_a_row():
    cut = whole = 0
    for first in range(0, len(LENGTHS), MICRO):
        lengths = LENGTHS[first : first + MICRO]
        middle, start = -(-sum(p + c for p, c in lengths) // 2), 0
        for prompt, completion in lengths:
            inside = start + prompt < middle < start + prompt + completion
            cut, whole = cut + inside, whole + (not inside)
            start += prompt + completion
    assert cut >= 2
    assert whole >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_give_what_one_process_gives(everything, name):
    found, expected = everything[name], everything[CASES[name]["one"]]
    assert_same(found["states"], expected["states"])
    ours, theirs = rewards(found["states"]), rewards(expected["states"])
    assert torch.equal(ours.reference, theirs.reference)
    assert (ours.reference >= 0).any()
    assert ours.valid["representation"].any()
    torch.testing.assert_close(ours.total, theirs.total, rtol=0, atol=1e-5)
    assert [bool(states.any()) for states in unpacked(found["states"])] == [True] * 10 + [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.get("update")])
def test_and_the_same_update(everything, name):
    found, expected = everything[name], everything[CASES[name]["one"]]
    assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    assert_same(found["updated"], expected["updated"], scale=10)
    if "compile" in CASES[name]:
        assert found["graphs"] >= 3  # one a layer, at least
    before, after = unpacked(found["states"])[0], unpacked(found["updated"])[0]
    assert (before - after).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "ulysses_lora"])
def test_states_are_the_adapted_policys_and_the_reference_is_the_model_without_adapter(everything, tiny, name):
    """Against plain peft and transformers, row by row."""
    base = AutoModelForCausalLM.from_pretrained(tiny / "text").eval()
    rows, found = everything["rows"]["text"], everything[name]
    assert POOLED not in found["reference"]

    def log_probs(model, row):
        ids = torch.tensor(row["tokens"])
        return model(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]

    with torch.no_grad():
        for row, ours in zip(rows, found["reference"]["log_probs"], strict=True):
            torch.testing.assert_close(ours[:-1], log_probs(base, row), rtol=0, atol=1e-5)
        adapted = PeftModel.from_pretrained(base, everything["adapter"]["lora_adapter_path"]).eval()
        for row, ours, pooled in zip(rows, found["states"]["log_probs"], unpacked(found["states"]), strict=True):
            torch.testing.assert_close(ours[:-1], log_probs(adapted, row), rtol=0, atol=1e-5)
            generated = torch.tensor(row["generated"]).bool()
            states = adapted(torch.tensor(row["tokens"])[None], output_hidden_states=True).hidden_states
            if generated.any():  # the last layer is given behind the norm
                expected = torch.stack([each[0, -len(generated) :][generated].mean(0) for each in states[1:-1]])
                assert ((pooled[:2] - expected).abs() < rounding(expected) + 1e-5).all()
