"""What verl's TransferQueue takes to carry pooled states: its default storage, between real Ray processes of one machine."""

import statistics
import tempfile
import time

import pytest
import torch
from results import unit_cost

ROLLOUTS, VALUES = 1024, 28 * 3584  # of a 7B model
ROUNDS = 7


@pytest.fixture(scope="module")
def queue():
    import ray
    import transfer_queue
    from omegaconf import OmegaConf

    # Ray puts sockets into its directory, and the path of a socket is limited to about 100 characters.
    directory = tempfile.mkdtemp(prefix="ray-")
    ray.init(address="local", num_cpus=8, include_dashboard=False, object_store_memory=300_000_000, _temp_dir=directory)
    storage = {"num_data_storage_units": 1, "total_storage_size": 2 * ROLLOUTS}
    transfer_queue.init(OmegaConf.create({"backend": {"storage_backend": "SimpleStorage", "SimpleStorage": storage}}))
    yield transfer_queue
    transfer_queue.close()
    ray.shutdown()


def test_seconds_a_gigabyte(queue):
    from tensordict import TensorDict

    states = torch.nested.as_nested_tensor(list(torch.randn(ROLLOUTS, VALUES).half()), layout=torch.jagged)
    keys = [f"rollout-{index}" for index in range(ROLLOUTS)]
    put, get = [], []
    for _ in range(ROUNDS + 2):
        begun = time.perf_counter()
        queue.kv_batch_put(keys=keys, partition_id="step", fields=TensorDict({"states": states}, batch_size=ROLLOUTS))
        middle = time.perf_counter()
        back = queue.kv_batch_get(keys=keys, partition_id="step", select_fields=["states"])
        put.append(middle - begun)
        get.append(time.perf_counter() - middle)
    assert torch.equal(back["states"].values(), states.values())
    gigabytes = ROLLOUTS * VALUES * 2 / 1e9
    for name, seconds in (("put", put[2:]), ("get", get[2:])):  # the first ones open sockets
        unit_cost(f"transfer_queue/{name}", statistics.median(seconds) / gigabytes, "s/GB", rounds=ROUNDS)
