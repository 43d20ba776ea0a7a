"""What is said to an OpenAI-compatible chat endpoint, and what it answers: checked."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

from tars_rewards.errors import ConfigError
from tars_rewards.evaluation.engine import Generated

_ENDING = "/chat/completions"


def chat_url(value: str) -> str:
    """Check the base URL of a chat endpoint, and return it without a slash at its end.

    Raises:
        ConfigError: It is none, or holds what does not belong into logs.
    """
    expected = f"the http(s) URL that {_ENDING} is put behind, such as http://host:8000/v1"
    parts = urlsplit(value)
    if "@" in parts.netloc or parts.query or parts.fragment:
        # Not repeated: URLs are logged, and what is refused here may be a key.
        raise ConfigError(
            f"url must be {expected}, got one with a user, a query or a fragment; name the variable that holds the key in "
            "api_key_var"
        )
    url = value.rstrip("/")
    if parts.scheme not in ("http", "https") or not parts.hostname or url.endswith(_ENDING):
        raise ConfigError(f"url must be {expected}, got {value!r}")
    return url


def key_variable(value: str) -> str:
    """Check the name of the environment variable that holds the key.

    Raises:
        ConfigError: It cannot be a variable's name.
    """
    if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", value) is None:
        # Not repeated: it may be the key itself.
        raise ConfigError(
            "api_key_var must be the name of an environment variable (letters, digits, underscores), got something else; "
            "put the key into a variable, and the variable's name here"
        )
    return value


def read_completion(content: bytes) -> Generated | None:
    """The completion of an answer; None where it holds no text.

    Args:
        content: JSON `{"choices": [{"message": {"content": text}, "finish_reason": …}], "usage": {"completion_tokens": …}}`.

    Raises:
        ValueError: It is something else. The message says what.

    Example:
        >>> read_completion(b'{"choices": [{"message": {"content": "B"}, "finish_reason": "length"}]}')
        Generated(text='B', truncated=True, tokens=None)
        >>> read_completion(b'{"choices": []}') is None
        True
    """
    try:
        answer = json.loads(content)
        choices = answer["choices"]
        if not choices:
            return None
        text = choices[0]["message"]["content"]
        reason = choices[0].get("finish_reason")
        tokens = (answer.get("usage") or {}).get("completion_tokens")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError('something else than JSON {"choices": [{"message": {"content"}}]}') from error
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"a message whose content is no text but {type(text).__name__}")
    text = text.encode("utf-8", "replace").decode()  # half a character, as where the length limit cut one
    counted = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0
    return Generated(text, truncated=reason == "length", tokens=tokens if counted else None)
