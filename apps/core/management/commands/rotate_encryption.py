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
                    count += rotate_column(model._meta.db_table, str(model._meta.pk.column), str(field.column))
        self.stdout.write(f"Encrypted {count} secrets under the first key.")


@transaction.atomic
def rotate_column(table: str, key: str, column: str) -> int:
    """Rotate one column; how many values it held. Raises CommandError where a value cannot be opened."""
    names = [sql.Identifier(name) for name in (key, column, table)]
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT {0}, {1} FROM {2} WHERE {1} <> '' FOR UPDATE").format(*names))
        rows = cursor.fetchall()
        try:
            rotated = [(crypto.rotate(token), pk) for pk, token in rows]
        except crypto.UndecipherableError as error:
            raise CommandError(f"{table}.{column}: {error}") from None
        cursor.executemany(sql.SQL("UPDATE {2} SET {1} = %s WHERE {0} = %s").format(*names), rotated)
    return len(rows)
