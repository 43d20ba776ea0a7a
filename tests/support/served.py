"""The real application under real uvicorn in a thread, with a scorer that can be held back."""

import socket
import threading
import time

import httpx
import torch
import uvicorn

from tars_rewards import Scorer, TARSConfig
from tars_rewards.server import ServerSettings, create_app

RIGHT = "<think>2+2</think><answer>The answer is 4.</answer>"


def question(number, **changes):
    """A row whose rewards are 1.5 and 1.0, and whose second completion is its own."""
    completions = {"speech": [RIGHT], "text": [f"{number} {RIGHT}"]}
    return {"id": f"q{number}", "prompt": "2+2?", "answer": "4", "completions": completions, **changes}


class HeldScorer(Scorer):
    """A real scorer without a model that notes its batches, and waits with each until it may go on."""

    def __init__(self):
        super().__init__(None, config=TARSConfig(alpha=0, beta=0))
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.batches = []

    def score_batch(self, questions):
        self.batches.append([each.id for each in questions])
        self.begun.release()
        assert self.go.wait(30)
        if any(each.prompt == "explode" for each in questions):
            raise ZeroDivisionError("as if by a defect")
        if any(each.prompt == "break the accelerator" for each in questions):
            raise torch.AcceleratorError("device-side assert triggered")
        return super().score_batch(questions)

    def scored(self):
        return [identity for batch in self.batches for identity in batch]


def plain_scorer():
    return Scorer(None, config=TARSConfig(alpha=0, beta=0))


class Served:
    """A server in a thread; a context that ends it."""

    def __init__(self, scorer, *, make=None, ready=True, **settings):
        self.scorer = scorer
        self._ready = ready
        self.app = create_app(make or (lambda: scorer), ServerSettings(**settings))
        self.service = self.app.state.service
        self._server = uvicorn.Server(uvicorn.Config(self.app, port=0, log_config=None, access_log=False, ws="none"))
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self):
        self._thread.start()
        until(lambda: self._server.started)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        if self._ready:
            until(lambda: self.client.get("/readyz").status_code == 200)
        return self

    def __exit__(self, *_):
        if self.scorer is not None:
            self.scorer.go.set()
        self.client.close()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def ask(self, *rows, **headers):
        return self.client.post("/v1/rewards", json={"questions": list(rows)}, headers=headers)

    def later(self, *rows):
        """Ask in a thread of its own; returns a function that waits for the answer."""
        return in_thread(
            lambda: httpx.post(f"{self.client.base_url}/v1/rewards", json={"questions": list(rows)}, timeout=30)
        )

    def waiting(self):
        return self.service._queue.waiting()[0]

    def metric(self, name, **labels):
        value = self.service.metrics.registry.get_sample_value(f"tars_rewards_{name}", labels)
        return 0.0 if value is None else value

    def raw(self):
        """A connection to write bytes into."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


def in_thread(call):
    box = []
    thread = threading.Thread(target=lambda: box.append(call()))
    thread.start()

    def result():
        thread.join(30)
        return box[0]

    return result


def until(true, seconds=10):
    """Wait until something is true; an AssertionError if it does not become so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.005)


def error(response):
    """Type and field of an error, and its message; the form is checked."""
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"type", "message", "field"}
    return body["error"]["type"], body["error"]["field"], body["error"]["message"]
