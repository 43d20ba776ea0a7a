"""Clips to listen to, embedded in the page."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_KINDS = (
    (b"RIFF", 8, b"WAVE", "audio/wav"),
    (b"fLaC", 0, b"", "audio/flac"),
    (b"OggS", 0, b"", "audio/ogg"),
    (b"ID3", 0, b"", "audio/mpeg"),
    (b"\xff\xfb", 0, b"", "audio/mpeg"),
)
"""First bytes, and the bytes at a place after them, of what browsers play."""


@dataclass(frozen=True)
class Clip:
    """A clip of a question."""

    uri: str | None  #: data URI; None: it is not embedded
    note: str | None = None  #: why it is not


class ClipBox:
    """Embeds clips up to a number and a size, and counts those left out.

    Args:
        most: Clips at most.
        megabytes: Size of a clip at most.
    """

    def __init__(self, most: int, megabytes: float) -> None:
        self._most = most
        self._bytes = int(megabytes * 1e6)
        self._known: dict[Path, Clip] = {}
        self._left_out: Counter[str] = Counter()

    @property
    def embedded(self) -> int:
        """How many clips are in the page."""
        return sum(clip.uri is not None for clip in self._known.values())

    @property
    def left_out(self) -> dict[str, int]:
        """How many are not, by reason."""
        return dict(self._left_out)

    def clip(self, path: Path) -> Clip:
        """The clip of a file."""
        if path not in self._known:
            self._known[path] = self._embed(path)
            if note := self._known[path].note:
                self._left_out[note] += 1
        return self._known[path]

    def _embed(self, path: Path) -> Clip:
        if not path.is_file():
            return Clip(None, "the file is no longer where it was")
        if self.embedded >= self._most:
            return Clip(None, f"more than {self._most} clips")
        if path.stat().st_size > self._bytes:
            return Clip(None, f"larger than {self._bytes / 1e6:g} MB")
        content = path.read_bytes()
        kind = _kind(content)
        if kind is None:
            return Clip(None, "not WAV, FLAC, Ogg or MP3")
        return Clip(f"data:{kind};base64,{base64.b64encode(content).decode()}")


def _kind(content: bytes) -> str | None:
    for begin, at, more, kind in _KINDS:
        if content.startswith(begin) and content[at : at + len(more)] == more:
            return kind
    return None
