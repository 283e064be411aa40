"""Health checks of Postgres, Redis and the migrations."""

from typing import Any

from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from apps.core import redis as redis_store
from apps.core.database import in_db


async def postgres() -> dict[str, Any]:
    """One query."""
    return {"version": await in_db(_server_version)}


async def redis() -> dict[str, Any]:
    """PING over the pipe of the hot path."""
    await redis_store.pipe().command("PING")
    return {}


async def migrations() -> dict[str, Any]:
    """No migration of this code is missing in the database. Raises MigrationsMissing."""
    missing = await in_db(_missing_migrations)
    if missing:
        raise MigrationsMissing(missing)
    return {}


class MigrationsMissing(Exception):
    """Names of migrations to apply: run `manage.py migrate`."""


_all_applied = False


def _missing_migrations() -> list[str]:
    global _all_applied
    if not _all_applied:  # code does not change under a running process: once complete, always complete
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if plan:
            return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]
        _all_applied = True
    return []


def _server_version() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int")
        return int(cursor.fetchone()[0])
