"""Speech models in stock verl: a dataset's ``audios`` column reaches the rollout and the training forward.

verl 0.9 reads audio from a dataset but does not know a Speech LLM; vLLM knows some, but expects other token ids and
arguments than verl sends. Each module here closes the gaps of one place, with what :mod:`tars_rewards.speech` has for
every framework. Everything is gated on the model being one of :mod:`tars_rewards.speech.families`; for other models verl
and vLLM run their own code.

============  ==================================================================================
``dataset``   verl's dataset, handing on samples instead of paths
``loading``   verl's look-ups of processor, config and chat handling know the models
``rollout``   verl's agent loop and vLLM server: features of a completion, one placeholder per clip
``training``  the trained model in the FSDP engine
``ulysses``   the same model where each rank has a part of the tokens
``config``    what the user need not set
============  ==================================================================================
"""

from __future__ import annotations


def install() -> None:
    """Arrange for verl's modules to be patched when they are imported."""
    from tars_rewards_verl.audio import loading, rollout, training, ulysses

    loading.install()
    rollout.install()
    training.install()
    ulysses.install()
