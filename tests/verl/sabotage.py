"""Ways in which a run goes wrong without verl noticing; ``SABOTAGE`` names one. Loaded by VERL_USE_EXTERNAL_MODULES."""

import functools
import os

from tars_rewards.integration.patching import after_import

SERVER = "verl.workers.rollout.vllm_rollout.vllm_async_server"


def silence(module):
    """Only vLLM's copy of the audio: the actor hears the question, the rollout engine does not."""
    stock = module.TokensPrompt

    def tokens_prompt(**kwargs):
        data = kwargs.get("multi_modal_data") or {}
        if data.get("audio"):
            kwargs["multi_modal_data"] = {**data, "audio": [clip * 0 for clip in data["audio"]]}
        return stock(**kwargs)

    module.TokensPrompt = tokens_prompt


def drop(module):
    """One spoken completion fails; verl logs that and trains on the rest."""
    stock = module.vLLMHttpServer.generate
    failed = []

    @functools.wraps(stock)
    async def generate(self, prompt_ids, *args, audio_data=None, **kwargs):
        if audio_data and not failed:
            failed.append(prompt_ids)
            raise RuntimeError("the encoder ran out of memory")
        return await stock(self, prompt_ids, *args, audio_data=audio_data, **kwargs)

    module.vLLMHttpServer.generate = generate


def push(module):
    """Weights arrive at vLLM under a name that it does not know."""
    stock = module.BucketedWeightSender.async_send_weights

    async def async_send_weights(self, weights):
        return await stock(self, ((f"nonsense.{name}", tensor) for name, tensor in weights))

    module.BucketedWeightSender.async_send_weights = async_send_weights


def lose(module):
    """After the first push vLLM gets the weights of that one again and again, and says thank you."""
    stock = module.BucketedWeightSender.async_send_weights
    first = []

    async def async_send_weights(self, weights):
        if not first:
            first.extend((name, tensor.clone()) for name, tensor in weights)
        return await stock(self, iter(first))

    module.BucketedWeightSender.async_send_weights = async_send_weights


def expand(module):
    """vLLM gets prompts in which the placeholders are expanded already, and expands them once more."""
    module.SpeechProcessor.collapse = lambda self, token_ids, clips: list(token_ids)


PUSH = "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer"
WAYS = {
    "silence": (SERVER, silence),
    "drop": (SERVER, drop),
    "push": (PUSH, push),
    "lose": (PUSH, lose),
    "expand": ("tars_rewards.speech.processors", expand),
}
if os.environ.get("SABOTAGE"):
    after_import(*WAYS[os.environ["SABOTAGE"]])
