"""The trainer and engine look-ups: stock classes without the key, composed ones with it, whoever registered them."""

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.v1 import PPOTrainerColocateAsync, PPOTrainerSync, get_trainer_cls, register_trainer, trainer_base
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

from tars_rewards.errors import UnsupportedConfigError
from tars_rewards_verl.dispatch import compose_trainer, selecting_class
from tars_rewards_verl.engine import PoolingMixin, compose_engine
from tars_rewards_verl.trainer import TARSTrainerMixin


class Built(Exception):
    """Carries the class that was about to be initialised."""


@pytest.fixture
def init_tells_class(monkeypatch):
    def init(self, config):
        raise Built(type(self))

    monkeypatch.setattr(trainer_base.PPOTrainer, "__init__", init)
    monkeypatch.setattr(TARSTrainerMixin, "__init__", init)


def built(cls, custom):
    with pytest.raises(Built) as info:
        cls(config=OmegaConf.create({"reward": {"custom": custom} if custom else {}}))
    return info.value.args[0]


def test_without_the_key_the_stock_class_itself_is_built(init_tells_class):
    assert built(get_trainer_cls("sync"), None) is PPOTrainerSync
    assert built(get_trainer_cls("colocate_async"), None) is PPOTrainerColocateAsync


def test_with_the_key_the_mixin_is_in_front(init_tells_class):
    cls = built(get_trainer_cls("sync"), "tars_rewards.verl:TARSReward")
    assert cls.__mro__[1:3] == (TARSTrainerMixin, PPOTrainerSync)


def test_what_the_lookup_returns_is_still_a_trainer_class():
    assert issubclass(get_trainer_cls("sync"), PPOTrainerSync)


def test_a_trainer_registered_later_by_another_package_is_composed(init_tells_class, monkeypatch):
    monkeypatch.setattr(trainer_base, "TRAINER_REGISTRY", dict(trainer_base.TRAINER_REGISTRY))

    @register_trainer("omni_sync")
    class PPOTrainerOmniSync(PPOTrainerSync):
        pass

    cls = built(get_trainer_cls("omni_sync"), "tars_rewards.verl:TARSReward")
    assert issubclass(cls, TARSTrainerMixin)
    assert cls.__mro__[2] is PPOTrainerOmniSync


@pytest.mark.parametrize("mode", ["colocate_async", "separate_async"])
def test_asynchronous_trainers_are_refused(mode):
    stock = trainer_base.TRAINER_REGISTRY[mode]
    with pytest.raises(UnsupportedConfigError, match=r"trainer_mode=sync"):
        selecting_class(stock)(config=OmegaConf.create({"reward": {"custom": "x:Y"}}))


def test_an_unknown_mode_keeps_verls_own_error():
    with pytest.raises(ValueError, match="Unknown trainer"):
        get_trainer_cls("nonsense")


def test_composition_is_made_once():
    assert compose_trainer(PPOTrainerSync) is compose_trainer(PPOTrainerSync)
    assert compose_engine(FSDPEngineWithLMHead) is compose_engine(FSDPEngineWithLMHead)


def test_engines_of_other_packages_are_composed_and_value_heads_are_not():
    class VendorEngine(FSDPEngineWithLMHead):
        pass

    assert compose_engine(VendorEngine).__mro__[1:3] == (PoolingMixin, VendorEngine)
    assert compose_engine(FSDPEngineWithValueHead).__mro__.count(PoolingMixin) <= 1
    assert compose_engine(compose_engine(VendorEngine)) is compose_engine(VendorEngine)
    assert compose_engine(dict) is dict
