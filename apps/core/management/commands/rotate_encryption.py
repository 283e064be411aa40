"""Encrypts every secret at rest anew under the first key of the ring."""

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction
from psycopg import sql

from apps.core import crypto

ROWS_AT_ONCE = 50


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
                    keys = [str(key.column) for key in getattr(model._meta, "pk_fields", [model._meta.pk])]
                    count += rotate_column(model._meta.db_table, str(field.column), keys)
        self.stdout.write(f"Encrypted {count} secrets under the first key.")


def rotate_column(table: str, column: str, keys: Sequence[str]) -> int:
    """Rotate one column; how many values it held. keys: columns of the primary key.

    In parts, each in a transaction of its own: replies of live calls are many, and long, and wanted meanwhile. Raises
    CommandError where a value cannot be opened; what was rotated before stays so.
    """
    count, last = 0, None
    while True:
        done, last = _rotate_part(table, column, keys, last)
        count += done
        if done < ROWS_AT_ONCE:
            return count


@transaction.atomic
def _rotate_part(table: str, column: str, keys: Sequence[str], after: Any) -> tuple[int, Any]:
    key = sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Identifier, keys)))
    places = sql.SQL("({})").format(sql.SQL(", ").join(sql.Placeholder() * len(keys)))
    beyond = sql.SQL("AND {} > {}").format(key, places) if after is not None else sql.SQL("")
    names = {"column": sql.Identifier(column), "table": sql.Identifier(table), "beyond": beyond}
    select = sql.SQL(
        "SELECT ctid::text, {column}, {keys} FROM {table} WHERE {column} <> '' {beyond} ORDER BY {keys} LIMIT {most} "
        "FOR UPDATE"
    ).format(**names, keys=sql.SQL(", ").join(map(sql.Identifier, keys)), most=ROWS_AT_ONCE)
    with connection.cursor() as cursor:
        cursor.execute(select, after)
        rows = cursor.fetchall()
        try:
            # By place: the rows are locked, so they stay where they are, and tables differ in their keys.
            rotated = [(crypto.rotate(row[1]), row[0]) for row in rows]
        except crypto.UndecipherableError as error:
            raise CommandError(f"{table}.{column}: {error}") from None
        update = sql.SQL("UPDATE {table} SET {column} = %s WHERE ctid = %s::tid").format(**names)
        cursor.executemany(update, rotated)
    return len(rows), rows[-1][2:] if rows else None
