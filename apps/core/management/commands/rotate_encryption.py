"""Encrypts every secret at rest anew under the first key of the ring."""

from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction
from psycopg import sql

from apps.core import crypto


class Command(BaseCommand):
    help = (
        "Encrypt every stored secret anew under the first key of REDRIVE_ENCRYPTION_KEYS. To change the key: put the "
        "new one first (NEW,OLD), restart, run this, then remove the old one."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        count = 0
        for model in apps.get_models():
            for field in model._meta.concrete_fields:
                if isinstance(field, crypto.EncryptedTextField):
                    count += rotate_column(model._meta.db_table, str(field.column))
        self.stdout.write(f"Encrypted {count} secrets under the first key.")


@transaction.atomic
def rotate_column(table: str, column: str) -> int:
    """Rotate one column; how many values it held. Raises CommandError where a value cannot be opened."""
    names = [sql.Identifier(name) for name in (column, table)]
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT ctid::text, {0} FROM {1} WHERE {0} <> '' FOR UPDATE").format(*names))
        rows = cursor.fetchall()
        try:
            # By place: the rows are locked, so they stay where they are, and tables differ in their keys.
            rotated = [(crypto.rotate(token), place) for place, token in rows]
        except crypto.UndecipherableError as error:
            raise CommandError(f"{table}.{column}: {error}") from None
        cursor.executemany(sql.SQL("UPDATE {1} SET {0} = %s WHERE ctid = %s::tid").format(*names), rotated)
    return len(rows)
