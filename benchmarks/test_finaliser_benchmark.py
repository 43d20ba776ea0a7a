"""The finaliser, a step's rollouts with their states in and rewards out, against copying the states once.

What is timed is the whole of `TARSReward.__call__` with alpha=1 and beta=0: identities and columns, references, the
representation term, totals and metrics; the details have it with the behavior term too, of embeddings that come with the
rollouts. Beside it, in turns, the states that it reads are copied one after the other into memory that is there already: all
of them where they are arrays, since all are checked to be finite; of packed states those that are compared, which are fewer
by the text completions that no spoken one is compared with. Times are CPU time of one thread.

States are of real size, 28 layers x 3584 in two bytes a value: as 16-bit integers with scales, as the adapters bring them,
and as bfloat16 arrays. 100,000 rollouts of them would take 20 GB, so rollouts take turns in a pool of 8,192 (1.6 GB), and
the copies in as large a one: larger than any cache, so that every state comes from memory, as those from another process do.
Fewer rollouts than the pool holds start somewhere else in it in every round, for the same reason.
"""

import gc
import statistics
import time

import numpy as np
import pytest
import torch
from results import record, unit_cost

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.protocol import BaseScore
from tars_rewards.reference import choose_references, reference_draws
from tars_rewards.transport import PackedStates, pack_states

LAYERS, HIDDEN, DIM, SAMPLES = 28, 3584, 384, 4
POOL = 8192
COUNTS = (64, 256, 1024, 8192, 100_000)
ROUNDS = {64: 25, 256: 15, 1024: 9, 8192: 5, 100_000: 5}
STEP = 3

pytestmark = pytest.mark.benchmark(group="finaliser")


class Given:
    """Every embedding came with its rollout."""

    max_tokens = float("inf")

    def encode(self, texts):
        raise AssertionError(f"{len(texts)} texts without an embedding")


def timed(function) -> float:
    start = time.thread_time()
    function()
    return time.thread_time() - start


def questions(count, states, start):
    """Rollouts in an order that tears questions apart, as balancing the load of ranks does."""
    rng = np.random.default_rng(count)
    right, embeddings = rng.random(count) < 0.6, rng.normal(size=(count, DIM)).astype(np.float32)
    rollouts = []
    for turn, number in enumerate(rng.permutation(count).tolist()):
        pair, sample = divmod(number, 2 * SAMPLES)
        rollouts.append(
            Rollout(
                pair_id=f"question-{pair}",
                modality="speech" if sample < SAMPLES else "text",
                sample_id=sample % SAMPLES,
                completion=f"<think>{number} is odd or even.</think><answer>The answer is B.</answer>",
                hidden_states=states[(start + turn) % POOL],
                embedding=embeddings[turn],
                base=BaseScore(bool(right[number]), True, 0.5 + right[number]),
            )
        )
    return rollouts


def read_by_the_reward(rollouts):
    """Rows whose states the reward has to read."""
    if not isinstance(rollouts[0].hidden_states, PackedStates):
        return range(len(rollouts))
    reference = TARSReward(TARSConfig(alpha=0, beta=0))(rollouts, step=STEP).reference.numpy()
    compared = np.flatnonzero(reference >= 0)
    return np.union1d(compared, reference[compared]).tolist()


def measure(states, memory):
    """Of every count: medians of the ratio, of seconds, and of each stage's seconds a rollout."""
    found = {}
    into = list(torch.zeros_like(memory))
    reward, both_terms = TARSReward(TARSConfig(beta=0)), TARSReward(TARSConfig(), embedder=Given())
    for count in COUNTS:
        ratios, all_bytes, with_behavior, ours, copies, stages = [], [], [], [], [], []
        for turn in range(ROUNDS[count]):
            start = turn * count % POOL
            rollouts = questions(count, states, start)
            rows = [(start + row) % POOL for row in read_by_the_reward(rollouts)]
            sources, targets = [memory[row] for row in rows], [into[row] for row in rows]
            gc.collect()
            gc.disable()

            def copy(sources=sources, targets=targets):
                for source, target in zip(sources, targets, strict=True):
                    target.copy_(source)

            def finalise(rollouts=rollouts, stages=stages):
                stages.append(reward(rollouts, step=STEP).metrics)

            # In turns, so that neither always finds what the other left in a cache.
            both = {function: timed(function) for function in ((copy, finalise), (finalise, copy))[turn % 2]}
            with_embeddings = timed(lambda rollouts=rollouts: both_terms(rollouts, step=STEP))
            gc.enable()
            ours.append(both[finalise])
            copies.append(both[copy])
            ratios.append(ours[-1] / copies[-1])
            all_bytes.append(ratios[-1] * len(rows) / count)
            with_behavior.append(with_embeddings / copies[-1])
        each = [name for name in stages[0] if name.startswith("tars/seconds/")]
        found[count] = {
            "ratio": statistics.median(ratios),
            "ratio to a copy of every state that came": statistics.median(all_bytes),
            "ratio with the behavior term": statistics.median(with_behavior),
            "seconds": statistics.median(ours),
            "microseconds a rollout": {
                "copy of what is read": 1e6 * statistics.median(copies) / count,
                "finaliser": 1e6 * statistics.median(ours) / count,
                **{name[13:]: 1e6 * statistics.median(stage[name] for stage in stages) / count for name in each},
            },
        }
    return found


