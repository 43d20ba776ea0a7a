"""What a recorded step must agree with: a plain Hugging Face forward, and the reference implementations of the core."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from tars_rewards.advantage import modality_normalized_advantages

CLASSES = {
    "text": "AutoModelForCausalLM",
    "qwen2_audio": "Qwen2AudioForConditionalGeneration",
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
}
# What two ways of batching a bfloat16 model may differ by: states by `apart`, log-probs by `largest`.
STATES, LOG_PROBS = 2e-3, 1e-2


@dataclass
class Row:
    """One rollout of a recorded step."""

    identity: tuple[str, str, int]
    ids: torch.Tensor
    generated: torch.Tensor  # bool [tokens]
    media: dict | None
    pooled: torch.Tensor
    actor_log_probs: torch.Tensor
    rollout_log_probs: torch.Tensor
    reference_log_probs: torch.Tensor | None
    reward: float
    advantages: torch.Tensor


def load_step(directory, step):
    """Recorded rollouts of a step by identity."""
    experiences, pooled = torch.load(directory / f"step_{step}.pt", weights_only=False)
    rows, counts = {}, {}
    by_index = sorted(
        ((index, experience, row, states) for experience, states in zip(experiences, pooled, strict=True)
         for row, index in enumerate(experience.index)),
        key=lambda item: item[0],
    )  # fmt: skip
    for _, experience, row, states in by_index:
        label = json.loads(experience.labels[row])
        prompt = (label["pair_id"], label["modality"])
        counts[prompt] = counts.get(prompt, -1) + 1
        real = experience.attention_mask[row].bool()
        action = experience.action_mask[row].bool()
        assert states[row].unpack().any(dim=-1).all()
        reference = experience.base_action_log_probs
        found = Row(
            identity=(*prompt, counts[prompt]),
            ids=experience.sequences[row][real],
            generated=torch.nn.functional.pad(action, (1, 0))[real],
            media=experience.mm_train_inputs[row],
            pooled=states[row].unpack(),
            actor_log_probs=experience.action_log_probs[row][action].float(),
            rollout_log_probs=experience.rollout_log_probs[row][action],
            reference_log_probs=None if reference is None else reference[row][action].float(),
            reward=float(experience.rewards[row]),
            advantages=experience.advantages[row][action].float(),
        )
        rows[found.identity] = found
    return rows


def hf_forward(model, row, *, ban=(), silence=False):
    """Pooled states [layers, hidden] and log-probs [completion] of one rollout by a plain forward."""
    inputs = dict(row.media or {})
    if "input_features" in inputs:
        inputs["input_features"] = inputs["input_features"].to(model.dtype) * (0 if silence else 1)
    last = []
    layers = next(m for name, m in model.named_modules() if name in ("model.layers", "model.language_model.layers"))
    hook = layers[-1].register_forward_hook(lambda m, a, out: last.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        ids = row.ids[None]
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True, **inputs)
    hook.remove()
    states = [*out.hidden_states[1:-1], last[0]]  # Hugging Face gives the last one after the final norm
    pooled = torch.stack([state[0][row.generated].float().mean(0) for state in states])
    logits = out.logits[0].float()
    logits[:, list(ban)] = float("-inf")
    positions = row.generated.nonzero().flatten()
    log_probs = logits[positions - 1].log_softmax(-1).gather(1, row.ids[positions][:, None])[:, 0]
    return pooled, log_probs


def largest(a, b):
    return (a - b).abs().max().item()


def apart(states, others):
    """Largest distance of a layer's states as a share of their length: rounding grows with what is rounded."""
    return ((states - others).norm(dim=-1) / others.norm(dim=-1)).max().item()


def check_advantages(rows):
    """OpenRLHF's advantages are the paper's: reward minus the mean over the same question and modality."""
    pairs, modalities, _ = zip(*rows, strict=True)
    expected = modality_normalized_advantages([row.reward for row in rows.values()], pairs, modalities)
    for row, value in zip(rows.values(), expected, strict=True):
        assert largest(row.advantages, torch.as_tensor(float(value))) < 1e-5


def load(name, directory):
    """A model in the dtype that it is trained in."""
    import transformers

    return getattr(transformers, CLASSES[name]).from_pretrained(directory, dtype=torch.bfloat16).eval()
