"""A request's body under its limits, and a request that may time out or lose its client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from prometheus_client import Gauge
from starlette.requests import ClientDisconnect, Request

from tars_rewards.server.refusal import Refusal, too_large
from tars_rewards.server.settings import ServerSettings

_Result = TypeVar("_Result")


class Bodies:
    """Receives bodies, and keeps count of the bytes that are held."""

    def __init__(self, settings: ServerSettings, held: Gauge) -> None:
        self._settings = settings
        self._held = 0
        self._gauge = held

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request. Its bytes count as held until the context ends.

        Raises:
            Refusal: It is no JSON by its headers, too large, or too slow; or too much is held already.
            ClientDisconnect: The client went away.
        """
        # A browser sends this type to another site only after asking; so no page can use a server on loopback.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "unsupported_media_type", "expected a body with Content-Type: application/json")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "unsupported_media_type", "expected a body without Content-Encoding; send it as it is")
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._settings.max_body_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        try:
            try:
                with anyio.fail_after(self._settings.body_timeout):
                    await self._read(request, chunks)
            except TimeoutError as error:
                message = f"the body did not arrive within {self._settings.body_timeout:g} s"
                raise Refusal(408, "timeout", message) from error
            body = b"".join(chunks)
            chunks[:] = [body]
            yield body
        finally:
            self._count(-sum(map(len, chunks)))

    async def _read(self, request: Request, chunks: list[bytes]) -> None:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self._settings.max_body_bytes:
                raise self._too_large()
            if self._held + len(chunk) > self._settings.max_buffered_bytes:
                message = "the server holds as many bytes of requests as it may; send the request again later"
                raise Refusal(429, "busy", message, retry_after=1)
            chunks.append(chunk)
            self._count(len(chunk))

    def _count(self, size: int) -> None:
        self._held += size
        self._gauge.set(self._held)

    def _too_large(self) -> Refusal:
        limit = self._settings.max_body_bytes
        return too_large(f"the body is over {limit} bytes; send fewer questions at once, or shorter clips", None)


class Patience:
    """Waits for results on behalf of a request whose body has been received, up to its deadline.

    Args:
        request: Whose client may go away.
        deadline: By ``time.monotonic``.
    """

    def __init__(self, request: Request, deadline: float) -> None:
        self._deadline = deadline
        self._gone = asyncio.ensure_future(_disconnected(request))

    async def __aenter__(self) -> Patience:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.cancel()

    async def wait(self, result: Awaitable[_Result]) -> _Result:
        """The result of a future.

        Raises:
            Refusal: 504, the deadline passed first.
            ClientDisconnect: The client went away first.
        """
        future = asyncio.ensure_future(result)
        left = max(0.0, self._deadline - time.monotonic())
        await asyncio.wait({future, self._gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        future.cancel()
        if self._gone.done():
            raise ClientDisconnect
        raise Refusal(
            504, "timeout", "the request was not answered in time and is given up; send less at once, or later"
        )


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def parse_json(body: bytes) -> dict[str, Any]:
    """The object that a body holds.

    Raises:
        Refusal: 400, it is no JSON; 422, it is no object.
    """
    try:
        # Numbers are made by Python functions, because these let other threads run: a clip as an array of millions of
        # numbers would else hold up the event loop until it is read.
        parsed = json.loads(body, parse_float=lambda text: float(text), parse_int=_integer, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "bad_json", f"the body is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Refusal(422, "invalid", f"expected an object, got {type(parsed).__name__}")
    return parsed


def _integer(text: str) -> int:
    return int(text)


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON's")