def test_against_one_copy_of_the_same_bytes():
    memory = torch.empty(POOL, LAYERS, HIDDEN, dtype=torch.int16)
    random = torch.Generator().manual_seed(0)
    floats = memory.view(torch.bfloat16)
    for row in floats:
        row.copy_(torch.randn(LAYERS, HIDDEN, generator=random))
    by_kind = {"bfloat16": measure(list(floats), floats)}
    memory.random_(-32767, 32767, generator=random)
    side = pack_states(torch.randn(POOL, LAYERS, 64, generator=random)).side
    by_kind["packed"] = measure([PackedStates(*row) for row in zip(memory, side, strict=True)], memory)

    worst = max(row["ratio"] for rows in by_kind.values() for row in rows.values())
    exponents = {
        kind: float(np.polyfit(np.log(COUNTS), np.log([rows[count]["seconds"] for count in COUNTS]), 1)[0])
        for kind, rows in by_kind.items()
    }
    details = {
        kind: {str(count): rounded(row) for count, row in rows.items()} | {"exponent": round(exponents[kind], 3)}
        for kind, rows in by_kind.items()
    }
    print(f"\nfinaliser: {worst:.2f}, {details}")
    rounds = min(ROUNDS.values())
    usual = by_kind["packed"][8192]["microseconds a rollout"]
    gigabytes = 2 * LAYERS * HIDDEN / 1e9
    unit_cost("finaliser/states", 1e-6 * usual["representation"] / gigabytes, "s/GB", rounds=rounds)
    unit_cost("finaliser/rollout", 1e-6 * (usual["finaliser"] - usual["representation"]), "s", rounds=rounds)
    fast = record("finaliser/copy", worst, rounds=rounds, details=details)
    linear = record("finaliser/exponent", max(exponents.values()), rounds=rounds, details=exponents)
    assert fast
    assert linear


def rounded(row):
    return {
        name: {part: round(value, 2) for part, value in figure.items()}
        if isinstance(figure, dict)
        else round(figure, 4)
        for name, figure in row.items()
    }


def test_choice_of_references_against_unique():
    """Drawing and choosing for 100,000 rollouts, in order and shuffled, against `torch.unique` of their pairs' numbers."""
    count, ratios = 100_000, {}
    rng = np.random.default_rng(0)
    pair_ids = [f"question-{number}" for number in range(count // (2 * SAMPLES))]
    for name, order in (("in order", np.arange(count)), ("shuffled", rng.permutation(count))):
        pair, sample = order // (2 * SAMPLES), order % (2 * SAMPLES)
        target, right = sample < SAMPLES, rng.random(count) < 0.6
        ids = torch.from_numpy(pair)

        def choose(pair=pair, sample=sample, target=target, right=right):
            draws = reference_draws(pair_ids, pair, sample, seed=0, step=STEP, modality="speech")
            chosen = choose_references(pair, sample, needs=target, candidate=~target & right, draws=draws)
            assert (chosen >= 0).any()

        choose()
        both = [(timed(choose), timed(lambda ids=ids: torch.unique(ids))) for _ in range(41)]
        ratios[name] = {
            "ratio": round(statistics.median(ours / unique for ours, unique in both), 3),
            "milliseconds": round(1e3 * statistics.median(ours for ours, _ in both), 2),
            "unique": round(1e3 * statistics.median(unique for _, unique in both), 2),
        }
    print(f"\nreferences: {ratios}")
    worst = max(figures["ratio"] for figures in ratios.values())
    assert record("finaliser/references", worst, rounds=41, details=ratios)
