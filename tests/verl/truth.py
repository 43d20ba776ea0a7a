"""What a recorded step must agree with: a plain Hugging Face forward, and the reference implementations of the core."""

from __future__ import annotations

import torch

from tars_rewards.advantage import modality_normalized_advantages
from tars_rewards.transport import PackedStates


def load_step(directory, step):
    """Recorded rows of a step, without verl's padding rows."""
    rows = torch.load(directory / f"step_{step}.pt", weights_only=False)
    real = [i for i, tag in enumerate(rows["tags"]) if not tag.get("is_padding", False)]
    return {k: [v[i] for i in real] if isinstance(v, list) else v for k, v in rows.items()}


def identities(rows):
    """(pair, modality, sample) of every row."""
    return [
        (str(pair), str(modality), int(key.split("_")[1]))
        for pair, modality, key in zip(rows["pair_id"], rows["modality"], rows["keys"], strict=True)
    ]


def hf_forward(model, rows, i, *, ban=(), silence=False):
    """Pooled states [layers, hidden] and log-probs [completion] of one row by a plain forward with hidden states."""
    ids, mask = rows["input_ids"][i], rows["response_mask"][i].bool()
    inputs = dict(rows["multi_modal_inputs"][i] or {}) if "multi_modal_inputs" in rows else {}
    if silence and "input_features" in inputs:
        inputs["input_features"] = torch.zeros_like(inputs["input_features"])
    last = []
    layers = next(m for name, m in model.named_modules() if name in ("model.layers", "model.language_model.layers"))
    hook = layers[-1].register_forward_hook(lambda m, a, out: last.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        out = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], output_hidden_states=True, **inputs)
    hook.remove()
    states = [*out.hidden_states[1:-1], last[0]]  # Hugging Face gives the last one after the final norm
    n = len(mask)
    pooled = torch.stack([h[0, -n:][mask].mean(0) for h in states])
    logits = out.logits[0, -n - 1 : -1].clone()
    logits[:, list(ban)] = float("-inf")
    log_probs = logits.log_softmax(-1).gather(1, ids[-n:, None])[:, 0]
    return pooled, log_probs


def pooled_of(rows, i):
    scales = rows["tars_pooled_scales"][i]
    assert scales.all()
    return PackedStates(rows["tars_pooled"][i].reshape(len(scales), -1), scales).unpack()


def rounding(pooled):
    """What packing may move a value by: half of the 32767th part of the layer's largest."""
    return pooled.abs().amax(-1, keepdim=True) / 32767 / 2


def largest(a, b):
    return (a - b).abs().max().item()


def check_advantages(rows):
    """verl's advantages are the paper's: reward minus the mean over the same question and modality."""
    totals = [float(scores.sum()) for scores in rows["rm_scores"]]
    expected = modality_normalized_advantages(
        totals, [str(p) for p in rows["pair_id"]], [str(m) for m in rows["modality"]]
    )
    for advantages, value, mask in zip(rows["advantages"], expected, rows["response_mask"], strict=True):
        assert largest(advantages[mask.bool()], torch.as_tensor(float(value))) < 1e-6
