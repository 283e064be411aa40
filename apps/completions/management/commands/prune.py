"""Deletes stored texts whose time is over."""

from typing import Any

from django.core.management.base import BaseCommand

from apps.completions import retention


class Command(BaseCommand):
    help = (
        "Delete the stored texts of requests whose retention is over (Project: body retention days). "
        "Run it daily. The ledger itself is kept."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"Deleted {retention.prune_bodies()} stored bodies.")
