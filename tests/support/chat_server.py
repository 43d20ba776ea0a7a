"""A real HTTP server that speaks `/v1/chat/completions` with audio input, and misbehaves on request."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import soundfile


class Reply:
    """One answer other than the right one: status, body and headers, after a delay, byte by byte if `drip`."""

    def __init__(self, status=200, body=b"", headers=(), delay=0.0, drip=0.0):
        self.status, self.body, self.headers = status, body if isinstance(body, bytes) else body.encode(), dict(headers)
        self.delay, self.drip = delay, drip


def completion(text, *, reason="stop", tokens=None):
    """Body of an answer."""
    message = {"role": "assistant", "content": text}
    body = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": reason}]}
    if tokens is not None:
        body["usage"] = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    return json.dumps(body)


def user_turn(request):
    return request["messages"][-1]["content"]


def clip(request):
    """Samples and rate of the clip in a request; None where there is none."""
    content = user_turn(request)
    if isinstance(content, str):
        return None
    [part] = [part for part in content if part["type"] == "input_audio"]
    assert part["input_audio"]["format"] == "wav"
    return soundfile.read(io.BytesIO(base64.b64decode(part["input_audio"]["data"])), dtype="float32")


def letter(request):
    """What the server answers: B to a written question, to a spoken one C if its clip is longer than a second, else B."""
    heard = clip(request)
    return "C" if heard is not None and len(heard[0]) > heard[1] else "B"


class ChatServer:
    """Context manager; `url` is the base URL.

    Attributes:
        script: Replies to the next requests, one each: a Reply, a function of the request that returns one, or None for
            the right answer. When it is used up, `always` is asked, then the right answer is given.
        requests: Parsed bodies that came, in order.
        headers: Their headers.
        most: Most requests that were there at a time.
    """

    def __init__(self, *script, always=None, delay=0.0, tokens=7):
        self.script, self.always, self.delay, self.tokens = list(script), always, delay, tokens
        self.requests, self.headers = [], []
        self.most = self._now = 0
        self._lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer._now += 1
                    outer.most = max(outer.most, outer._now)
                    outer.requests.append(request)
                    outer.headers.append(dict(self.headers))
                    step = outer.script.pop(0) if outer.script else outer.always
                if self.path != "/v1/chat/completions":
                    step = Reply(404, "no such page")
                reply = (step(request) if callable(step) else step) or outer.right(request)
                time.sleep(reply.delay + outer.delay)
                with outer._lock:
                    outer._now -= 1
                self.answer(reply)

            def answer(self, reply):
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                try:
                    for piece in [bytes([byte]) for byte in reply.body] if reply.drip else [reply.body]:
                        self.wfile.write(piece)
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
        text = f"<think>so</think><answer>The answer is {letter(request)}.</answer>"
        return Reply(200, completion(text, tokens=self.tokens))
