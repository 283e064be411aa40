"""Runs tasks: claims what is due, calls the handlers on one loop, writes how they ended. Hundreds at once.

No connection to Postgres is held while a handler waits for its upstream. What decides is in other modules: `kinds`
(who does it), `retry_policy` (what a failure means), `lifecycle` (the moves).
"""

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from uuid import UUID

import structlog
from django.conf import settings

from apps.completions import spending
from apps.core import config_version, ids, request_context
from apps.core.database import LOST_CONNECTION, Batch, in_db
from apps.core.request_context import RequestContext
from apps.tasks import kinds, retry_policy, states
from apps.tasks.attempt import Run, ending_of, perform
from apps.tasks.errors import ResultNotStorable
from apps.tasks.lifecycle import leases
from apps.tasks.lifecycle.claim import Claimed, claim
from apps.tasks.lifecycle.ending import Ending, failure_of
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import TaskAttempt
from apps.tasks.presence import Presence
from apps.tasks.retry_policy import Decision

log = structlog.get_logger(__name__)

SWEEP = 1.0  # seconds between looks for due work without a ring
LOOK_AT_LEASES = 0.4  # seconds; a cancel is obeyed within a second
HAND_BACK = 3.0  # TTLs
QUARANTINE_SLOTS = 20
WEBHOOK_SLOTS = 50  # of their own: receivers that hang must not keep work waiting, nor work the news of it
Outcome = TaskAttempt.Outcome


