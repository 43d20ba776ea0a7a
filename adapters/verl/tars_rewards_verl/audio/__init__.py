"""Speech models in stock verl and vLLM: a dataset's ``audios`` column reaches the rollout and the training forward.

verl 0.9 reads audio from a dataset but does not know a Speech LLM; vLLM knows some, but expects other token ids, weight
names and arguments than verl sends. Each module here closes the gaps of one place. Everything is gated on the model
being one of :mod:`tars_rewards.speech_models`; for other models verl and vLLM run their own code.

================  ==================================================================================
``waveform``      a clip, in whatever form a dataset has it, as samples
``dataset``       verl's dataset, handing on samples instead of paths
``processors``    the Hugging Face processors: samples to features, placeholders, positions
``loading``       verl's look-ups of processor, config and chat handling know the models
``rollout``       verl's agent loop and vLLM server: features of a completion, one placeholder per clip
``training``      the trained model: frozen tower, sharding, tokens that are never sampled
``encoder_cache`` a clip is encoded once, not once per completion and pass
``vllm_models``   vLLM's models take the pushed weights by the names that the trainer has
``config``        what the user need not set
================  ==================================================================================
"""

from __future__ import annotations


def install() -> None:
    """Arrange for verl's modules to be patched when they are imported."""
    from tars_rewards_verl.audio import loading, rollout, training

    loading.install()
    rollout.install()
    training.install()


def install_vllm() -> None:
    """Arrange for vLLM's models to be patched when they are imported."""
    from tars_rewards_verl.audio import vllm_models

    vllm_models.install()
