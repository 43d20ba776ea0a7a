"""Settings: ranges, the token, and which interfaces may go without one."""

import dataclasses
import subprocess
import sys

import pytest

from tars_rewards.errors import ConfigError
from tars_rewards.server import ServerSettings
from tars_rewards.server.settings import is_loopback

NUMBERS = [field.name for field in dataclasses.fields(ServerSettings) if type(field.default) in (int, float)]


@pytest.fixture(autouse=True)
def _no_token(monkeypatch):
    monkeypatch.delenv("TARS_REWARDS_TOKEN", raising=False)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, "1", None, True, float("nan"), float("inf")])
def test_numbers_are_checked(name, value):
    with pytest.raises(ConfigError, match=f"^{name} must be "):
        ServerSettings(**{name: value})


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in ("port", "linger_seconds", "grace_seconds")])
def test_limits_of_zero_are_refused(name):
    with pytest.raises(ConfigError, match=f"^{name} must be "):
        ServerSettings(**{name: 0})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 65_536),
        ("host", ""),
        ("host", None),
        ("token_env", ""),
        ("token_file", ""),
        ("open_metrics", 1),
        ("allow_unauthenticated", "yes"),
        ("special_tokens", "<x>"),
        ("special_tokens", ("",)),
        ("max_buffered_bytes", 1024),
        ("queue_questions", 100),
        ("queue_completions", 1000),
    ],
)
def test_other_values_are_checked(name, value):
    with pytest.raises(ConfigError, match=f"^{name} must be "):
        ServerSettings(**{name: value})


def test_zero_is_allowed_where_it_means_something():
    settings = ServerSettings(port=0, linger_seconds=0, grace_seconds=0, special_tokens=["<x>"])
    assert settings.special_tokens == ("<x>",)


def test_the_token_comes_from_the_environment_or_before_that_from_a_file(tmp_path, monkeypatch):
    assert ServerSettings().token() is None
    monkeypatch.setenv("TARS_REWARDS_TOKEN", "from-env")
    monkeypatch.setenv("OTHER", "from-other")
    (tmp_path / "token").write_text("from-file\n")
    assert ServerSettings().token() == b"from-env"
    assert ServerSettings(token_env="OTHER").token() == b"from-other"
    assert ServerSettings(token_file=tmp_path / "token").token() == b"from-file"


@pytest.mark.parametrize("content", ["", " \n", "two words", "schlüssel", 'quo"te'])
def test_a_token_that_no_header_carries_is_refused_and_not_shown(tmp_path, monkeypatch, content):
    (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError, match=r"token_file .*: expected a token of letters") as caught:
        ServerSettings(token_file=str(tmp_path / "token")).token()
    assert content.strip() == "" or content not in str(caught.value)
    monkeypatch.setenv("TARS_REWARDS_TOKEN", content)
    with pytest.raises(ConfigError, match="environment variable TARS_REWARDS_TOKEN: expected a token"):
        ServerSettings().token()


def test_a_token_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"token_file .*nowhere cannot be read"):
        ServerSettings(token_file=str(tmp_path / "nowhere")).token()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.0.1"])
def test_loopback_goes_without_a_token(host):
    assert is_loopback(host)
    assert ServerSettings(host=host).token() is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.example.org"])
def test_other_interfaces_need_a_token_or_an_explicit_word(host, monkeypatch):
    with pytest.raises(ConfigError, match="there is no token: set TARS_REWARDS_TOKEN or token_file"):
        ServerSettings(host=host).token()
    assert ServerSettings(host=host, allow_unauthenticated=True).token() is None
    monkeypatch.setenv("TARS_REWARDS_TOKEN", "t")
    assert ServerSettings(host=host).token() == b"t"


MISSING = """
import sys
sys.modules[{package!r}] = None
from tars_rewards.errors import MissingDependencyError
from tars_rewards.server import ServerSettings
ServerSettings()
try:
    from tars_rewards.server import run
except MissingDependencyError as error:
    print(error)
"""


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client", "soundfile"])
def test_a_missing_package_is_named_with_the_extra_that_has_it(package):
    done = subprocess.run(
        [sys.executable, "-c", MISSING.format(package=package)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"the server needs {package}, which is not installed: pip install 'tars-rewards[serve]'\n"


def test_settings_load_neither_torch_nor_the_server():
    code = (
        "import sys, tars_rewards.server; tars_rewards.server.ServerSettings(); "
        "print(*sorted({'torch', 'fastapi', 'uvicorn', 'numpy', 'prometheus_client'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
