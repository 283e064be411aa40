"""Makes the demo's tasks: accepted, claimed and ended as all tasks are, then made as old as they shall be.

They pass through a queue that no worker serves, within one transaction: nobody sees them before they are done.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from uuid import UUID

from django.db import transaction

from apps.access.models import ApiKey, Project
from apps.completions.ledger import Entry
from apps.completions.models import NUSD, LedgerEntry
from apps.core import ids, json_codec
from apps.dead_letters.demo import ageing, texts
from apps.dead_letters.demo.failures import CHAT
from apps.dead_letters.demo.works import Try, Work
from apps.tasks import enqueue, kinds, states
from apps.tasks.enqueue import NewTask
from apps.tasks.lifecycle.claim import Claimed, claim
from apps.tasks.lifecycle.ending import Ending, failure_of
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task, TaskAttempt
from apps.tasks.retry_policy import Decision

AT_ONCE = 500  # tasks of one transaction
QUEUE = "demo"  # no worker serves it, and no commit leaves a task in it
METADATA = json_codec.ascii_dumps({"demo": "true"})
WORKERS = 3
Outcome = TaskAttempt.Outcome


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes tasks of a project."""

    project: Project
    keys: Sequence[ApiKey]
    rng: Random

    def make(self, works: Iterable[Work]) -> None:
        """Make them all, the oldest first."""
        workers = [UUID(int=self.rng.getrandbits(128), version=4) for _ in range(WORKERS)]
        for batch in _batches(sorted(works, key=lambda work: work.created)):
            with transaction.atomic():
                enqueue.insert([self._new(work) for work in batch])
                self._perform(batch, workers)
                ageing.age(self.project.pk, batch)

    def redrive(self, works: Sequence[Work], tries: Sequence[Try]) -> None:
        """End tasks that were just redriven, in the caller's transaction: each succeeds at its try."""
        for work, attempt in zip(works, tries, strict=True):
            work.tries.append(attempt)
            work.state = states.SUCCEEDED
        # Back into the queue that nobody serves, before the commit shows them to a worker.
        Task.objects.filter(pk__in=[work.id for work in works]).update(queue=QUEUE)
        self._perform(works, [UUID(int=self.rng.getrandbits(128), version=4)])
        ageing.age(self.project.pk, works)

    def _new(self, work: Work) -> NewTask:
        return NewTask(
            project_id=self.project.pk,
            kind=kinds.find(work.kind),
            args=json_codec.ascii_dumps(work.args),
            api_key_id=self.keys[work.key].pk,
            priority=work.priority,
            queue=QUEUE if work.tries else work.priority,
            request_id=f"req_{work.id.hex}",
            end_user=f"customer-{work.id.int % 97}",
            metadata=METADATA,
            deadline=kinds.find(work.kind).deadline,
            delay=0.0 if work.tries else work.wait,
            id=work.id,
        )

    def _perform(self, batch: Sequence[Work], workers: Sequence[UUID]) -> None:
        """Claim and end, until all that is due in the queue has come to its end."""
        works = {work.id: work for work in batch}
        while claimed := claim(QUEUE, self.rng.choice(workers), AT_ONCE, limits=kinds.limits()):
            finish([self._ending(works[one.id], one, self.rng.choice(workers)) for one in claimed])

    def _ending(self, work: Work, claimed: Claimed, worker: UUID) -> Ending:
        attempt = work.tries[claimed.attempt - 1]
        is_last = claimed.attempt == len(work.tries)
        error = attempt.cause.error(self.rng) if attempt.cause else None
        entry = self._entry(work, attempt, claimed, error)
        result = None
        if attempt.cause is None:
            cost = entry.cost_nusd / NUSD
            given = texts.result(work.args, self.rng, used=work.used, cost_usd=cost, latency_ms=attempt.milliseconds)
            result = json_codec.ascii_dumps(given)
        return Ending(
            task_id=work.id,
            kind=work.kind,
            token=claimed.token,
            number=claimed.attempt,
            cycle=claimed.cycle,
            worker=worker,
            request_id=claimed.request_id,
            started_at=attempt.started,
            decision=_decision(work, attempt, is_last=is_last),
            failure=failure_of(error, kind=work.kind, upstream=str(work.upstream)) if error else None,
            result=result,
            upstream=str(work.upstream),
            entries=(entry,),
        )

    def _entry(self, work: Work, attempt: Try, claimed: Claimed, error: Exception | None) -> Entry:
        answered = error is None or not hasattr(error, "code")  # a bug comes after the answer
        inwards, outwards = work.used if answered else (0, 0)
        return Entry(
            id=ids.new_uuid(),
            created_at=attempt.finished,
            request_id=claimed.request_id,
            project_id=self.project.pk,
            api_key_id=self.keys[work.key].pk,
            end_user=claimed.end_user,
            operation="chat" if work.kind == CHAT else "embeddings",
            model=work.args["model"],
            provider=work.upstream.provider,
            upstream_model=work.upstream.model,
            upstream_request_id=f"req_{self.rng.getrandbits(88):022x}",
            attempt=1,
            stream=False,
            outcome=LedgerEntry.Outcome.SUCCEEDED if answered else LedgerEntry.Outcome.FAILED,
            status=200 if answered else getattr(error, "upstream_status", None),
            error_code="" if answered else getattr(error, "code", ""),
            input_tokens=inwards,
            cached_tokens=0,
            output_tokens=outwards,
            cost_nusd=inwards * work.upstream.input_nusd + outwards * work.upstream.output_nusd,
            estimated=False,
            latency_ms=attempt.milliseconds,
            ttft_ms=None,
            elapsed_ms=attempt.milliseconds,
            task_id=work.id,
            task_attempt=claimed.attempt,
        )


def _decision(work: Work, attempt: Try, *, is_last: bool) -> Decision:
    if attempt.cause is None:
        return Decision(states.SUCCEEDED, Outcome.SUCCEEDED, queue=work.priority)
    if is_last and work.state == states.DEAD:
        return Decision(states.DEAD, Outcome.FAILED, charged=True, queue=work.priority)
    waits = attempt.cause.waits
    return Decision(
        states.RETRYING,
        Outcome.RATE_LIMITED if waits else Outcome.FAILED,
        delay=work.wait if is_last else 0.0,
        charged=not waits,
        queue=work.priority if is_last else "",
    )


def _batches(works: Iterable[Work]) -> Iterable[list[Work]]:
    rest = iter(works)
    while batch := list(itertools.islice(rest, AT_ONCE)):
        yield batch
