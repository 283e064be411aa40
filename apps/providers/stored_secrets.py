"""Health check: the encryption keys open what is stored, because with wrong ones no model would answer."""

from typing import Any

from django.db import connection

from apps.core import crypto
from apps.core.database import in_db
from apps.providers.models import Provider


async def check() -> dict[str, Any]:
    """Some stored secret can be read, if there is any. Raises crypto.UndecipherableError."""
    await in_db(_open_one)
    return {}


def _open_one() -> None:
    """A single one that cannot be read is one provider's trouble, which its own page tells."""
    failed = None
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT api_key FROM {Provider._meta.db_table} WHERE api_key <> '' ORDER BY id LIMIT 20")  # noqa: S608
        for (token,) in cursor.fetchall():
            try:
                crypto.decrypt(token)
            except crypto.UndecipherableError as error:
                failed = error
            else:
                return
    if failed is not None:
        raise failed
