"""What the user need not set for audio, and what follows from a model's names: weights in vLLM, LoRA, versions."""

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.utils import hf_processor

from tars_rewards.errors import AdapterError, UnsupportedConfigError
from tars_rewards.integration import patching
from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO
from tars_rewards.speech.vllm_models import QWEN2_AUDIO_PREFIXES, THINKER_PREFIXES
from tars_rewards_verl.audio.config import check_config, prepare_config

FAMILIES = {"qwen2_audio": QWEN2_AUDIO, "qwen2_5_omni": QWEN2_5_OMNI}
BOTH = pytest.mark.parametrize("name", FAMILIES)


# ---- weight names


def test_pushed_weights_have_the_names_of_vllms_models(tiny):
    """Names in the trained model, mapped, are those of the published checkpoint's weights, mapped by vLLM."""
    from safetensors import safe_open
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration, Qwen2AudioForConditionalGeneration
    from vllm.model_executor.models.utils import WeightsMapper

    trained = {
        "qwen2_audio": Qwen2AudioForConditionalGeneration.from_pretrained(tiny / "qwen2_audio").state_dict(),
        "qwen2_5_omni": Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(tiny / "qwen2_5_omni").state_dict(),
    }
    audio = set(WeightsMapper(orig_to_new_prefix=QWEN2_AUDIO_PREFIXES).apply_list(list(trained["qwen2_audio"])))
    assert {name.split(".")[0] for name in audio} == {"audio_tower", "multi_modal_projector", "language_model"}
    assert {"language_model.lm_head.weight", "language_model.model.embed_tokens.weight"} <= audio
    assert all(name.split(".")[1] in ("model", "lm_head") for name in audio if name.startswith("language_model"))
    # What save_pretrained writes, and the published names, lead to the same.
    mapper = WeightsMapper(orig_to_new_prefix=QWEN2_AUDIO_PREFIXES)
    with safe_open(tiny / "qwen2_audio" / "model.safetensors", "pt") as file:
        assert set(mapper.apply_list(list(file.keys()))) == audio
    assert set(mapper.apply_list(sorted(audio))) == audio

    stock = {
        "thinker.lm_head.": "language_model.lm_head.",
        "thinker.model.": "language_model.model.",
        "thinker.": "",
        "talker.": None,
        "token2wav.": None,
    }
    ours = WeightsMapper(orig_to_new_prefix=stock) | WeightsMapper(orig_to_new_prefix=THINKER_PREFIXES)
    with safe_open(tiny / "qwen2_5_omni" / "model.safetensors", "pt") as file:
        published = set(WeightsMapper(orig_to_new_prefix=stock).apply_list(list(file.keys())))
        assert set(ours.apply_list(list(file.keys()))) == published
    assert set(ours.apply_list(list(trained["qwen2_5_omni"]))) == published


# ---- configuration


def config(tiny, name, *overrides):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[f"actor_rollout_ref.model.path={tiny / name}", *overrides])


def test_the_user_need_not_set_what_audio_needs(tiny):
    prepared = config(tiny, "qwen2_5_omni", "actor_rollout_ref.actor.freeze_vision_tower=True")
    for _ in range(2):
        prepare_config(prepared)
        assert prepared.data.custom_cls.name == "SpeechDataset"
        assert prepared.actor_rollout_ref.model.override_config.freeze_towers is True
        limits = prepared.actor_rollout_ref.rollout.engine_kwargs.vllm.limit_mm_per_prompt
        assert dict(limits) == {"image": 0, "video": 0}
    from verl.utils.dataset.rl_dataset import get_dataset_class

    assert get_dataset_class(prepared.data).__name__ == "SpeechDataset"


def test_what_the_user_set_stays(tiny):
    prepared = config(
        tiny,
        "qwen2_5_omni",
        "data.custom_cls.path=mine.py",
        "data.custom_cls.name=Mine",
        "+actor_rollout_ref.rollout.engine_kwargs.vllm.limit_mm_per_prompt={image:1}",
        "actor_rollout_ref.model.lora_rank=8",
        "actor_rollout_ref.model.exclude_modules=mine",
    )
    prepare_config(prepared)
    assert dict(prepared.data.custom_cls) == {"path": "mine.py", "name": "Mine"}
    assert dict(prepared.actor_rollout_ref.rollout.engine_kwargs.vllm.limit_mm_per_prompt) == {"image": 1}
    assert prepared.actor_rollout_ref.model.exclude_modules == "mine"
    assert prepared.actor_rollout_ref.model.override_config.freeze_towers is False


def test_text_models_get_the_dataset_alone(tiny):
    prepared = config(tiny, "text")
    before = OmegaConf.to_container(prepared)
    prepare_config(prepared)
    after = OmegaConf.to_container(prepared)
    assert after["data"].pop("custom_cls")["name"] == "SpeechDataset"
    before["data"].pop("custom_cls")
    assert after == before


