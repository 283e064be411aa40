"""Deletes what has been kept for as long as it should be."""

from typing import Any

from django.core.management.base import BaseCommand

from apps.core import pruning


class Command(BaseCommand):
    help = (
        "Delete stored texts whose retention is over (Project: body retention days), tasks that ended or were "
        "discarded REDRIVE_TASK_RETENTION_DAYS ago, webhook events and tries of REDRIVE_WEBHOOK_RETENTION_DAYS ago, "
        "Idempotency-Keys older than a day and workers that are long gone. A running clock does the same all the "
        "time. Dead tasks that nobody has decided on and the ledger are kept."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Batch by batch, each in a transaction of its own; a line for each kind of row."""
        for prune in pruning.all_of_them():
            deleted = 0
            while count := prune.step():
                deleted += count
            self.stdout.write(f"Deleted {deleted:,} {prune.words}.")
