"""Settings: read once, unknown names refused, found in the environment, up.json, secrets.json or the defaults."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from apps.core import conf
from apps.core.conf import ConfigurationError, RedriveSettings

Put = Callable[..., None]
ONE, TWO = "1" * 43 + "=", "2" * 43 + "="


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Write files of an otherwise empty data folder; nothing else of Redrive's is in the environment."""
    for name in [name for name in os.environ if name.startswith(conf.PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REDRIVE_DATA_DIR", str(tmp_path))

    def write(**files: Any) -> None:
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))

    return write


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[None]:
    """A running `up`: it holds the lock of the data folder."""
    with (tmp_path / "up.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("REDRIVE_DATABASE_URI", "REDRIVE_DATABASE_URL"),
        ("REDRIVE_LIMIT_FAIL_OPEN", "REDRIVE_LIMITS_FAIL_OPEN"),
        ("REDRIVE_LOGLEVEL", "REDRIVE_LOG_LEVEL"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(
    put: Put, monkeypatch: pytest.MonkeyPatch, name: str, suggestion: str
) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(ConfigurationError, match=f"{name}.*Did you mean {suggestion}"):
        conf.load()


def test_a_name_like_no_other_is_refused_without_one(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRIVE_QQQQQQ", "x")
    with pytest.raises(ConfigurationError) as raised:
        conf.load()
    assert "REDRIVE_QQQQQQ" in str(raised.value)
    assert "Did you mean" not in str(raised.value)


def test_without_anything_the_defaults_count(put: Put) -> None:
    found = conf.load()
    assert (found.database_url, found.redis_url, found.limits_fail_open) == ("", "", True)
    assert found.max_body == 10 * 1024 * 1024


def test_secrets_go_before_the_defaults(put: Put) -> None:
    put(secrets={"secret_key": "from the file", "encryption_keys": f"{ONE},{TWO}"})
    found = conf.load()
    assert found.secret_key.get_secret_value() == "from the file"
    assert found.encryption_keys == [ONE, TWO]


@pytest.mark.usefixtures("supervisor")
def test_running_services_go_before_secrets(put: Put) -> None:
    put(secrets={"redis_url": "redis://secrets"}, up={"redis_url": "redis://up", "database_url": "postgresql://up/x"})
    found = conf.load()
    assert (found.redis_url, found.database_url) == ("redis://up", "postgresql://up/x")


@pytest.mark.usefixtures("supervisor")
def test_the_environment_goes_before_everything(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put(secrets={"secret_key": "file"}, up={"redis_url": "redis://up"})
    monkeypatch.setenv("REDRIVE_REDIS_URL", "redis://environment")
    monkeypatch.setenv("REDRIVE_SECRET_KEY", "environment")
    found = conf.load()
    assert found.redis_url == "redis://environment"
    assert found.secret_key.get_secret_value() == "environment"


@pytest.mark.usefixtures("supervisor")
def test_an_empty_variable_is_none(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put(up={"redis_url": "redis://up"})
    monkeypatch.setenv("REDRIVE_REDIS_URL", "")
    monkeypatch.setenv("REDRIVE_MAX_BODY", "")
    found = conf.load()
    assert (found.redis_url, found.max_body) == ("redis://up", 10 * 1024 * 1024)


def test_the_file_of_a_dead_supervisor_is_stale(put: Put, tmp_path: Path) -> None:
    put(up={"redis_url": "redis://stale"})
    assert conf.load().redis_url == ""
    (tmp_path / "up.lock").touch()
    assert conf.load().redis_url == ""


@pytest.mark.parametrize("file", ["up", "secrets"])
@pytest.mark.parametrize(
    "content", ["", "{", "null", "[]", '"x"', "5", '{"pids": null}', '{"pids": {}}', '{"pids": {"supervisor": "x"}}']
)
@pytest.mark.usefixtures("supervisor")
def test_a_damaged_file_is_as_none(put: Put, file: str, content: str) -> None:
    put(**{file: content})
    assert conf.load().redis_url == ""


def test_lists_are_separated_by_commas(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRIVE_ALLOWED_HOSTS", " a.example , b.example,, ")
    monkeypatch.setenv("REDRIVE_CSRF_TRUSTED_ORIGINS", "https://a.example")
    found = conf.load()
    assert found.allowed_hosts == ["a.example", "b.example"]
    assert found.csrf_trusted_origins == ["https://a.example"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDRIVE_MAX_BODY", "many"),
        ("REDRIVE_MAX_BODY", "5"),
        ("REDRIVE_LOG_LEVEL", "LOUD"),
        ("REDRIVE_TRUSTED_PROXIES", "-1"),
        ("REDRIVE_REDIS_TIMEOUT", "0"),
        ("REDRIVE_CONFIG_POLL", "5"),
        ("REDRIVE_LIMITS_FAIL_OPEN", "perhaps"),
        ("REDRIVE_DATABASE_POOL_SIZE", "1"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(put: Put, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        conf.load()


def test_settings_do_not_change(put: Put) -> None:
    with pytest.raises(ValidationError):
        conf.load().max_body = 5  # type: ignore[misc]


def test_secrets_are_not_shown_by_repr(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRIVE_SECRET_KEY", "hidden-one")
    monkeypatch.setenv("REDRIVE_ENCRYPTION_KEYS", f"hidden{TWO[6:]}")
    monkeypatch.setenv("REDRIVE_METRICS_TOKEN", "hidden-three")
    assert "hidden" not in repr(conf.load())


def test_passwords_in_addresses_are_not_shown_by_repr(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRIVE_DATABASE_URL", "postgresql://redrive:hidden-four@host/db")
    monkeypatch.setenv("REDRIVE_REDIS_URL", "redis://:hidden-five@host/0")
    assert "hidden" not in repr(conf.load())


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in RedriveSettings.model_fields.items() if not field.description] == []


def test_what_the_gateway_cannot_serve_without_is_named() -> None:
    assert RedriveSettings(
        database_url="postgresql://x/y", redis_url="", secret_key="", encryption_keys=[]
    ).missing() == [
        "REDRIVE_REDIS_URL",
        "REDRIVE_SECRET_KEY",
        "REDRIVE_ENCRYPTION_KEYS",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDRIVE_DATABASE_URL", "mysql://x"),
        ("REDRIVE_REDIS_URL", "http://x"),
        ("REDRIVE_ENCRYPTION_KEYS", "xyz"),
        ("REDRIVE_PUBLIC_URL", "https://"),
        ("REDRIVE_PUBLIC_URL", "https://redrive.test/admin/"),
        ("REDRIVE_PUBLIC_URL", "https://redrive.test?next=1"),
        ("REDRIVE_PUBLIC_URL", "https://redrive.test#top"),
        ("REDRIVE_PUBLIC_URL", "https://user:word@redrive.test"),
        ("REDRIVE_PUBLIC_URL", "https://redrive.test/\nSee also: https://evil.test"),
        ("REDRIVE_PUBLIC_URL", "https://redrive.test:port"),
        ("REDRIVE_PUBLIC_URL", "https://[redrive.test"),
        ("REDRIVE_PUBLIC_URL", "redrive.test"),
    ],
)
def test_a_value_that_cannot_work_is_refused_at_the_start(
    put: Put, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        conf.load()


@pytest.mark.parametrize("value", ["https://redrive.test", "http://127.0.0.1:8000/", "https://[::1]:8443"])
def test_a_public_url_is_where_the_gateway_is(put: Put, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("REDRIVE_PUBLIC_URL", value)
    assert conf.load().public_url == value.rstrip("/")