@BOTH
def test_lora_reaches_the_decoder_and_no_tower(tiny, name):
    from peft import LoraConfig, get_peft_model
    from verl.utils.model import get_hf_auto_model_class
    from verl.workers.config.model import HFModelConfig

    prepared = config(tiny, name, "actor_rollout_ref.model.lora_rank=8")
    prepare_config(prepared)
    model_config = HFModelConfig(path=str(tiny / name), override_config={"attn_implementation": "sdpa"})
    model = get_hf_auto_model_class(model_config.hf_config).from_pretrained(tiny / name, config=model_config.hf_config)
    lora = LoraConfig(
        r=4, target_modules="all-linear", exclude_modules=prepared.actor_rollout_ref.model.exclude_modules
    )
    adapted = {
        label.rsplit(".lora_A", 1)[0].removeprefix("base_model.model.")
        for label, _ in get_peft_model(model, lora).named_parameters()
        if ".lora_A" in label
    }
    family = FAMILIES[name]
    assert any(label.startswith(f"{family.decoder}.layers.2.mlp") for label in adapted)
    assert not [label for label in adapted if label.startswith(family.towers)]


def test_fsdp1_can_freeze_a_part(tiny):
    prepared = config(
        tiny,
        "qwen2_audio",
        "actor_rollout_ref.actor.freeze_vision_tower=True",
        "actor_rollout_ref.actor.strategy=fsdp",
    )
    prepare_config(prepared)
    assert prepared.actor_rollout_ref.actor.fsdp_config.use_orig_params is True


# ---- what is refused for speech models, and for them alone

LORA = ["actor_rollout_ref.model.lora_rank=8"]


@BOTH
@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("actor_rollout_ref.model.use_fused_kernels", "True", "takes no audio features"),
        ("actor_rollout_ref.rollout.name", "sglang", "through verl's vLLM rollout alone"),
    ],
)
def test_what_speech_models_cannot_be_trained_with_is_refused(tiny, name, key, value, why):
    check_config(config(tiny, name, "actor_rollout_ref.rollout.name=vllm"))
    with pytest.raises(UnsupportedConfigError, match=rf"{key}={value}: .*{why}"):
        check_config(config(tiny, name, "actor_rollout_ref.rollout.name=vllm", f"++{key}={value}"))
    check_config(config(tiny, "text", f"++{key}={value}"))


def test_adapters_go_to_vllm_only_where_its_model_takes_them(tiny):
    from vllm.model_executor.models.interfaces import supports_lora
    from vllm.model_executor.models.qwen2_audio import Qwen2AudioForConditionalGeneration

    assert not supports_lora(Qwen2AudioForConditionalGeneration)
    assert not QWEN2_AUDIO.vllm_lora
    rollout = "actor_rollout_ref.rollout.name=vllm"
    check_config(config(tiny, "qwen2_5_omni", rollout, *LORA))
    check_config(config(tiny, "qwen2_audio", rollout, *LORA, "actor_rollout_ref.model.lora.merge=True"))
    for adapters in (LORA, ["actor_rollout_ref.model.lora_adapter_path=x"], ["++actor_rollout_ref.model.lora.rank=8"]):
        with pytest.raises(
            UnsupportedConfigError, match=r"lora\.merge=False: vLLM's Qwen2-Audio takes no LoRA adapters"
        ):
            check_config(config(tiny, "qwen2_audio", rollout, *adapters))


@pytest.mark.parametrize("path", ["hdfs://cluster/model", "/only/on/another/node"])
def test_a_tower_that_cannot_be_frozen_is_not_left_unfrozen_in_silence(tiny, path):
    elsewhere = f"actor_rollout_ref.model.path={path}"
    check_config(config(tiny, "qwen2_5_omni", elsewhere))
    with pytest.raises(
        UnsupportedConfigError, match=rf"freeze_vision_tower=True: .*cannot be read here .*path={path}\)"
    ):
        check_config(config(tiny, "qwen2_5_omni", elsewhere, "actor_rollout_ref.actor.freeze_vision_tower=True"))
    check_config(config(tiny, "text", "actor_rollout_ref.actor.freeze_vision_tower=True"))


@BOTH
def test_an_untested_verl_stops_speech_models_and_no_others(tiny, monkeypatch, name):
    monkeypatch.setattr(patching, "installed_version", lambda _: "1.0.0")
    assert hf_processor(str(tiny / "text")) is None
    with pytest.raises(AdapterError, match=r"tested with verl 0\.9\.1, found 1\.0\.0"):
        hf_processor(str(tiny / name))
