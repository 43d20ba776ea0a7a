import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from pathlib import Path

import pytest

from tars_rewards import TARSConfig
from tars_rewards.errors import ConfigError


def test_defaults_are_the_papers() -> None:
    config = TARSConfig()
    assert (config.alpha, config.beta, config.format_weight, config.layers) == (1.0, 1.0, 0.5, "all")
    assert config.embedder == "Qwen/Qwen3-Embedding-0.6B"
    assert {config.strip_tags, config.center, config.return_layers, config.skip_truncated} == {False}


def test_frozen_hashable_picklable() -> None:
    config = TARSConfig(layers=[0, -1], embedding_cache=Path("somewhere"))
    with pytest.raises(FrozenInstanceError):
        config.alpha = 2.0
    assert pickle.loads(pickle.dumps(config)) == config
    assert len({config, TARSConfig(layers=(0, -1), embedding_cache="somewhere")}) == 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("middle", "middle"),
        ([3, 1], (3, 1)),
        ([-1], (-1,)),
        ((0.25, 0.5), (0.25, 0.5)),
        ((0, 0.5), (0.0, 0.5)),
        ((0, 1), (0, 1)),
    ],
)
def test_layers(given: object, kept: object) -> None:
    layers = TARSConfig(layers=given).layers
    assert layers == kept
    assert [type(item) for item in layers] == [type(item) for item in kept]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("alpha", -0.1),
        ("alpha", float("nan")),
        ("beta", float("inf")),
        ("beta", "1.0"),
        ("alpha", True),
        ("format_weight", None),
        ("answer_extractor", "regex"),
        ("answer_extractor", None),
        ("layers", "medium"),
        ("layers", []),
        ("layers", (0.5, 0.5)),
        ("layers", (0.5, 1.5)),
        ("layers", (0.1, 0.2, 0.3)),
        ("layers", [0, "1"]),
        ("layers", [True, False]),
        ("layers", 3),
        ("seed", 1.5),
        ("seed", True),
        ("embedder", ""),
        ("embedder", None),
        ("embedder_device", 0),
        ("embedder_dtype", "bf16"),
        ("embedder_dtype", None),
        ("embedder_url", ""),
        ("embedder_url", 8000),
        ("embedder_url", "localhost:8000/v1"),
        ("embedder_url", "ftp://host/v1"),
        ("embedder_url", "http:///v1"),
        ("embedder_url", "http://host:8000/v1/embeddings"),
        ("embedder_deadline", 0),
        ("embedder_deadline", -1.0),
        ("embedder_deadline", None),
        ("on_embedder_failure", "ignore"),
        ("on_embedder_failure", None),
        ("embedding_cache", ""),
        ("embedding_cache", 7),
        ("embedding_cache_size", -1),
        ("embedding_cache_size", 1.0),
        ("center", 1),
        ("strip_tags", "no"),
        ("target_modality", ""),
    ],
)
def test_bad_values_name_the_setting_and_what_came(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{setting} must be ") as caught:
        TARSConfig(**{setting: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("embedder_api_key_var", "sk-12345"),
        ("embedder_api_key_var", "1A"),
        ("embedder_api_key_var", ""),
        ("embedder_api_key_var", 5),
        ("embedder_url", "http://me:12345@host/v1"),
        ("embedder_url", "http://host/v1?key=12345"),
        ("embedder_url", "http://host/v1#12345"),
    ],
)
def test_what_may_be_a_key_is_not_repeated(setting: str, value: object) -> None:
    with pytest.raises(
        ConfigError, match=f"^{setting} must be .*embedder_api_key_var|^{setting} must be .*variable"
    ) as caught:
        TARSConfig(**{setting: value})
    assert "12345" not in str(caught.value)


def test_an_endpoint() -> None:
    config = TARSConfig(embedder_url="https://host:8000/v1/", embedder_api_key_var="MY_KEY_2", embedder_deadline=5)
    assert (config.embedder_url, config.embedder_api_key_var) == ("https://host:8000/v1", "MY_KEY_2")
    assert config.embedder_deadline == 5.0


def test_modalities_must_differ() -> None:
    with pytest.raises(ConfigError, match="both 'text'"):
        TARSConfig(target_modality="text")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_endpoint_has_its_own_precision(dtype: str) -> None:
    assert TARSConfig(embedder_url="http://host/v1").embedder_dtype == "auto"
    with pytest.raises(ConfigError, match=f"embedder_dtype is '{dtype}', but the endpoint .*start the endpoint with"):
        TARSConfig(embedder_url="http://host/v1", embedder_dtype=dtype)


def test_from_mapping() -> None:
    assert TARSConfig.from_mapping({"alpha": 0, "layers": [1, 2]}) == TARSConfig(alpha=0.0, layers=(1, 2))
    assert TARSConfig.from_mapping({}) == TARSConfig()


def test_from_omegaconf() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    assert TARSConfig.from_mapping(omegaconf.OmegaConf.create({"beta": 0.5, "layers": [0.0, 0.5]})) == TARSConfig(
        beta=0.5, layers=(0.0, 0.5)
    )


def test_unknown_key_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'formatweight'; did you mean 'format_weight'") as caught:
        TARSConfig.from_mapping({"formatweight": 1.0})
    assert all(field.name in str(caught.value) for field in fields(TARSConfig))
    with pytest.raises(ConfigError, match=r"unknown setting 'zzz'\. Known settings"):
        TARSConfig.from_mapping({"zzz": 1.0})


def test_an_unknown_keyword_gets_the_same_sentence() -> None:
    with pytest.raises(ConfigError) as from_mapping:
        TARSConfig.from_mapping({"alfa": 1})
    for build in (lambda: TARSConfig(alfa=1), lambda: replace(TARSConfig(), alfa=1)):
        with pytest.raises(ConfigError, match="unknown setting 'alfa'; did you mean 'alpha'") as caught:
            build()
        assert str(caught.value) == str(from_mapping.value)


def test_it_is_a_dataclass_like_any_other() -> None:
    names = [field.name for field in fields(TARSConfig)]
    assert list(inspect.signature(TARSConfig).parameters) == names
    assert inspect.signature(TARSConfig).parameters["alpha"].default == 1.0
    assert TARSConfig(2.0, 0).alpha == 2.0
    assert (
        copy.deepcopy(TARSConfig(2.0)) == replace(TARSConfig(), alpha=2.0) == pickle.loads(pickle.dumps(TARSConfig(2)))
    )
    with pytest.raises(TypeError):
        TARSConfig(*range(99))

    @dataclass(frozen=True)
    class Mine(TARSConfig):
        more: int = 0

    assert (Mine(alpha=0, more=3).more, Mine(alpha=0).alpha) == (3, 0.0)
    assert Mine.from_mapping({"more": 2}).more == 2


def test_from_something_else() -> None:
    with pytest.raises(ConfigError, match="expected a mapping"):
        TARSConfig.from_mapping("alpha=1")
