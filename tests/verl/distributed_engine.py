"""One rank of verl's own training worker over gloo, without Ray: `python distributed_engine.py RUN.json`.

RUN.json has a list of cases, each an engine's settings, and the rows. Every rank that verl collects from writes what its
log-prob forwards returned, to be compared with the same rows in one process. The ranks are told of each other by the
environment variables of torchrun.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import verl  # noqa: F401  (its plugins first)
from tensordict import NonTensorStack, TensorDict
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.config.engine import TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker

from tars_rewards.decoder_layers import decoder_layers
from tars_rewards_verl.batch import CAPTURE_FLAG, POOLED, POOLED_SIDE


def worker_of(case):
    """verl's training worker with our engine, as the trainer builds it."""
    micro, tokens = case["micro"], case.get("tokens", 64)
    model = HFModelConfig(
        path=case["model"],
        external_lib="tars_rewards_verl.worker",
        use_remove_padding=case.get("packed", True),
        enable_gradient_checkpointing=case.get("checkpointing", False),
        override_config={"attn_implementation": case.get("attention", "sdpa")},
        **case.get("lora", {}),
    )
    engine = FSDPEngineConfig(
        strategy="fsdp2",
        mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        use_torch_compile=case.get("use_torch_compile", False),
        ulysses_sequence_parallel_size=case.get("sp", 1),
        use_dynamic_bsz=case.get("dynamic", False),
        infer_micro_batch_size_per_gpu=micro,
        micro_batch_size_per_gpu=micro,
        infer_max_token_len_per_gpu=tokens,
        max_token_len_per_gpu=tokens,
        **case.get("engine", {}),
    )
    optimizer = FSDPOptimizerConfig(lr=1e-3, weight_decay=0.0, total_training_steps=10)
    worker = TrainingWorker(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=model,
            engine_config=engine,
            optimizer_config=optimizer,
            checkpoint_config=CheckpointConfig(),
        )
    )
    worker.reset()
    return worker


def batch_of(rows, mrope, **settings):
    """The rows as verl's trainer hands them to a worker."""
    ids = [torch.tensor(row["tokens"]) for row in rows]
    positions = [torch.arange(len(each)) for each in ids]
    if mrope:
        positions = [each.expand(4, -1).contiguous() for each in positions]
    masks = [torch.tensor(row["generated"]) for row in rows]
    nested = {"input_ids": ids, "position_ids": positions, "response_mask": masks, "loss_mask": masks}
    fields = {name: torch.nested.as_nested_tensor(each, layout=torch.jagged) for name, each in nested.items()}
    batch = TensorDict(fields, batch_size=len(rows))
    if any("features" in row for row in rows):
        features = [torch.load(row["features"]) if row.get("features") else {} for row in rows]
        batch["multi_modal_inputs"] = NonTensorStack(*features)
    tensordict_utils.assign_non_tensor(batch, temperature=1.0, **settings)
    return batch


def mean_log_prob(model_output, data, dp_group=None):
    """A loss for one update: minus the mean log-prob of all completion tokens, as verl's losses are normalised."""
    total = 0.0
    for log_probs, mask in zip(model_output["log_probs"].unbind(), data["response_mask"].unbind(), strict=True):
        total = total - (log_probs[len(log_probs) - len(mask) - 1 : -1] * mask).sum()
    return total / data["batch_num_tokens"] * data["dp_size"], {}


def run(case, directory):
    """All that one case asks for, written by the ranks that verl collects from."""
    worker = worker_of(case)
    module = worker.engine.module
    for each in {"layers": decoder_layers(module), "model": [module]}.get(case.get("compile"), []):
        each.compile(backend="aot_eager")
    rank, size = worker.engine.get_data_parallel_rank(), worker.engine.get_data_parallel_size()
    share = len(case["rows"]) // size
    rows = case["rows"][rank * share : (rank + 1) * share]
    written = {}

    def forward(label, capture=True, **settings):
        flag = {CAPTURE_FLAG: True} if capture else {}
        asked = {"compute_loss": False, "calculate_entropy": True, **flag, **settings}
        output = worker.infer_batch(batch_of(rows, case["mrope"], **asked))
        if output is not None:
            kept = [name for name in ("log_probs", POOLED, POOLED_SIDE) if output.get(name) is not None]
            written[label] = {name: [each.clone() for each in output[name].unbind()] for name in kept}

    if case.get("first"):
        forward("first", capture=False)
    forward("states")
    if case.get("reference"):
        forward("reference", capture=False, no_lora_adapter=True)
    if case.get("update"):
        worker.set_loss_fn(mean_log_prob)
        output = worker.train_batch(batch_of(rows, case["mrope"], calculate_entropy=False))
        if output is not None:
            written["grad_norm"] = tensordict_utils.get(output, "metrics")["grad_norm"]
        forward("updated")
    if "compile" in case:
        written["graphs"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
    if written:
        torch.save(written, Path(directory) / f"{case['name']}-{rank}.pt")


def main(path):
    asked = json.loads(Path(path).read_text())
    for case in asked["cases"]:
        run({**case, "rows": asked["rows"][case["data"]]}, asked["directory"])
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
