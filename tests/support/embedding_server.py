"""A real HTTP server that speaks `/v1/embeddings`, and misbehaves on request."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

DIM = 6


def vector(text: str) -> np.ndarray:
    """The server's embedding of a text, float32 [6], from the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=DIM).astype(np.float32)


class Reply:
    """One answer other than the right one: status, body and headers, after a delay."""

    def __init__(self, status=200, body=b"", headers=(), delay=0.0, drip=0.0):
        self.status, self.body, self.headers = status, body if isinstance(body, bytes) else body.encode(), dict(headers)
        self.delay, self.drip = delay, drip


class EmbeddingServer:
    """Context manager; `url` is the base URL.

    Attributes:
        script: Replies to the next requests, one each: a Reply, a function of the parsed request that returns one, or
            None for the right answer. When it is used up, `always` is asked, then the right answer is given.
        requests: Parsed bodies that came, in order.
        headers: Their headers.
        at: When they came.
        connections: The client's port of each: requests of one connection share it.
    """

    def __init__(self, *script, always=None, shuffle=False, most=None, longest=None, refusal=413):
        self.script, self.always, self.shuffle = list(script), always, shuffle
        self.most, self.longest, self.refusal = most, longest, refusal
        self.requests, self.headers, self.at, self.connections = [], [], [], []
        self._lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def sizes(self):
        return [len(request["input"]) for request in self.requests]

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.requests.append(request)
                    outer.headers.append(dict(self.headers))
                    outer.at.append(time.monotonic())
                    outer.connections.append(self.client_address[1])
                    step = outer.script.pop(0) if outer.script else outer.always
                if self.path != "/v1/embeddings":
                    step = Reply(404, "no such page")
                reply = (step(request) if callable(step) else step) or outer.right(request)
                time.sleep(reply.delay)
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                try:
                    for byte in [bytes([b]) for b in reply.body] if reply.drip else [reply.body]:
                        self.wfile.write(byte)
                        time.sleep(reply.drip)
                except OSError:
                    self.close_connection = True  # the client has given up

            def log_message(self, *_):
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):
                """A client that hangs up is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def right(self, request):
        texts = request["input"]
        if self.most is not None and len(texts) > self.most:
            return Reply(self.refusal, json.dumps({"error": f"batch size {len(texts)} > maximum {self.most}"}))
        if self.longest is not None and sum(map(len, texts)) > self.longest:
            return Reply(self.refusal, json.dumps({"error": "inputs too long"}))
        rows = [
            {"object": "embedding", "index": n, "embedding": encoded(text, request)} for n, text in enumerate(texts)
        ]
        if self.shuffle:
            random.Random(len(texts)).shuffle(rows)
        return Reply(200, json.dumps({"object": "list", "data": rows, "model": request["model"]}))


def encoded(text, request):
    if request["encoding_format"] == "base64":
        return base64.b64encode(vector(text).astype("<f4").tobytes()).decode()
    return vector(text).tolist()


def rows(*embeddings, indices=None):
    """Body of an answer with these embeddings."""
    indices = range(len(embeddings)) if indices is None else indices
    return json.dumps({"data": [{"index": i, "embedding": e} for i, e in zip(indices, embeddings, strict=True)]})
