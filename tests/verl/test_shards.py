"""The representation term by several processes: the same as by one, from states that only TransferQueue holds."""

import dataclasses
import tempfile

import numpy as np
import pytest
import torch

from tars_rewards import Rollout
from tars_rewards.errors import ConfigError, HiddenStatesError
from tars_rewards.protocol import BaseScore
from tars_rewards.transport import pack_states
from tars_rewards_verl.batch import POOLED, POOLED_SIDE
from tars_rewards_verl.reward import TARSReward
from tars_rewards_verl.shards import RepresentationShards, split_pairs

pytestmark = pytest.mark.verl
PAIRS, SAMPLES, LAYERS, HIDDEN = 5, 3, 4, 32
SETTINGS = {"beta": 0, "center": True, "return_layers": True}


@pytest.fixture(scope="module")
def queue():
    import ray
    import transfer_queue
    from omegaconf import OmegaConf

    # Ray puts sockets into its directory, and the path of a socket is limited to about 100 characters.
    directory = tempfile.mkdtemp(prefix="ray-")
    ray.init(address="local", num_cpus=8, include_dashboard=False, object_store_memory=100_000_000, _temp_dir=directory)
    storage = {"num_data_storage_units": 1, "total_storage_size": 1000}
    transfer_queue.init(OmegaConf.create({"backend": {"storage_backend": "SimpleStorage", "SimpleStorage": storage}}))
    yield transfer_queue
    transfer_queue.close()
    ray.shutdown()


@pytest.fixture
def rollouts():
    """In an order in which pairs are mixed; one completion is empty, one question has no right answer in text."""
    generator = np.random.default_rng(0)
    made = [
        Rollout(
            f"q{pair}", modality, sample, completion="" if (pair, modality, sample) == (1, "speech", 2) else "words",
            base=BaseScore(pair != 3 and sample > 0, True, 1.0),
            hidden_states=torch.from_numpy(generator.normal(size=(LAYERS, HIDDEN)).astype(np.float32)),
        )
        for pair in range(PAIRS)
        for modality in ("speech", "text")
        for sample in range(SAMPLES)
    ]  # fmt: skip
    return [made[index] for index in generator.permutation(len(made))]


def stored(queue, rollouts, partition):
    """The rollouts' states in TransferQueue behind a padding row of verl's, and the rollouts without them."""
    from tensordict import TensorDict

    keys = ["padding"] + [f"{each.pair_id}{each.modality}_{each.sample_id}_0" for each in rollouts]
    packed = pack_states(torch.stack([torch.zeros(LAYERS, HIDDEN), *(each.hidden_states for each in rollouts)]))
    fields = {
        POOLED: torch.nested.as_nested_tensor(list(packed.steps.flatten(1)), layout=torch.jagged),
        POOLED_SIDE: torch.nested.as_nested_tensor(list(packed.side.flatten(1)), layout=torch.jagged),
    }
    queue.kv_batch_put(
        keys=keys, partition_id=partition, fields=TensorDict(fields, batch_size=len(keys)), tags=[{} for _ in keys]
    )
    meta = queue.KVBatchMeta(keys=keys, tags=[{} for _ in keys], partition_id=partition)
    return meta, list(range(1, len(keys))), [dataclasses.replace(each, hidden_states=None) for each in rollouts]


def with_packed(rollouts):
    return [dataclasses.replace(each, hidden_states=pack_states(each.hidden_states)) for each in rollouts]


@pytest.mark.parametrize("workers", [1, 2, PAIRS + 1])
def test_several_processes_give_what_one_does(queue, rollouts, workers):
    reward = TARSReward(**SETTINGS)
    whole = reward(with_packed(rollouts), step=3)
    meta, rows, bare = stored(queue, rollouts, f"workers-{workers}")
    shards = RepresentationShards(reward.config, workers)
    found = reward(bare, step=3, representation=shards.of(meta, rows))
    assert whole.valid["representation"].sum() >= 10
    assert torch.equal(found.reference, whole.reference)
    assert torch.equal(found.total, whole.total)
    assert torch.equal(found.layer_similarity, whole.layer_similarity)
    for name, valid in whole.valid.items():
        assert torch.equal(found.valid[name], valid)


def test_what_is_wrong_with_states_is_said_by_name(queue, rollouts):
    reward = TARSReward(**SETTINGS)
    rollouts[7].hidden_states[1, 2] = float("nan")
    meta, rows, bare = stored(queue, rollouts, "nan")
    with pytest.raises(HiddenStatesError, match=rf"pair '{rollouts[7].pair_id}'.*has NaN or inf"):
        reward(bare, representation=RepresentationShards(reward.config, 2).of(meta, rows))


def test_shares_are_whole_pairs_and_everything_once():
    pair = np.random.default_rng(1).integers(0, 50, 400)
    for count in (1, 3, 7, 60):
        shares = split_pairs(pair, count)
        assert sorted(np.concatenate(shares).tolist()) == list(range(400))
        assert sum(len(np.unique(pair[rows])) for rows in shares) == len(np.unique(pair))
        assert all(rows.size for rows in shares)


@pytest.mark.parametrize("workers", [-1, 1.5, True])
def test_a_bad_number_of_processes_is_refused(workers):
    with pytest.raises(ConfigError, match="finaliser_workers must be a number of processes"):
        TARSReward(finaliser_workers=workers)


def test_terms_of_ones_own_would_not_see_the_states():
    with pytest.raises(ConfigError, match=r"terms of your own .* do not see them; set it to 0"):
        TARSReward(finaliser_workers=2, terms={"tars_rewards.representation:representation_term": 1.0})
