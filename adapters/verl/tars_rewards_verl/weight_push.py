"""Weight pushes to vLLM: a deadline, the receiver's error when it failed, and no socket shared with another run.

verl's sender waits without a limit for vLLM to connect and to acknowledge every message. If vLLM cannot load the
weights, its error stays in a future that nobody reads while the sender waits for ever. The sender's socket is replaced
by one that looks at that future while it waits.

The two find each other by a file in /tmp that is named after the Ray job. The first job of every Ray cluster has the same
number, so that the pushes of two trainings on one machine, each with a Ray of its own, could reach the wrong engine.
"""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tars_rewards.errors import AdapterError
from tars_rewards.integration.patching import after_import, check_signature

WEIGHT_PUSH_DEADLINE = "tars_weight_push_deadline"
"""Key of ``actor_rollout_ref.rollout.custom`` with the seconds that one message, or its acknowledgement, may take."""
_POLL_MILLISECONDS = 500
_JOB = "VERL_RAY_JOB_ID"
"""Environment variable by which verl's vLLM server tells its engine processes the number of the job."""


@dataclass
class _Push:
    """The push under way in this process: verl's worker runs one at a time."""

    receiver: Any = None
    deadline: float = 300.0


_push = _Push()


def install() -> None:
    """Watch weight pushes of this process from now on."""
    after_import("verl.workers.rollout.vllm_rollout.vllm_rollout", _watch_receiver)
    after_import("verl.workers.rollout.vllm_rollout.vllm_rollout", _send_within_the_cluster)
    after_import("verl.workers.rollout.vllm_rollout.bucketed_weight_transfer", _watch_sender)


def install_server() -> None:
    """Have the vLLM servers of trainings with TARS receive pushes of their own Ray cluster alone."""
    after_import("verl.workers.rollout.vllm_rollout.vllm_async_server", _receive_within_the_cluster)


class WatchedSocket:
    """The sender's ZMQ socket with a limit on its waits: for a receiver to send to, and for its acknowledgement.

    Args:
        socket: The socket; everything but sending and receiving goes to it unchanged.
        receiver: Ray reference of the receiver's call, or None.
        deadline: Seconds that one wait may take.
    """

    def __init__(self, socket: Any, receiver: Any, deadline: float) -> None:
        self._socket = socket
        self._receiver = receiver
        self._deadline = deadline

    def send_pyobj(self, *args: Any, **kwargs: Any) -> Any:
        """Send a message, once there is a receiver.

        Raises:
            AdapterError: The receiver failed (its error is the cause), or the deadline passed.
        """
        import zmq

        self._wait(zmq.POLLOUT, "taken by the rollout engine, which never connected,")
        return self._socket.send_pyobj(*args, **kwargs)

    def recv(self, *args: Any, **kwargs: Any) -> Any:
        """Receive an acknowledgement.

        Raises:
            AdapterError: The receiver failed (its error is the cause), or the deadline passed.
        """
        import zmq

        self._wait(zmq.POLLIN, "acknowledged by the rollout engine")
        return self._socket.recv(*args, **kwargs)

    def _wait(self, event: int, what: str) -> None:
        until = time.monotonic() + self._deadline
        while not self._socket.poll(_POLL_MILLISECONDS, event):
            error = self._receiver_error()
            if error is not None:
                raise AdapterError(
                    "the rollout engine could not load the pushed weights; its first error stands above in the log, and "
                    f"its last (which may come from cleaning up after the first) is: {error}"
                ) from error
            if time.monotonic() > until:
                raise AdapterError(
                    f"a weight push was not {what} within {self._deadline:g} s; look for the engine's own error above, or "
                    "raise reward.custom_kwargs.weight_push_deadline for a slow machine"
                )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def _receiver_error(self) -> Exception | None:
        import ray

        if self._receiver is None or not ray.wait([self._receiver], timeout=0)[0]:
            return None
        try:
            ray.get(self._receiver)
        except Exception as error:
            return error
        return None


def _watch_receiver(module: ModuleType) -> None:
    adapter = module.ServerAdapter
    stock = adapter._execute_method
    check_signature(
        stock, ["self", "method", "non_block", "timeout", "args", "kwargs"], "verl vLLM ServerAdapter._execute_method"
    )

    @functools.wraps(stock)
    async def _execute_method(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        result = await stock(self, method, *args, **kwargs)
        if method == "update_weights_from_ipc":
            _push.receiver = result
            _push.deadline = float((self.config.custom or {}).get(WEIGHT_PUSH_DEADLINE, _push.deadline))
        return result

    adapter._execute_method = _execute_method


def _watch_sender(module: ModuleType) -> None:
    sender = module.BucketedWeightSender
    stock = sender._init_socket
    check_signature(stock, ["self"], "verl BucketedWeightSender._init_socket")

    @functools.wraps(stock)
    def _init_socket(self: Any) -> None:
        stock(self)
        self.socket = WatchedSocket(self.socket, _push.receiver, _push.deadline)

    sender._init_socket = _init_socket


def within_cluster(job: str) -> str:
    """A Ray job's number made one that no other Ray cluster on the machine has: with its raylet's process id."""
    return f"{job}-{os.environ['RAY_RAYLET_PID']}"


def _send_within_the_cluster(module: ModuleType) -> None:
    adapter = module.ServerAdapter
    stock = adapter.__init__
    check_signature(
        stock, ["self", "config", "model_config", "device_mesh", "replica_rank"], "verl vLLM ServerAdapter.__init__"
    )

    @functools.wraps(stock)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        import ray

        stock(self, *args, **kwargs)
        if WEIGHT_PUSH_DEADLINE in (self.config.custom or {}):
            job = ray.get_runtime_context().get_job_id()
            self.zmq_handle = self.zmq_handle.replace(f"-{job}-", f"-{within_cluster(job)}-")

    adapter.__init__ = __init__


def _receive_within_the_cluster(module: ModuleType) -> None:
    server = module.vLLMHttpServer
    stock = server.__init__
    expected = (
        "self config model_config rollout_mode workers replica_rank node_rank gpus_per_node nnodes cuda_visible_devices "
        "disaggregation_role disaggregation_kv_transfer_config"
    )
    check_signature(stock, expected.split(), "verl vLLMHttpServer.__init__")

    @functools.wraps(stock)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        stock(self, *args, **kwargs)
        if WEIGHT_PUSH_DEADLINE in (self.config.custom or {}):
            # What its engine processes, started later, name the file by.
            os.environ[_JOB] = within_cluster(os.environ[_JOB])

    server.__init__ = __init__
