"""The one class of torchaudio that Granite Speech's feature extractor uses, for machines without torchaudio.

A user of Granite Speech installs torchaudio. Its wheels that fit a CPU build of torch are not in every registry.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import SimpleNamespace
from typing import Any


def provide() -> None:
    """Let transformers find the stand-in, if torchaudio is not installed."""
    if importlib.util.find_spec("torchaudio") is not None:
        return
    from transformers.utils import import_utils

    module: Any = importlib.import_module("transformers.models.granite_speech.feature_extraction_granite_speech")
    module.torchaudio = SimpleNamespace(transforms=SimpleNamespace(MelSpectrogram=_mel_spectrogram))
    _, message = import_utils.BACKENDS_MAPPING["torchaudio"]
    import_utils.BACKENDS_MAPPING["torchaudio"] = (lambda: True, message)


def _mel_spectrogram(*, sample_rate: int, n_fft: int, win_length: int, hop_length: int, n_mels: int) -> Any:
    import torch
    from transformers.audio_utils import mel_filter_bank

    filters = torch.tensor(
        mel_filter_bank(n_fft // 2 + 1, n_mels, 0.0, sample_rate / 2, sample_rate, norm=None, mel_scale="htk"),
        dtype=torch.float32,
    )

    class MelSpectrogram(torch.nn.Module):
        """Power spectrogram on the HTK mel scale: [batch, samples] to [batch, mels, frames]."""

        def forward(self, waveform: Any) -> Any:
            window = torch.hann_window(win_length)
            spectrum = torch.stft(waveform, n_fft, hop_length, win_length, window, return_complex=True)
            return (spectrum.abs().square().transpose(-1, -2) @ filters).transpose(-1, -2)

    return MelSpectrogram()
