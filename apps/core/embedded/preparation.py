"""The step between the stores and the web server: one `manage.py prepare` process, which gets its secrets on stdin."""

import json
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from typing import Any

from apps.core.embedded import logs, valkey
from apps.core.embedded.child import kill_group, spawn
from apps.core.embedded.data_folder import SECRETS, write_private
from apps.core.embedded.model import ALIAS
from apps.core.embedded.probes import http_status
from apps.core.embedded.service import ROOT, Launch, Run, Step, UpError

NAME = "prepare"
ROUTES = (ALIAS, f"gpt-4o-mini={ALIAS}", f"text-embedding-3-small={ALIAS}")


async def prepare(run: Run, gate: Callable[[], Awaitable[None]]) -> None:
    """Migrates, makes what is missing of administrator, API key and local provider. Raises UpError."""
    if "valkey" not in run.names and not await valkey.is_ready(run):
        raise UpError("no Redis or Valkey answers at REDRIVE_REDIS_URL.")
    answer = await _ask_prepare(run, gate, wants_api_key=not run.secrets["api_key"])
    run.facts["admin_password"] = run.secrets["admin_password"] if answer["admin_password_is_valid"] else ""


async def check_api_key(run: Run, gate: Callable[[], Awaitable[None]]) -> None:
    """Makes a new API key when the web server refuses the saved one: another database, or the key was revoked."""
    await gate()
    bearer = {"Authorization": f"Bearer {run.secrets['api_key']}"}
    if await http_status(run.web_host, run.ports["web"], "/v1/models", headers=bearer) == 401:
        await _ask_prepare(run, gate, wants_api_key=True)


async def _ask_prepare(run: Run, gate: Callable[[], Awaitable[None]], *, wants_api_key: bool) -> dict[str, Any]:
    launch = Launch((sys.executable, str(ROOT / "manage.py"), "prepare", "--bootstrap"), run.environment())
    log = logs.log_path(run.data_dir, NAME)
    # Started before the gate opens: it loads Django while the databases start.
    process = await spawn(launch, orphan_signal=signal.SIGKILL, log=log, stdin=PIPE, stdout=PIPE)
    try:
        await gate()
        question = {
            "admin_password": run.secrets["admin_password"],
            "wants_api_key": wants_api_key,
            "local_provider": {"base_url": run.model_url, "models": ",".join(ROUTES)} if run.model_url else None,
        }
        output, _ = await process.communicate(json.dumps(question).encode())
    finally:
        if process.returncode is None:
            kill_group(process.pid)
            await process.wait()
    if process.returncode != 0:
        raise UpError(f"preparing the database failed. The end of {log}:\n{logs.last_lines(log, 30)}")
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    if answer["api_key"]:
        run.secrets["api_key"] = answer["api_key"]
        write_private(run.data_dir / SECRETS, run.secrets)
    return answer


PREPARE = Step(name=NAME, act=prepare, needed_by=("web", "worker", "quarantine", "clock"), after=("postgres", "valkey"))
API_KEY = Step(name="api_key", act=check_api_key, needed_by=("web",), after=("web",))
