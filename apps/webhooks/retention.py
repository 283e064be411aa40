"""Deletes old events and tries, and secrets whose time is over."""

from django.conf import settings
from django.db import connection

from apps.webhooks.models import WebhookSecret

BATCH = 5000

_PRUNE = """
DELETE FROM {table} WHERE id IN (
  SELECT o.id FROM {table} o
  WHERE o.created_at < now() - make_interval(days => %s) {unless}
  ORDER BY o.created_at LIMIT %s)
"""
_UNDELIVERED = """
AND NOT EXISTS (SELECT 1 FROM tasks_task d WHERE d.id = o.delivery_id
                AND d.state IN ('pending', 'retrying', 'running', 'waiting'))
"""


def prune() -> int:
    """A batch; how many rows it deleted or emptied. What is still being delivered stays."""
    days = settings.REDRIVE.webhook_retention_days
    with connection.cursor() as cursor:
        cursor.execute(_PRUNE.format(table="webhooks_webhookattempt", unless=""), [days, BATCH])
        count = int(cursor.rowcount)
        cursor.execute(_PRUNE.format(table="webhooks_webhookevent", unless=_UNDELIVERED), [days, BATCH])
        count += int(cursor.rowcount)
        cursor.execute(
            f"UPDATE {WebhookSecret._meta.db_table} SET previous = '', previous_expires_at = NULL "  # noqa: S608
            "WHERE previous_expires_at <= now()"
        )
        return count + int(cursor.rowcount)
