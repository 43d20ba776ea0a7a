"""Clips and images in every form, as a processor takes them."""

import io
import sys

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from tars_rewards.errors import AdapterError, MissingDependencyError
from tars_rewards.speech.media import load_image
from tars_rewards.speech.memo import join_padded
from tars_rewards.speech.waveform import load_waveform


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_every_form_of_an_image_is_the_same_image(pixels, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    forms = [pixels, Image.fromarray(pixels), path, str(path), {"path": str(path)}, {"bytes": content}]
    forms.append({"bytes": content, "path": "elsewhere.png"})
    for form in forms:
        image = load_image(form)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels)


def test_grey_and_transparent_images_become_rgb(pixels):
    for mode in ("L", "RGBA", "P"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, format="PNG")
        assert np.asarray(load_image({"bytes": buffer.getvalue()})).shape == (20, 30, 3)


@pytest.mark.parametrize("image", [3, {"url": "http://x"}, np.zeros((4, 4)), np.zeros((3, 4, 4), dtype=np.uint8)])
def test_an_image_of_another_form_is_refused(image):
    with pytest.raises(AdapterError, match=r"an image came as .*; expected a path"):
        load_image(image)


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(AdapterError, match=r"image .*no\.png cannot be read"):
        load_image(tmp_path / "no.png")
    with pytest.raises(AdapterError, match=r"image .*gone\.png cannot be read"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(AdapterError, match="image given as bytes cannot be read"):
        load_image({"bytes": b"no image"})


def test_a_broken_and_an_enormous_image_are_refused(pixels, monkeypatch):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    whole = buffer.getvalue()
    broken = whole[:33] + b"\0\0\0\5\xff\xff\xff\xff" + whole[41:]  # a chunk without a name
    with pytest.raises(AdapterError, match="image given as bytes cannot be read"):
        load_image({"bytes": broken})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(AdapterError, match="decompression bomb"):
        load_image({"bytes": whole})


def test_a_package_that_is_missing_is_named(monkeypatch, pixels, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match="pip install pillow"):
        load_image(pixels)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingDependencyError, match=r"needs soundfile, .*tars-rewards\[audio\]"):
        load_waveform(tmp_path / "clip.wav")


def test_a_clip_is_brought_to_the_rate_asked_for(tmp_path):
    samples = np.sin(np.arange(24_000) * 2 * np.pi * 440 / 24_000).astype(np.float32)
    soundfile.write(tmp_path / "clip.wav", samples, 24_000, subtype="FLOAT")
    np.testing.assert_array_equal(load_waveform(tmp_path / "clip.wav", sampling_rate=24_000), samples)
    assert len(load_waveform(tmp_path / "clip.wav")) == 16_000
    assert len(load_waveform(np.zeros(16_000), sampling_rate=24_000)) == 24_000


def test_tensors_are_joined_along_the_first_dimension_and_padded_in_the_others():
    long, short = torch.ones(2, 3, 4), torch.ones(1, 2, 5)
    joined = join_padded([long, short], 7.0)
    assert joined.shape == (3, 3, 5)
    assert torch.equal(joined[:2, :, :4], long)
    assert torch.equal(joined[2:, :2], short)
    assert (joined[:2, :, 4:] == 7).all()
    assert (joined[2:, 2:] == 7).all()
    masks = join_padded([torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)], 1.0)
    assert masks.tolist() == [[True, True, True], [False, False, False]]
