import multiprocessing
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


def hammer(directory: str, number: int) -> int:
    """Write and read the same texts as the other processes; returns how many reads were whole."""
    store, whole = EmbeddingStore(directory, model_id="m"), 0
    for round_ in range(15):
        for length in range(1, 21):
            text = "x" * ((length + number + round_) % 20 + 1)
            store.put(text, vector_of(text))
            got = store.get("x" * length)
            if got is not None:
                whole += int(got.shape == (64,) and bool((got == length).all()))
            else:
                whole += length > 0 and round_ == 0  # not written by anybody yet
    return whole


def test_many_processes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        whole = pool.starmap(hammer, [(str(tmp_path), number) for number in range(4)])
    assert whole == [300] * 4
    assert len(list(tmp_path.rglob("*.npy"))) == 20
    assert list(tmp_path.rglob("*.tmp")) == []
