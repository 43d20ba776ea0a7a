"""The server as a process: its socket, its logs, its signals."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from tars_rewards.errors import ConfigError
from tars_rewards.server.app import create_app
from tars_rewards.server.logs import configure, log
from tars_rewards.server.service import Service
from tars_rewards.server.settings import ServerSettings

if TYPE_CHECKING:
    from tars_rewards.scoring.scorer import Scorer

_BACKLOG = 2048
_LAST_WRITES = 5  # seconds that answers get to reach their clients after the last was made
_KEEP_ALIVE = 75  # seconds that a connection may be idle: clients that pool theirs close them sooner


def run(scorer_factory: Callable[[], Scorer], settings: ServerSettings | None = None) -> int:
    """Serve until SIGTERM or SIGINT; call it in the main thread.

    After the signal nothing more is accepted (status 503), what was accepted is finished for as long as `grace_seconds`, then
    the server ends. A second signal ends it at once. Where the scorer's thread cannot be ended, because it loads a model or
    is in a forward pass, the process is: this function then does not return.

    Args:
        scorer_factory: Makes the scorer, such as ``lambda: Scorer(model, config=config)``.
        settings: Address and limits; None: the defaults.

    Returns:
        0, or 1 if accepted requests could not be finished.

    Raises:
        ConfigError: The address cannot be listened on, or what `create_app` raises. What `scorer_factory` raises is passed
            on when the server has ended.
    """
    settings = ServerSettings() if settings is None else settings
    server: _Server | None = None

    def fail() -> None:
        if server is not None:
            server.should_exit = True

    app = create_app(scorer_factory, settings, on_failure=fail)
    service: Service = app.state.service
    listener = _listen(settings)
    configure()
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        ws="none",
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_LAST_WRITES,
    )
    server = _Server(config, service)
    host, port = listener.getsockname()[:2]
    log(logging.INFO, "listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}", pid=os.getpid())
    server.run(sockets=[listener])
    if service.failure is not None:
        raise service.failure
    code = 0 if server.all_answered else 1
    log(logging.INFO if not code else logging.ERROR, "stopped", all_answered=server.all_answered)
    if not service.close():
        sys.stderr.flush()
        os._exit(code)
    return code


class _Server(uvicorn.Server):
    """Uvicorn, but on a signal it goes on to answer until everything accepted is finished."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._stopping: asyncio.Task[None] | None = None
        self._signals = 0
        self.all_answered = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; for good at the second signal."""
        # Uvicorn would raise the signal again when it has stopped, and the exit code would not be 0.
        self._signals += 1

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; returns whether to leave the loop."""
        if self._signals and self._stopping is None:
            log(logging.INFO, "stopping", grace_seconds=self._service.settings.grace_seconds)
            self._service.stop()
            self._stopping = asyncio.create_task(self._drain())
        if self._signals > 1:
            self.all_answered = False
            self.force_exit = self.should_exit = True
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        self.all_answered = await self._service.drained()
        self.should_exit = True


def _listen(settings: ServerSettings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {error}; choose another port, or 0 for any free one"
        ) from error
