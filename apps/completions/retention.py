"""Deletes what has been kept for as long as its project wanted."""

from django.db.models.functions import Now

from apps.completions.models import StoredBody

ROWS_AT_ONCE = 5_000


def prune_bodies() -> int:
    """Delete a batch of expired bodies; how many there were."""
    oldest = StoredBody.objects.filter(expires_at__lte=Now()).order_by("expires_at").values("pk")[:ROWS_AT_ONCE]
    count, _ = StoredBody.objects.filter(pk__in=oldest).delete()
    return count
