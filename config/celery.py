"""The Celery application: its messages are rings and chores, no state of the product hangs on them."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from celery import Celery
from django.conf import settings

app = Celery("redrive")
app.conf.update(
    broker_url=settings.REDRIVE.broker_url or settings.REDRIVE.redis_url,
    broker_connection_retry_on_startup=True,
    broker_connection_timeout=0.5,
    broker_transport_options={"ack_emulation": False, "socket_timeout": 0.5, "socket_connect_timeout": 0.5},
    task_acks_late=False,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    accept_content=["json"],
    result_expires=3600,
    timezone="UTC",
)
app.set_default()
