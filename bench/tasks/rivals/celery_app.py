"""Textbook Celery: a task that asks the upstream with requests and whose answer goes to django-celery-results.

Run as a module it is the sender: for each number N that stands on a line of its input, N times `delay`.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.tasks.rivals.celery_settings")

import django
import requests
from celery import Celery

from bench.tasks import sender

app = Celery("textbook")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task
def complete(body):
    response = requests.post(f"{os.environ['BENCH_UPSTREAM']}/chat/completions", json=body, timeout=60)
    response.raise_for_status()
    return response.json()


def send(count, body):
    for _ in range(count):
        complete.delay(body)


if __name__ == "__main__":
    from bench.tasks.rivals import celery_app

    django.setup()
    sender.obey(celery_app.send)
