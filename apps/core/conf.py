"""Reads every REDRIVE_* environment variable once, refuses unknown ones, and finds the services `up` started.

Precedence, highest first: the environment; `up.json` of a running `manage.py up` in the data folder (the URLs of
Postgres and Redis); `secrets.json` in the data folder (generated keys); the defaults below.
"""

import difflib
import fcntl
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from apps.core import failpoints
from apps.core.addresses import AllowList

PREFIX = "REDRIVE_"
ROOT = Path(__file__).resolve().parents[2]
LOOPBACK_HOSTS = ["localhost", "127.0.0.1", "[::1]"]


class ConfigurationError(Exception):
    """The environment is wrong; the message says which variable and what to do."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _with_scheme(url: str, *schemes: str) -> str:
    if url and url.partition("://")[0] not in schemes:
        raise ValueError(f"it begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    return url


CommaSeparated = Annotated[list[str], NoDecode]


class RedriveSettings(BaseSettings):
    """All settings of Redrive. Each is the environment variable of the same name with the prefix REDRIVE_."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    data_dir: Path = Field(ROOT / ".redrive", description="folder of the embedded services, up.json and secrets.json")
    database_url: str = Field("", repr=False, description="postgresql://user:password@host:port/name")
    redis_url: str = Field("", repr=False, description="redis://[:password@]host:port/db of Redis or Valkey")
    broker_url: str = Field("", repr=False, description="Celery's broker, amqp://... or redis://...; default: Redis")
    secret_key: SecretStr = Field(SecretStr(""), description="Django's SECRET_KEY")
    encryption_keys: CommaSeparated = Field(
        default_factory=list, repr=False, description="Fernet keys, comma separated: the first encrypts, all decrypt"
    )
    allowed_hosts: CommaSeparated = Field(LOOPBACK_HOSTS, description="host names the admin answers to")
    public_url: str = Field("", description="https://host of the gateway as people reach it: alerts link to its admin")
    csrf_trusted_origins: CommaSeparated = Field(default_factory=list, description="https://... of the admin")
    secure_cookies: bool = Field(False, description="cookies over https only; set it behind TLS")
    trusted_proxies: int = Field(0, ge=0, le=10, description="reverse proxies in front: X-Forwarded-For hops to trust")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level logged")
    log_format: Literal["json", "console"] = Field("json", description="json lines, or readable lines for a terminal")
    metrics_token: SecretStr = Field(SecretStr(""), description="bearer token for /metrics from other machines")

    database_pool_size: int = Field(8, ge=2, le=200, description="Postgres connections of one process")
    database_timeout: float = Field(
        2.0, gt=0, le=60, description="seconds to wait for a connection to Postgres; twice that for an answer"
    )
    redis_timeout: float = Field(0.25, gt=0, le=5, description="seconds to wait for an answer of Redis")
    limits_fail_open: bool = Field(
        True, description="with Redis away: serve without request and token limits (budgets always fail closed)"
    )
    config_poll: float = Field(0.4, gt=0, le=0.9, description="seconds between looks for changed configuration")
    stale_config: float = Field(600, gt=0, description="seconds known keys go on being served with Postgres away")
    ledger_backlog: int = Field(10_000, ge=1, description="ledger rows that may wait in a process for Postgres")
    worker_slots: int = Field(500, ge=1, le=10_000, description="attempts of tasks that one worker runs at once")
    worker_ttl: float = Field(10, gt=0, le=300, description="seconds without a sign of life until a worker is lost")
    worker_grace: float = Field(20, ge=0, le=3600, description="seconds running attempts get when a worker stops")
    task_retention_days: int = Field(30, ge=1, le=3650, description="days until tasks that ended are deleted")
    outbound_allow: CommaSeparated = Field(
        default_factory=list,
        description="where webhooks may go beside public addresses: hosts, host:port, addresses, CIDR networks",
    )
    webhook_retention_days: int = Field(
        30, ge=7, le=3650, description="days that webhook events and their deliveries are kept"
    )
    allowed_origins: CommaSeparated = Field(
        default_factory=list, description="https://... of other sites whose pages may open websockets"
    )
    max_sockets: int = Field(2000, ge=1, description="websockets of one process whose key is known")
    sockets_per_key: int = Field(100, ge=1, description="websockets of one key in one process")
    socket_streams: int = Field(16, ge=1, le=1000, description="streams at once on one websocket")
    socket_init: float = Field(10, gt=0, le=60, description="seconds a websocket may take to show its key")
    socket_stall: float = Field(30, gt=0, le=600, description="seconds a websocket's client may read nothing")
    socket_idle: float = Field(3600, gt=0, description="seconds a websocket may be open without a message or a stream")
    max_body: int = Field(10 * 1024 * 1024, ge=1024, description="bytes of a JSON request body")
    failpoints: str = Field("", description="for tests: where to fail, name:action,... (`apps/core/failpoints.py`)")
    failpoints_enabled: bool = Field(False, description="for tests: without it the failpoints above are ignored")

    def missing(self) -> list[str]:
        """The variables without which the gateway cannot serve."""
        needed = ("database_url", "redis_url", "secret_key", "encryption_keys")
        values = {**{name: getattr(self, name) for name in needed}, "secret_key": self.secret_key.get_secret_value()}
        return [PREFIX + name.upper() for name in needed if not values[name]]

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: str) -> str:
        return _with_scheme(value, "postgresql", "postgres")

    @field_validator("public_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        value = _with_scheme(value, "https", "http").removesuffix("/")
        if value and not re.fullmatch(r"https?://([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?", value):
            raise ValueError("it is https:// or http://, a host, and a port if it needs one; /admin/ is added")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        return _with_scheme(value, "redis", "rediss")

    @field_validator("encryption_keys")
    @classmethod
    def _are_fernet_keys(cls, value: list[str]) -> list[str]:
        for key in value:
            if not re.fullmatch(r"[\w-]{43}=", key, re.ASCII):
                raise ValueError("each key is 32 bytes in url-safe base64")
        return value

    @field_validator("failpoints_enabled")
    @classmethod
    def _are_failpoints(cls, value: bool, info: ValidationInfo) -> bool:
        if value:
            failpoints.parse(info.data.get("failpoints", ""))
        return value

    @field_validator("outbound_allow")
    @classmethod
    def _are_destinations(cls, value: list[str]) -> list[str]:
        AllowList.parse(value)
        return value

    @field_validator(
        "encryption_keys", "allowed_hosts", "csrf_trusted_origins", "outbound_allow", "allowed_origins", mode="before"
    )
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return _split(value)


def load() -> RedriveSettings:
    """Settings from the environment and the data folder. Raises ConfigurationError naming the wrong variable."""
    _refuse_unknown(os.environ)
    data_dir = Path(os.environ.get(f"{PREFIX}DATA_DIR") or RedriveSettings.model_fields["data_dir"].default)
    found = {**read_secrets(data_dir), **running_services(data_dir)}
    names = ("database_url", "redis_url", "secret_key", "encryption_keys")
    defaults = {name: found[name] for name in names if name in found and not os.environ.get(PREFIX + name.upper())}
    try:
        return RedriveSettings(**defaults)
    except ValidationError as error:
        problems = "; ".join(f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(problems) from None


def running_services(data_dir: Path) -> dict[str, Any]:
    """The content of `up.json` if the `up` that wrote it still runs (it holds the folder's lock), else {}."""
    try:
        with (data_dir / "up.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    except OSError:
        return {}
    else:
        return {}
    return _read_object(data_dir / "up.json")


def read_secrets(data_dir: Path) -> dict[str, Any]:
    """The content of `secrets.json`, which `up` generates on its first start (0600), or {}."""
    return _read_object(data_dir / "secrets.json")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {PREFIX + name.upper() for name in RedriveSettings.model_fields}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigurationError(f"unknown environment variable {name}.{hint}")
