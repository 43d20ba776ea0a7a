import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tars_rewards.cache import EmbeddingStore


def vector_of(text: str) -> np.ndarray:
    return np.full(64, len(text), np.float32)


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


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "nan", "shape", "pickle"])
def test_damaged_files_are_embedded_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    store = EmbeddingStore(tmp_path, model_id="m")
    store.put("text", vector_of("text"))
    (path,) = tmp_path.rglob("*.npy")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(b"garbage")
    elif damage == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    else:
        np.save(path, np.full(4, np.nan, np.float32) if damage == "nan" else np.ones((2, 2), np.float32))
    assert store.get("text") is None
    assert "embedded again" in caplog.text
    store.put("text", vector_of("text"))
    np.testing.assert_array_equal(store.get("text"), vector_of("text"))


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        EmbeddingStore(tmp_path, model_id="m").put("text", vector_of("text"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


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
    assert len(list(tmp_path.rglob("*.npy"))) == 20
    assert list(tmp_path.rglob("*.tmp")) == []


def test_the_process_test_would_see_a_torn_write(tmp_path: Path) -> None:
    """The same with a store that writes in place: readers meet half-written files."""
    in_place = """
import tars_rewards.cache as cache
def put(self, text, vector):
    path = self._path(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb", buffering=0) as file:
        np.save(file, vector)
cache.EmbeddingStore.put = put
"""
    code = HAMMER.replace("store, torn", in_place + "store, torn", 1)
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    assert sum(int(process.communicate(timeout=60)[0]) for process in processes) > 0
