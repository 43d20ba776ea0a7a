import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tars_rewards.cache import EmbeddingStore


def vector_of(text: str) -> np.ndarray:
    return np.full(64, len(text), np.float32)


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_round_trip(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "new" / "place", model_id="m")
    assert store.get("a text") is None
    store.put("a text", vector_of("a text"))
    np.testing.assert_array_equal(store.get("a text"), vector_of("a text"))
    np.testing.assert_array_equal(EmbeddingStore(tmp_path / "new" / "place", model_id="m").get("a text"), [6] * 64)
    assert store.get("another text") is None


def test_models_do_not_see_each_others_vectors(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path, model_id="m").put("text", vector_of("text"))
    assert EmbeddingStore(tmp_path, model_id="n").get("text") is None


def test_odd_texts(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, model_id="m")
    for text in ("", "é", "\ud800", "x" * 100_000, "../../etc"):
        store.put(text, vector_of(text))
        np.testing.assert_array_equal(store.get(text), vector_of(text))
    assert all(path.resolve().is_relative_to(tmp_path.resolve()) for path in tmp_path.rglob("*"))


DAMAGE = {
    "cut": lambda content: content[:-10],
    "cut to whole values": lambda content: content[:-8],
    "longer": lambda content: content + b"\0" * 4,
    "empty": lambda content: b"",
    "checksum only": lambda content: content[-16:],
    "garbage": lambda content: b"garbage",
    "zip": lambda content: b"PK\x03\x04" + content[4:],
    "zeros": lambda content: bytes(len(content)),
    "one bit": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "one bit of the checksum": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_files_are_embedded_again(tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture) -> None:
    store = EmbeddingStore(tmp_path, model_id="m")
    store.put("text", vector_of("text"))
    (path,) = files(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert store.get("text") is None
    assert "embedded again" in caplog.text
    store.put("text", vector_of("text"))
    np.testing.assert_array_equal(store.get("text"), vector_of("text"))


def test_no_damaged_byte_goes_unnoticed(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, model_id="m")
    store.put("text", np.arange(8, dtype=np.float32))
    (path,) = files(tmp_path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(500):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(len(damaged), size=rng.integers(1, 9))] ^= np.uint8(rng.integers(1, 256))
        path.write_bytes(damaged.tobytes())
        assert store.get("text") is None or damaged.tobytes() == content


def test_a_file_of_another_text_in_its_place(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, model_id="m")
    store.put("text", vector_of("text"))
    (mine,) = files(tmp_path)
    store.put("other one", vector_of("other one"))
    (other,) = set(files(tmp_path)) - {mine}
    mine.write_bytes(other.read_bytes())
    assert store.get("text") is None


def test_something_that_is_no_file_in_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = EmbeddingStore(tmp_path, model_id="m")
    store.put("text", vector_of("text"))
    (path,) = files(tmp_path)
    path.unlink()
    path.mkdir()
    assert store.get("text") is None
    assert "cannot be read" in caplog.text
    store.put("text", vector_of("text"))
    assert "in the way" in caplog.text
    assert files(tmp_path) == []


def test_a_file_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    assert EmbeddingStore(tmp_path, model_id="m").get("text") is None
    assert "Permission denied" in caplog.text


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_others_may_read_what_the_umask_lets_them(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        EmbeddingStore(tmp_path, model_id="m").put("text", vector_of("text"))
    finally:
        os.umask(before)
    (path,) = files(tmp_path)
    assert path.stat().st_mode & 0o777 == mode


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        EmbeddingStore(tmp_path, model_id="m").put("text", vector_of("text"))
    assert files(tmp_path) == []


# Each process writes and reads the same texts as the others; a vector holds its text's length 64 times over.
HAMMER = """
import sys
import numpy as np
from tars_rewards.cache import EmbeddingStore
store, torn, rounds = EmbeddingStore(sys.argv[1], model_id="m"), 0, 20
for number in range(rounds):
    for length in range(1, 21):
        other = (length + number + int(sys.argv[2])) % 20 + 1
        store.put("x" * other, np.full(64, other, np.float32))
        got = store.get("x" * length)
        torn += (number > 0 and got is None) or (got is not None and not (got.shape == (64,) and (got == length).all()))
print(torn)
"""


def test_many_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HAMMER, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    assert [process.communicate(timeout=60) for process in processes] == [("0\n", "")] * 4
    assert len(files(tmp_path)) == 20  # nothing written aside is left


def test_the_process_test_would_see_a_torn_write(tmp_path: Path) -> None:
    """The same with a store that writes in place: readers meet half-written files."""
    in_place = """
import tars_rewards.cache as cache
def put(self, text, vector):
    path = self._path(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = vector.tobytes()
    with open(path, "wb", buffering=0) as file:
        file.write(values)
        file.write(cache._checksum(path, values))
cache.EmbeddingStore.put = put
"""
    code = HAMMER.replace("store, torn", in_place + "store, torn", 1)
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    assert sum(int(process.communicate(timeout=60)[0]) for process in processes) > 0
