"""A weight push ends: with the receiver's error when it failed, at the deadline when it hangs."""

import os
import re
import threading
import time
import types
from pathlib import Path

import pytest
import ray
import verl
import zmq

from tars_rewards.errors import AdapterError
from tars_rewards_verl import weight_push
from tars_rewards_verl.weight_push import WEIGHT_PUSH_DEADLINE, WatchedSocket


@pytest.fixture
def sockets():
    context = zmq.Context()
    sender, receiver = context.socket(zmq.REQ), context.socket(zmq.REP)
    port = sender.bind_to_random_port("tcp://127.0.0.1")
    receiver.connect(f"tcp://127.0.0.1:{port}")
    yield sender, receiver
    sender.close(linger=0)
    receiver.close(linger=0)
    context.term()


def test_an_acknowledged_push_is_passed_through(sockets):
    sender, receiver = sockets
    answer = threading.Thread(target=lambda: (receiver.recv(), time.sleep(0.7), receiver.send(b"ok")))
    answer.start()
    watched = WatchedSocket(sender, None, deadline=10)
    watched.send_pyobj({"bucket_meta": {}, "is_last": True})
    assert watched.recv() == b"ok"
    answer.join()


def test_a_push_that_never_returns_ends_at_the_deadline(sockets):
    sender, _ = sockets
    watched = WatchedSocket(sender, None, deadline=0.1)
    watched.send_pyobj("weights")
    with pytest.raises(AdapterError, match=r"not acknowledged by the rollout engine within 0\.1 s"):
        watched.recv()


def test_a_receiver_that_never_connects_ends_at_the_deadline():
    """A REQ socket without a peer blocks in send; verl sends the first message right after it has bound the socket."""
    context = zmq.Context()
    sender = context.socket(zmq.REQ)
    sender.bind_to_random_port("tcp://127.0.0.1")
    sender.setsockopt(zmq.SNDTIMEO, 5000)  # so that the test ends without the deadline, too
    try:
        with pytest.raises(AdapterError, match=r"never connected, within 0\.1 s.*weight_push_deadline"):
            WatchedSocket(sender, None, deadline=0.1).send_pyobj("weights")
    finally:
        sender.close(linger=0)
        context.term()


def test_verl_sends_and_receives_with_what_is_watched():
    """Other ways to send would wait without a limit."""
    # Read, not imported: the package around it needs vLLM by that name.
    file = Path(verl.__file__).parent / "workers/rollout/vllm_rollout/bucketed_weight_transfer.py"
    sender, _, _ = file.read_text().partition("class BucketedWeightReceiver")
    used = set(re.findall(r"self\.socket\.(\w+)\(", sender))
    assert used == {"bind", "send_pyobj", "recv", "close"}


@pytest.mark.slow
def test_the_receivers_error_is_shown_long_before_the_deadline(sockets):
    @ray.remote(num_cpus=0)
    def load_weights():
        raise ValueError("There is no module or parameter named 'model'")

    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80_000_000)
    try:
        sender, _ = sockets
        watched = WatchedSocket(sender, load_weights.remote(), deadline=300)
        watched.send_pyobj("weights")
        with pytest.raises(AdapterError, match="no module or parameter named 'model'"):
            watched.recv()
    finally:
        ray.shutdown()


class Adapter:
    """With the signature of verl's."""

    def __init__(self, config, model_config, device_mesh, replica_rank=-1):
        self.config = config
        self.zmq_handle = "ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-0.sock"


class Server:
    """With the signature of verl's."""

    def __init__(
        self, config, model_config, rollout_mode, workers, replica_rank, node_rank, gpus_per_node, nnodes,
        cuda_visible_devices, disaggregation_role="null", disaggregation_kv_transfer_config=None,
    ):  # fmt: skip
        self.config = config
        os.environ["VERL_RAY_JOB_ID"] = "01000000"


@pytest.mark.parametrize(
    ("custom", "jobs"), [({WEIGHT_PUSH_DEADLINE: 300.0}, {"01000000-301", "01000000-302"}), (None, {"01000000"})]
)
def test_two_ray_clusters_on_one_machine_have_two_files(monkeypatch, custom, jobs):
    """The first job of each has the same number. Runs without TARS stay as they are."""
    modules = types.SimpleNamespace(ServerAdapter=type("A", (Adapter,), {}), vLLMHttpServer=type("S", (Server,), {}))
    weight_push._send_within_the_cluster(modules)
    weight_push._receive_within_the_cluster(modules)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: types.SimpleNamespace(get_job_id=lambda: "01000000"))
    monkeypatch.setenv("VERL_RAY_JOB_ID", "")
    config, seen = types.SimpleNamespace(custom=custom), set()
    for raylet in ("301", "302"):
        monkeypatch.setenv("RAY_RAYLET_PID", raylet)
        sender = modules.ServerAdapter(config, None, None)
        modules.vLLMHttpServer(config, *range(8))
        seen.add(os.environ["VERL_RAY_JOB_ID"])
        # As verl's receiver in the engine's process makes it.
        assert sender.zmq_handle == f"ipc:///tmp/rl-colocate-zmq-{os.environ['VERL_RAY_JOB_ID']}-replica-0-rank-0.sock"
    assert seen == jobs