class Executor:
    """One worker. Run `run()` in a loop of its own; `wake` and `stop` may be called from any thread."""

    def __init__(self, queues: Sequence[str], *, slots: int | None = None) -> None:
        self.worker = ids.new_uuid()
        self.queues = list(queues)
        self.slots = slots or settings.REDRIVE.worker_slots
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._rung = set(self.queues)
        self._stopping = False
        self._attempts: dict[UUID, tuple[Run, asyncio.Task[None]]] = {}
        self._cancelled: set[UUID] = set()
        self._turned = time.monotonic()
        self._finishes: Batch[Ending, str | None] = Batch(
            finish, name="finish", poisoned=self._finish_poisoned, size=lambda ending: len(ending.result or "")
        )
        self.presence = Presence(
            self.worker,
            self.queues,
            self.slots,
            in_flight=lambda: len(self._attempts),
            turned=lambda: self._turned,
        )

    def wake(self, queues: Sequence[str]) -> None:
        """There is due work in these queues."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._note_ring, queues)

    def stop(self) -> None:
        """Claim no more, give what runs a while, hand the rest back; then `run` returns."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_to_stop)

    async def run(self) -> None:
        """Work until `stop`."""
        self._loop = asyncio.get_running_loop()
        self._turned = time.monotonic()
        self.presence.start()
        chores = [
            asyncio.create_task(chore)
            for chore in (self._turn(), self._look_at_leases(), config_version.watch(settings.REDRIVE.config_poll))
        ]
        # What is claimed before would be taken from us at once.
        while not (self._stopping or await asyncio.to_thread(self.presence.registered.wait, 0.2)):
            pass
        log.info("worker_started", worker=self.worker.hex, queues=self.queues, slots=self.slots)
        try:
            while not self._stopping:
                try:
                    await self._claim_round()
                except LOST_CONNECTION as error:
                    log.warning("claim_failed", error=type(error).__name__)
                    await asyncio.sleep(0.5)
                except Exception as error:  # one that lives and claims nothing would be worse than one that tries
                    log.error("claim_failed", exc_info=error)
                    await asyncio.sleep(SWEEP)
                try:
                    async with asyncio.timeout(SWEEP):
                        await self._news.wait()
                except TimeoutError:
                    self._rung.update(self.queues)
                self._news.clear()
            await self._drain()
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.to_thread(self.presence.stop)
            await spending.shut_down()
            log.info("worker_stopped", worker=self.worker.hex)

    # Claiming

    def _note_ring(self, queues: Sequence[str]) -> None:
        self._rung.update(set(queues).intersection(self.queues))
        self._news.set()

    async def _claim_round(self) -> None:
        """Take due work until the slots are full or nothing is due. Free slots are dealt by the queues' weights."""
        while not self._stopping:
            shares = self._shares()
            if not shares:
                return  # nothing is due, or an attempt that ends wakes us
            for queue, share in shares:
                taken = await self._claim(queue, share)
                if taken < share:
                    self._rung.discard(queue)

    def _shares(self) -> list[tuple[str, int]]:
        """How many tasks to claim from each queue now."""
        webhooks = sum(run.task.queue == states.WEBHOOKS for run, _ in self._attempts.values())
        slots = min(self.slots, QUARANTINE_SLOTS) if self.queues == [states.QUARANTINE] else self.slots
        shares = _deal(self._rung - {states.WEBHOOKS}, slots - (len(self._attempts) - webhooks))
        if states.WEBHOOKS in self._rung and webhooks < WEBHOOK_SLOTS:
            shares.append((states.WEBHOOKS, WEBHOOK_SLOTS - webhooks))
        return shares

    async def _claim(self, queue: str, most: int) -> int:
        # Without a sign of life that stands, what is claimed would be taken from us and count as a lost worker.
        if self._alone() or not self.presence.stands():
            return 0
        claimed = await self._take(queue, most)
        if queue == states.QUARANTINE and not claimed and not self._attempts:
            claimed = await self._take(queue, 1, alone=True)
        for task in claimed:
            run = Run(task, self.worker)
            self._attempts[task.id] = (run, asyncio.create_task(self._attempt(run)))
        return len(claimed)

    async def _take(self, queue: str, most: int, *, alone: bool = False) -> list[Claimed]:
        left = threading.Event()
        try:
            return await in_db(
                claim, queue, self.worker, most, limits=kinds.limits(), alone=alone, unwanted=left.is_set
            )
        except BaseException:  # a frozen Postgres may do it later, and then nobody would know of the tasks
            left.set()
            raise

    def _alone(self) -> bool:
        return any(run.task.worker_losses >= retry_policy.ALONE_AT for run, _ in self._attempts.values())

    # Attempts

    async def _attempt(self, run: Run) -> None:
        task = run.task
        context = RequestContext(task.request_id or ids.request_id())
        context.log_fields.update(task=task.id.hex, kind=task.kind, attempt=task.attempt)
        request_context.enter(context)
        try:
            try:
                ending = await perform(run)
            except asyncio.CancelledError:
                ending = self._cut_short(run)
            await asyncio.shield(self._finishes.submit(ending))
            log.info("attempt_ended", outcome=ending.decision.outcome, state=ending.decision.state)
        except Exception as error:
            log.error("finish_failed", exc_info=error)  # its time runs out, and the reaper takes it
        finally:
            self._forget(run)

    def _cut_short(self, run: Run) -> Ending:
        """The end of an attempt that was cancelled, handed back, or lost its lease: of that only its cost is kept."""
        if run.task.id in self._cancelled:
            return ending_of(run, Decision(states.CANCELLED, Outcome.CANCELLED))
        return ending_of(run, Decision(states.RETRYING, Outcome.HANDED_BACK))

    def _forget(self, run: Run) -> None:
        if self._attempts.get(run.task.id, (None,))[0] is run:
            del self._attempts[run.task.id]
        self._cancelled.discard(run.task.id)
        if self._rung:
            self._news.set()

    def _finish_poisoned(self, ending: Ending, error: Exception) -> None:
        """An ending that Postgres, or a receiver, refuses alone: the task dies by the shortest path."""
        ending.decision = Decision(states.DEAD, Outcome.FAILED, charged=True)
        ending.result = None
        ending.failure = failure_of(ResultNotStorable(), kind=ending.kind, upstream=ending.upstream)
        for entries in (ending.entries, ()):
            ending.entries = entries
            try:
                finish([ending])
                return
            except Exception as again:
                log.error("finish_refused", task=ending.task_id.hex, exc_info=again)

    # Beside the attempts

    async def _turn(self) -> None:
        while True:
            self._turned = time.monotonic()
            await asyncio.sleep(0.5)

    async def _look_at_leases(self) -> None:
        handed_back_at = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_AT_LEASES)
            try:
                await self._look(dict(self._attempts))
                if time.monotonic() - handed_back_at > HAND_BACK * settings.REDRIVE.worker_ttl:
                    handed_back_at = time.monotonic()
                    await in_db(leases.hand_back, self.worker, known=list(self._attempts))
            except LOST_CONNECTION as error:
                log.warning("leases_unreadable", error=type(error).__name__)
            except Exception as error:  # without this look no cancel is obeyed any more
                log.error("look_at_leases_failed", exc_info=error)

    async def _look(self, before: dict[UUID, tuple[Run, "asyncio.Task[None]"]]) -> None:
        """Obey cancels, leave what another has taken, write the progress that was told."""
        held = await in_db(leases.held, self.worker)
        for task_id, (run, attempt) in before.items():
            row = held.get(task_id)
            if row is None or row.token != run.task.token:
                if self._attempts.get(task_id, (None,))[0] is run and not attempt.done():
                    self._lease_is_lost(run, attempt)
            elif row.cancel_requested and task_id not in self._cancelled:
                self._cancelled.add(task_id)
                attempt.cancel()
        told = [(run, run.told) for run, _ in before.values() if run.told]
        if told:
            await in_db(leases.write_progress, [(run.task.id, run.task.token, text) for run, text in told])
        for run, text in told:
            if run.told == text:
                run.told = ""

    def _lease_is_lost(self, run: Run, attempt: "asyncio.Task[None]") -> None:
        # It may just be finishing: then its batch has moved the row and the attempt is about to end.
        if time.monotonic() - run.begun > settings.REDRIVE.worker_ttl:
            log.warning("lease_lost", task=run.task.id.hex)
            attempt.cancel()

    def _begin_to_stop(self) -> None:
        self._stopping = True
        self._news.set()

    async def _drain(self) -> None:
        running = [attempt for _, attempt in self._attempts.values()]
        if running:
            await asyncio.wait(running, timeout=settings.REDRIVE.worker_grace)
        for _, attempt in list(self._attempts.values()):
            attempt.cancel()
        if self._attempts:
            await asyncio.wait([attempt for _, attempt in self._attempts.values()], timeout=10)
        await asyncio.to_thread(self._finishes.flush, 10.0)


def _deal(queues: set[str], free: int) -> list[tuple[str, int]]:
    """How many slots each queue may fill: by weight where several have work, all to one that is alone."""
    weights = {queue: states.WEIGHTS.get(queue, 1) for queue in queues}
    total = sum(weights.values())
    # The order varies, so that with one free slot the weights hold as well.
    order = sorted(weights, key=lambda queue: random.random() ** (1 / weights[queue]), reverse=True)
    shares = {queue: max(1, free * weights[queue] // total) for queue in order}
    dealt: list[tuple[str, int]] = []
    for queue in order:
        share = min(shares[queue], free)
        if share > 0:
            dealt.append((queue, share))
            free -= share
    return dealt
