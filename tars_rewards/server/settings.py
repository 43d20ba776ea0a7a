"""Where the server listens, who may ask, and how much it takes on."""

from __future__ import annotations

import ipaddress
import math
import os
import string
from dataclasses import dataclass
from pathlib import Path

from tars_rewards.errors import ConfigError

_MIB = 2**20
_TOKEN_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-._~+/=")  # RFC 6750


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the HTTP server.

    Raises:
        ConfigError: A value is of the wrong type or out of range, or a request could be allowed that never fits the queue.

    Example:
        >>> ServerSettings(port=0, max_questions=16).host
        '127.0.0.1'
    """

    host: str = "127.0.0.1"
    """Address or name to listen on. Any other than the loopback interface needs a token, or `allow_unauthenticated`."""
    port: int = 8000
    """TCP port, 0 to 65535; 0: any free one, which the log names."""
    token_env: str = "TARS_REWARDS_TOKEN"
    """Environment variable that holds the bearer token; if it is unset and there is no `token_file`, none is asked for."""
    token_file: str | None = None
    """File whose content is the bearer token; it goes before the environment variable."""
    allow_unauthenticated: bool = False
    """Listen on other interfaces than loopback without a token: whoever reaches the port may then use the model."""
    open_metrics: bool = False
    """Serve /metrics without the token. The health endpoints never ask for it."""
    log_requests: bool = False
    """Log every request in a line, not only what was refused or failed."""

    max_body_bytes: int = 32 * _MIB
    """Size of a request's body, at least 1."""
    max_buffered_bytes: int = 256 * _MIB
    """Bodies of all requests that are being received or wait for their answer, together; at least `max_body_bytes`."""
    max_questions: int = 256
    """Questions of a request, at least 1."""
    max_completions: int = 1024
    """Completions of a request, over all of its questions; at least 1."""
    max_text_chars: int = 65_536
    """Characters of a completion, and of each other text of a question; at least 1."""
    max_audio_seconds: float = 120.0
    """Length of a clip in seconds, above 0. Decoded, a clip may be as large as one of this length in stereo at 48 kHz."""
    max_image_pixels: int = 16_000_000
    """Width times height of an image, at least 1."""

    queue_questions: int = 1024
    """Questions that wait; at least `max_questions`. A request that does not fit is refused as a whole, with status 429."""
    queue_completions: int = 8192
    """Completions that wait; at least `max_completions`."""
    batch_questions: int = 64
    """Questions that are scored together, at least 1."""
    batch_completions: int = 512
    """Completions that are scored together, at least 1; a question with more of them is scored by itself."""
    linger_seconds: float = 0.002
    """How long a batch that is not full waits for more, at least 0."""

    request_timeout: float = 150.0
    """Seconds from a request's beginning to its answer, above 0. OpenRLHF gives up after 180."""
    body_timeout: float = 30.0
    """Seconds that a request's body may take to arrive, above 0."""
    grace_seconds: float = 30.0
    """Seconds that accepted requests get to finish when the server is told to stop, at least 0."""
    special_tokens: tuple[str, ...] = ()
    """Texts to take out of OpenRLHF's queries beside the special tokens that are known; see `server.openrlhf`."""

    def __post_init__(self) -> None:
        for name in ("host", "token_env"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise self._wrong(name, "a non-empty text")
        for name in ("allow_unauthenticated", "open_metrics", "log_requests"):
            if not isinstance(getattr(self, name), bool):
                raise self._wrong(name, "true or false")
        if self.token_file is not None:
            if not isinstance(self.token_file, str | os.PathLike) or not os.fspath(self.token_file):
                raise self._wrong("token_file", "a file or None")
            object.__setattr__(self, "token_file", os.fspath(self.token_file))
        for name in _AT_LEAST_ONE:
            self._check_int(name, 1)
        self._check_int("port", 0)
        if self.port > 65_535:
            raise self._wrong("port", "at most 65535")
        for name in ("linger_seconds", "grace_seconds"):
            self._check_seconds(name, zero=True)
        for name in ("max_audio_seconds", "request_timeout", "body_timeout"):
            self._check_seconds(name, zero=False)
        for small, large in _FITS_INTO:
            if getattr(self, small) > getattr(self, large):
                raise self._wrong(large, f"at least {small}, which is {getattr(self, small)}")
        tokens = self.special_tokens
        if isinstance(tokens, str) or not all(isinstance(token, str) and token for token in tokens):
            raise self._wrong("special_tokens", "a list of non-empty texts")
        object.__setattr__(self, "special_tokens", tuple(tokens))

    def token(self) -> bytes | None:
        """The bearer token that clients must send; None where none is asked for.

        Raises:
            ConfigError: The file cannot be read, the token is empty or has characters that a header cannot carry, or there is
                none although the server is to listen on more than the loopback interface.
        """
        source, text = f"environment variable {self.token_env}", os.environ.get(self.token_env)
        if self.token_file is not None:
            source = f"token_file {self.token_file}"
            try:
                text = Path(self.token_file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{source} cannot be read: {error}; give a file that holds the token") from error
        if text is None:
            if not self.allow_unauthenticated and not is_loopback(self.host):
                raise ConfigError(
                    f"host {self.host!r} can be reached from other machines, and there is no token: set {self.token_env} or "
                    "token_file, or set allow_unauthenticated, or listen on 127.0.0.1"
                )
            return None
        if not text or not _TOKEN_CHARACTERS.issuperset(text):
            what = "nothing" if not text else "other characters"
            raise ConfigError(f"{source}: expected a token of letters, digits and -._~+/=, got {what}")
        return text.encode("ascii")

    def _check_int(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._wrong(name, f"an integer of at least {least}")

    def _check_seconds(self, name: str, *, zero: bool) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or (value == 0 and not zero):
            raise self._wrong(name, f"a finite number {'of at least' if zero else 'above'} 0")

    def _wrong(self, name: str, expected: str) -> ConfigError:
        value = getattr(self, name)
        return ConfigError(f"{name} must be {expected}, got {value!r} ({type(value).__name__})")


_AT_LEAST_ONE = (
    "max_body_bytes",
    "max_buffered_bytes",
    "max_questions",
    "max_completions",
    "max_text_chars",
    "max_image_pixels",
    "queue_questions",
    "queue_completions",
    "batch_questions",
    "batch_completions",
)
_FITS_INTO = (
    ("max_body_bytes", "max_buffered_bytes"),
    ("max_questions", "queue_questions"),
    ("max_completions", "queue_completions"),
)


def is_loopback(host: str) -> bool:
    """Whether an address or name is only reachable from this machine. Of names, only "localhost" counts."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
