"""The Celery application: its messages are rings and chores; no state of the product hangs on them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("redrive")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(related_name="worker")


def registered() -> list[str]:
    """The names of all Celery tasks that this code knows, but for Celery's own building blocks."""
    app.loader.import_default_modules()
    return sorted(name for name in app.tasks if not name.startswith("celery.") or name == "celery.backend_cleanup")


def send(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, queue: str = "", chore: str = "") -> str:
    """Send one message now; its id. chore: the periodic task it stands for. Raises kombu's OperationalError."""
    headers = {"periodic_task_name": chore} if chore else {}
    sent = app.send_task(name, args=args, kwargs=kwargs, queue=queue or None, headers=headers, retry=False)
    return str(sent.id)
