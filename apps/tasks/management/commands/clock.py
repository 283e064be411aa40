"""`manage.py clock`: rings for due work, takes attempts from lost workers, ends what is too late."""

import signal
from typing import Any

from django.core.management.base import BaseCommand

from apps.core.clock import Clock


class Command(BaseCommand):
    help = "Run the clock. One is enough, several are safe: each chore is done by one of them at a time."

    def handle(self, *args: Any, **options: Any) -> None:
        """Until SIGTERM or SIGINT."""
        clock = Clock()
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, lambda *_: clock.stop())
        clock.run()
