"""The larger policy computes what the demo's model does, and computes with all of its weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).parents[2]
QUESTION = (
    "Olivia is taller than Edward. Edward is taller than Carmen. Who is the tallest? A: Carmen. B: Olivia. C: Edward."
)


@pytest.fixture(scope="module")
def example():
    """Modules of the example."""
    path = str(REPOSITORY / "examples" / "spoken_reasoning")
    sys.path.insert(0, path)
    import inference
    import model
    import speech

    yield inference, model, speech
    sys.path.remove(path)


@pytest.fixture(scope="module")
def models(example, tmp_path_factory):
    """The demo's model, the larger one as it is loaded from its directory, and the processor."""
    _, model, _ = example
    directory = tmp_path_factory.mktemp("models")
    model.assemble(directory / "demo")
    program = REPOSITORY / "benchmarks" / "larger_policy.py"
    subprocess.run([sys.executable, program, "--out", directory / "larger"], check=True, capture_output=True)
    demo, processor = model.load(directory / "demo")
    larger, _ = model.load(directory / "larger")
    return demo, larger, processor


@pytest.fixture(scope="module")
def prompts(example, models):
    """A spoken prompt and a written one."""
    inference, _, speech = example
    *_, processor = models
    clip = speech.speak(QUESTION, speech.Speaker("en-us", 210, 50, 25.0, 1))
    spoken = processor(text=inference.prompt_text(processor, None), audio=[clip], return_tensors="pt")
    return {"speech": spoken, "text": processor(text=inference.prompt_text(processor, QUESTION), return_tensors="pt")}


def decoder(thinker):
    return sum(parameter.numel() for parameter in thinker.model.layers.parameters())


@torch.no_grad()
def test_outputs_are_those_of_the_demos_model(models, prompts):
    demo, larger, _ = models
    for inputs in prompts.values():
        tokens, same = (each.generate(**inputs, do_sample=False, max_new_tokens=64) for each in (demo, larger))
        assert torch.equal(tokens, same)
        assert tokens.shape[1] > inputs["input_ids"].shape[1] + 8
        expected, logits = (each(**inputs).logits for each in (demo, larger))
        assert expected.std() > 1
        # The same numbers are added up, in blocks of another length maybe.
        torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)


@torch.no_grad()
def test_outputs_are_exactly_those_in_float64(models, prompts):
    demo, larger = (each.double() for each in models[:2])
    try:
        for inputs in prompts.values():
            inputs = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
            torch.testing.assert_close(larger(**inputs).logits, demo(**inputs).logits, rtol=0, atol=1e-12)
    finally:
        demo.float(), larger.float()


@torch.no_grad()
def test_each_layer_computes_and_only_its_last_projections_are_zero(models, prompts):
    demo, larger, _ = models
    assert decoder(larger) > 20 * decoder(demo)
    added = larger.model.layers[len(demo.model.layers) :]
    for name, parameter in added.named_parameters():
        assert bool(parameter.any()) != name.endswith(("o_proj.weight", "down_proj.weight", "bias")), name
    seen = []
    hooks = [layer.mlp.down_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for layer in added]
    larger(**prompts["text"])
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(added)
    assert all(np.median(neurons.abs()) > 0 for neurons in seen)
