"""The routes, and what stands before them: the token, and counting."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tars_rewards.server import openrlhf
from tars_rewards.server.logs import log
from tars_rewards.server.questions import read_questions
from tars_rewards.server.refusal import Refusal
from tars_rewards.server.service import Service, State
from tars_rewards.server.settings import ServerSettings

if TYPE_CHECKING:
    from tars_rewards.scoring.scorer import Scorer

_JSON = "application/json"
_OPEN = ("/healthz", "/readyz")
_ROUTES = ("/v1/rewards", "/reward", "/metrics", *_OPEN)
_CLIENT_GONE = 499  # not a status of the standard: nobody receives it, it is counted


def create_app(
    scorer_factory: Callable[[], Scorer],
    settings: ServerSettings | None = None,
    *,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The server as an ASGI application; ``app.state.service`` is its `Service`.

    Args:
        scorer_factory: Makes the scorer, in a thread of its own, when the application starts.
        settings: The limits; None: the defaults.
        on_failure: Called, in any thread, when the scorer could not be made or its thread died.

    Raises:
        ConfigError: The token cannot be had, or there is none where the settings require one.
    """
    settings = ServerSettings() if settings is None else settings
    service = Service(scorer_factory, settings, on_failure)
    token = settings.token()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(
        title="tars-rewards", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    app.state.service = service
    app.add_middleware(_Gate, service=service, token=token)
    app.add_exception_handler(Refusal, partial(_refused, service))
    app.add_exception_handler(HTTPException, partial(_not_routed, service))
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, partial(_broken, service))

    @app.post("/v1/rewards", response_model=None)
    async def rewards(request: Request) -> Response:
        body = await service.answer(request, partial(read_questions, settings=settings), partial(_rewards, service))
        return Response(body, media_type=_JSON)

    @app.post("/reward", response_model=None)
    async def reward(request: Request) -> Response:
        read = partial(openrlhf.read_judgements, special=service.special, settings=settings)
        return Response(await service.answer(request, read, openrlhf.answer), media_type=_JSON)

    @app.get("/healthz", response_model=None)
    async def healthz() -> Response:
        return _status(service, 500 if service.state is State.FAILED else 200)

    @app.get("/readyz", response_model=None)
    async def readyz() -> Response:
        return _status(service, 200 if service.state is State.READY else 503)

    @app.get("/metrics", response_model=None)
    async def metrics() -> Response:
        page, content_type = service.metrics.page()
        return Response(page, headers={"Content-Type": content_type})

    return app


class _Gate:
    """Asks for the token; counts, times and logs every request."""

    def __init__(self, app: ASGIApp, service: Service, token: bytes | None) -> None:
        self._app = app
        self._service = service
        self._token = token
        self._open = _OPEN + (("/metrics",) if service.settings.open_metrics else ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500
        route = scope["path"] if scope["path"] in _ROUTES else "other"

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._admits(scope):
                await self._app(scope, receive, observed)
            else:
                refusal = Refusal(
                    401, "unauthorized", "expected the header Authorization: Bearer TOKEN with the right token"
                )
                await _refused(self._service, None, refusal)(scope, receive, observed)
        finally:
            seconds = time.perf_counter() - begun
            self._service.metrics.requests.labels(route, str(status)).inc()
            self._service.metrics.request_seconds.labels(route).observe(seconds)
            if self._service.settings.log_requests:
                log(logging.INFO, "request", route=route, status=status, seconds=round(seconds, 4))

    def _admits(self, scope: Scope) -> bool:
        if self._token is None or scope["path"] in self._open:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        return hmac.compare_digest(token.strip(), self._token) and scheme.lower() == b"bearer"


def _rewards(service: Service, rows: list[Any]) -> bytes:
    identity = json.dumps(service.identity).encode()
    return b'{"rewards": [' + b", ".join(rows) + b'], "scorer": ' + identity + b"}"


def _status(service: Service, status: int) -> Response:
    body = json.dumps({"status": service.state.value}).encode()
    headers = {"Retry-After": "5"} if status == 503 else None
    return Response(body, status, headers, media_type=_JSON)


def _refused(service: Service, request: Request | None, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    service.metrics.errors.labels(refusal.kind).inc()
    # What only says "not now" or "not you" is counted, not logged: a log must not grow with what anyone can send.
    if request is not None and refusal.status not in (401, 429, 503):
        level = logging.ERROR if refusal.status >= 500 else logging.WARNING
        log(
            level, "refused", route=request.url.path, status=refusal.status, type=refusal.kind, field=refusal.field,
            message=refusal.message,
        )  # fmt: skip
    return Response(refusal.body, refusal.status, refusal.headers, media_type=_JSON)


def _not_routed(service: Service, request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    service.metrics.errors.labels(kind).inc()
    refusal = Refusal(error.status_code, kind, f"{request.method} is not answered here; see {', '.join(_ROUTES)}")
    return Response(refusal.body, refusal.status, dict(error.headers or {}), media_type=_JSON)


def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)


def _broken(service: Service, request: Request, error: Exception) -> Response:
    # Raised on to the server, which logs it.
    return _refused(service, None, Refusal(500, "internal", "the server failed; its log has the cause"))
