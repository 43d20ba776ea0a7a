"""A real training of the experiment, as short as it can be: stock verl, the experiment's settings, one of its rewards."""

import json

import paths  # noqa: F401  (lets the demo's modules be found)
import pytest
import verl_training
from arms import ARMS
from make_data import write_split
from model import COMMITTED, assemble, load
from step_log import collect

pytestmark = [pytest.mark.verl, pytest.mark.training]
STEPS = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("experiment")
    base, data, out = (directory / name for name in ("base", "data", "run"))
    out.mkdir()
    assemble(base)
    for split in ("train", "dev"):
        write_split(data, split, 16, seed=0)
    settings = verl_training.settings_of(ARMS["symmetric"], 1e-4)
    models = verl_training.train(settings, base=base, data=data, out=out, seed=0, steps=STEPS)
    return models, collect(out / "log", out / "metrics.jsonl"), out


def test_it_leaves_a_model_at_every_checkpoint(run):
    models, _, _ = run
    assert list(models) == [1, 2]
    thinkers = [load(path, COMMITTED)[0] for path in models.values()]
    heads = [thinker.lm_head.weight for thinker in thinkers]
    assert not heads[0].equal(heads[1])
    towers = [thinker.audio_tower.layers[0].fc1.weight for thinker in thinkers]
    assert towers[0].equal(towers[1])


def test_its_log_has_every_step_and_is_of_the_arms_own_reward(run):
    _, log, out = run
    assert {len(values) for values in log.values()} == {STEPS}
    assert {"accuracy/speech", "spread/behavior", "advantage_cosine", "entropy", "seconds_update"} <= log.keys()
    rows = [json.loads(line) for line in (out / "log" / "rollouts.jsonl").read_text().splitlines()]
    assert len(rows) == STEPS * 8 * (4 + 4)
    # Text completions are aligned where a speech completion of their question is right.
    right = {(row["step"], row["id"]) for row in rows if row["modality"] == "speech" and row["accuracy"]}
    text = [row for row in rows if row["modality"] == "text"]
    assert right
    assert {(row["step"], row["id"]) for row in text if row["representation"] is not None} == right
