"""`manage.py verify`: asks the database whether anything was lost, doubled or left behind."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction

from apps.tasks import verify


class Command(BaseCommand):
    help = "Check the invariants of tasks on this database; exit code 1 if one is broken. Reads only."

    def handle(self, *args: Any, **options: Any) -> None:
        """One line for each invariant."""
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                cursor.execute("SET LOCAL statement_timeout = 0")
            found, losing = verify.verify(), verify.settings_that_lose()
        for name in losing:
            self.stdout.write(f"Postgres  broken: {name} is off, a crash may lose what was accepted")
        for invariant, count, shown in found:
            self.stdout.write(f"{invariant.name:<4} {'ok' if not count else f'{count} broken'}: {invariant.words}")
            for row in shown:
                self.stdout.write(f"       {row}")
        if losing or any(count for _, count, _ in found):
            raise CommandError("something is broken; see above")
