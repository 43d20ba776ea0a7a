"""The settings of the reward, the same for every framework."""

from __future__ import annotations

import difflib
import functools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from tars_rewards.errors import ConfigError
from tars_rewards.terms import own_weights, term_name

if TYPE_CHECKING:
    from tars_rewards.protocol import RewardTerm

LAYER_GROUPS = ("all", "shallow", "middle", "deep", "last")
ANSWER_EXTRACTORS = ("tags", "voicebench", "xfinder")
EMBEDDER_DTYPES = ("auto", "float32", "bfloat16", "float16")
EMBEDDER_FAILURES = ("stop", "invalid")

_Config = TypeVar("_Config")


def _refuse_unknown(cls: type[_Config]) -> type[_Config]:
    """Make a dataclass name the nearest setting instead of raising Python's TypeError for an unknown keyword."""
    made = cls.__init__

    @functools.wraps(made)
    def init(self: _Config, *args: Any, **settings: Any) -> None:
        _check_known(settings, cls)
        made(self, *args, **settings)

    cls.__init__ = init  # type: ignore[assignment]
    return cls


@_refuse_unknown
@dataclass(frozen=True)
class TARSConfig:
    """Which terms are in force, how they are weighted, and how they are computed.

    The defaults are the paper's (arXiv 2601.05543, section 4). A weight of 0 switches a term off: its inputs are then
    neither needed nor computed.

    Raises:
        ConfigError: A setting is unknown, or a value is of the wrong type or out of range.

    Example:
        >>> TARSConfig(alpha=0, layers="middle").layers
        'middle'
        >>> TARSConfig(alfa=1.0)
        Traceback (most recent call last):
        tars_rewards.errors.ConfigError: unknown setting 'alfa'; did you mean 'alpha'? Known settings: alpha, ...
    """

    alpha: float = 1.0
    """Weight of the representation term, at least 0."""
    beta: float = 1.0
    """Weight of the behavior term, at least 0."""
    format_weight: float = 0.5
    """Weight of the format in the base reward, at least 0."""
    answer_extractor: str = "tags"
    """How the answer is found that accuracy judges: "tags" (the answer block, strictly), "voicebench" (as VoiceBench's
    scorer reads it) or "xfinder" (a model). See `extraction`; the format is the strict block in any case."""
    layers: str | tuple[int, ...] | tuple[float, float] = "all"
    """Decoder layers compared: a group ("all", "shallow", "middle", "deep", "last"), layer numbers from 0 (negative
    ones count from the end), or two fractions of the depth, (start, stop). See `representation.select_layers`."""
    terms: Mapping[str | RewardTerm, float] | Iterable[tuple[str | RewardTerm, float]] | None = None
    """Terms of your own besides the two: a mapping from "module:name" (in Python also from the function itself) to a weight.
    See docs/write_your_own_term.md; kept as a tuple of pairs. None: none."""
    seed: int = 0
    """Seed of the choice of references."""
    embedder: str = "Qwen/Qwen3-Embedding-0.6B"
    """Model of the behavior term: a sentence-transformers name or local directory, or what `embedder_url` calls it."""
    embedder_device: str | None = None
    """Where that model runs, such as "cpu" or "cuda:0"; None: sentence-transformers decides."""
    embedder_dtype: str = "auto"
    """Precision of its weights: "float32", "bfloat16", "float16", or "auto": the checkpoint's own. The halves are faster where
    the processor computes in them (GPUs, CPUs with AMX); what they change is said at `SentenceTransformerEmbedder`."""
    embedder_url: str | None = None
    """Base URL of an OpenAI-compatible embeddings endpoint that runs the model (vLLM, TEI, …), such as
    "http://host:8000/v1"; None: sentence-transformers runs it. See `embedding_endpoint`."""
    embedder_api_key_var: str | None = None
    """Name of the environment variable that holds the endpoint's API key; None: no key is sent."""
    embedder_deadline: float = 300.0
    """Seconds that one call of the endpoint may take, with all its retries."""
    on_embedder_failure: str = "stop"
    """What happens when the embedder fails for good: "stop" the run with its error, or go on with the behavior term
    "invalid" for the whole batch, with a warning and a count (tars/behavior/embedder_failures)."""
    embedding_cache: str | None = None
    """Directory in which embeddings are kept between runs; many processes may share it. None: none."""
    embedding_cache_size: int = 16384
    """Embeddings kept in memory (at 1024 dimensions 4 KiB each); 0: none."""
    strip_tags: bool = False
    """Take the think and answer tags out of a text before it is embedded. The paper embeds the whole text."""
    center: bool = False
    """Subtract from the hidden states, layer by layer, their mean over the pair's rollouts of both modalities."""
    return_layers: bool = False
    """Return the similarity of every layer compared, for analysis."""
    skip_truncated: bool = False
    """Leave truncated rollouts out of the alignment terms, both as targets and as references."""
    target_modality: str = "speech"
    """The modality whose reasoning is to be brought closer."""
    anchor_modality: str = "text"
    """The modality it is compared with, rewarded by the base reward alone."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "format_weight"):
            object.__setattr__(self, name, _weight(name, getattr(self, name)))
        for name in ("strip_tags", "center", "return_layers", "skip_truncated"):
            if not isinstance(getattr(self, name), bool):
                raise _wrong(name, "true or false", getattr(self, name))
        for name in ("embedder", "target_modality", "anchor_modality"):
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, name, os.fspath(value))
            elif not isinstance(value, str) or not value:
                raise _wrong(name, "a non-empty string", value)
        if self.answer_extractor not in ANSWER_EXTRACTORS:
            raise _wrong("answer_extractor", f"one of {', '.join(ANSWER_EXTRACTORS)}", self.answer_extractor)
        if self.on_embedder_failure not in EMBEDDER_FAILURES:
            raise _wrong("on_embedder_failure", f"one of {', '.join(EMBEDDER_FAILURES)}", self.on_embedder_failure)
        if self.embedder_dtype not in EMBEDDER_DTYPES:
            raise _wrong("embedder_dtype", f"one of {', '.join(EMBEDDER_DTYPES)}", self.embedder_dtype)
        if self.embedder_url is not None:
            if self.embedder_dtype != TARSConfig.embedder_dtype:
                raise ConfigError(
                    f"embedder_dtype is {self.embedder_dtype!r}, but the endpoint at embedder_url has loaded its model "
                    "already; start the endpoint with that precision, and leave embedder_dtype out"
                )
            object.__setattr__(self, "embedder_url", base_url(self.embedder_url))
        if self.embedder_api_key_var is not None and not _is_variable(self.embedder_api_key_var):
            # Not repeated: it may be the key itself.
            raise ConfigError(
                "embedder_api_key_var must be the name of an environment variable (letters, digits, underscores) or "
                "None, got something else; put the key into a variable, and the variable's name here"
            )
        object.__setattr__(self, "embedder_deadline", _weight("embedder_deadline", self.embedder_deadline))
        if not self.embedder_deadline:
            raise _wrong("embedder_deadline", "a positive number of seconds", self.embedder_deadline)
        if self.embedder_device is not None and not isinstance(self.embedder_device, str):
            raise _wrong("embedder_device", 'a device such as "cpu" or None', self.embedder_device)
        if self.embedding_cache is not None:
            if not isinstance(self.embedding_cache, str | os.PathLike) or not os.fspath(self.embedding_cache):
                raise _wrong("embedding_cache", "a directory or None", self.embedding_cache)
            object.__setattr__(self, "embedding_cache", os.fspath(self.embedding_cache))
        if not _is_int(self.seed):
            raise _wrong("seed", "an integer", self.seed)
        if not _is_int(self.embedding_cache_size) or self.embedding_cache_size < 0:
            raise _wrong("embedding_cache_size", "an integer of at least 0", self.embedding_cache_size)
        if self.target_modality == self.anchor_modality:
            raise ConfigError(
                f"target_modality and anchor_modality are both {self.target_modality!r}; give each its own name"
            )
        object.__setattr__(self, "layers", _layers(self.layers))
        object.__setattr__(self, "terms", own_weights(self.terms))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> TARSConfig:
        """Build a config from a framework's own settings.

        Args:
            mapping: Settings by name; a plain dict or an OmegaConf mapping.

        Raises:
            ConfigError: A key is unknown (the nearest known key and all of them are named) or a value is bad.
        """
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"expected a mapping of settings by name, got {type(mapping).__name__}: {mapping!r}")
        _check_known(mapping, cls)
        return cls(**dict(mapping.items()))

    def to_json(self) -> dict[str, Any]:
        """The settings by name, as JSON has them; of terms that are functions their names."""
        settings = {each.name: getattr(self, each.name) for each in fields(self)}
        terms = [
            [each if isinstance(each, str) else term_name(each), weight] for each, weight in own_weights(self.terms)
        ]
        layers = self.layers if isinstance(self.layers, str) else list(self.layers)
        return {**settings, "layers": layers, "terms": terms}


def _check_known(settings: Iterable[Any], cls: Any) -> None:
    known = [field.name for field in fields(cls)]
    for name in settings:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
            raise ConfigError(f"unknown setting {name!r}{hint} Known settings: {', '.join(known)}")


def _weight(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise _wrong(name, "a finite number of at least 0", value)
    return float(value)


def base_url(value: object) -> str:
    """Check the base URL of an embeddings endpoint, and return it without a slash at its end.

    Raises:
        ConfigError: It is none, or holds what does not belong into logs.
    """
    expected = "the http(s) URL that /embeddings is put behind, such as http://host:8000/v1, or None"
    if not isinstance(value, str):
        raise _wrong("embedder_url", expected, value)
    parts = urlsplit(value)
    if "@" in parts.netloc or parts.query or parts.fragment:
        # Not repeated: URLs are logged, and what is refused here may be a key.
        raise ConfigError(
            f"embedder_url must be {expected}, got one with a user, a query or a fragment; name the variable that holds "
            "the key in embedder_api_key_var, and the model in embedder"
        )
    url = value.rstrip("/")
    if parts.scheme not in ("http", "https") or not parts.hostname or url.endswith("/embeddings"):
        raise _wrong("embedder_url", expected, value)
    return url


def _is_variable(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", value) is not None


def _layers(value: object) -> str | tuple[int, ...] | tuple[float, float]:
    if isinstance(value, str):
        if value in LAYER_GROUPS:
            return value
    elif isinstance(value, Sequence) and len(value) > 0:
        items = list(value)
        if all(_is_int(item) for item in items):
            return tuple(int(item) for item in items)
        if len(items) == 2 and all(isinstance(item, Real) and not isinstance(item, bool) for item in items):
            start, stop = float(items[0]), float(items[1])
            if 0.0 <= start < stop <= 1.0:
                return (start, stop)
    expected = (
        f"one of {', '.join(LAYER_GROUPS)}, a list of layer numbers such as [0, 5, -1], "
        "or two fractions (start, stop) with 0.0 <= start < stop <= 1.0"
    )
    raise _wrong("layers", expected, value)


def _is_int(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _wrong(name: str, expected: str, value: object) -> ConfigError:
    return ConfigError(f"{name} must be {expected}, got {value!r} ({type(value).__name__})")
