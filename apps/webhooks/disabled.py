"""Disables a URL that answered 410 Gone, and enables it again when somebody says so."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from apps.access import audit
from apps.webhooks.models import DisabledUrl


def disable(project_id: UUID, url: str) -> None:
    """Send nothing there any more. Twice is no error."""
    DisabledUrl.objects.bulk_create([DisabledUrl(project_id=project_id, url=url)], ignore_conflicts=True)


@transaction.atomic
def enable(*, row: DisabledUrl, actor: Any = None, reason: str = "") -> bool:
    """Send there again what happens from now on. False: it was enabled already."""
    # As it was, before it goes: the entry needs its id.
    locked = DisabledUrl.objects.select_for_update().filter(pk=row.pk).first()
    if locked is None:
        return False
    audit.record("enable", locked, actor=actor, reason=reason, before={"url": locked.url})
    locked.delete()
    return True


def among(places: Collection[tuple[UUID, str]]) -> set[tuple[UUID, str]]:
    """Those (project, URL) that are disabled."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT d.project_id, d.url FROM webhooks_disabledurl d
            JOIN unnest(%s::uuid[], %s::text[]) AS asked(project_id, url) USING (project_id, url)
            """,
            [[project_id for project_id, _ in places], [url for _, url in places]],
        )
        return {(row[0], row[1]) for row in cursor.fetchall()}
