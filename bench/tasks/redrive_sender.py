"""Sends Redrive's tasks through `enqueue.accept`, as the REST door does, each with an Idempotency-Key."""

import asyncio
import os
import sys
import uuid

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django

django.setup()

import uvloop

from apps.access.idempotency import claim
from apps.access.models import ApiKey
from apps.core import ids, json_codec
from apps.core.database import in_db
from apps.tasks import enqueue, kinds
from apps.tasks.enqueue import NewTask
from bench.tasks import sender

CALLERS = 64
ROUTE = "/v1/tasks/chat/completions"


class Sender:
    """Sends for one API key. with_keys: whether each task has an Idempotency-Key."""

    def __init__(self, key: ApiKey, *, with_keys: bool) -> None:
        self.key = key
        self.with_keys = with_keys
        self.kind = kinds.find("chat_completion")

    async def __call__(self, count: int, body: sender.Body) -> None:
        left = iter(range(count))
        raw = json_codec.dumps(body)

        async def caller() -> None:
            for _ in left:
                await enqueue.accept(self.task(body, raw))

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    def task(self, body: sender.Body, raw: bytes) -> NewTask:
        project = self.key.project_id
        return NewTask(
            project_id=project,
            api_key_id=self.key.pk,
            kind=self.kind,
            args=json_codec.ascii_dumps(body),
            request_id=ids.request_id(),
            deadline=self.kind.deadline,
            claim=claim(project, ROUTE, uuid.uuid4().hex, raw) if self.with_keys else None,
        )


async def main() -> None:
    key = await in_db(ApiKey.objects.get, name=os.environ["BENCH_KEY_NAME"])
    await sender.obey_async(Sender(key, with_keys="--without-keys" not in sys.argv))


if __name__ == "__main__":
    uvloop.run(main())
