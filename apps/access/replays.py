"""Holds the Idempotency-Keys of this process's live calls: taken, renewed by one task for all, and given up in the end.

A process that dies renews nothing: its keys are free within LEASE seconds. What a call was answered is kept before its
client sees it, so that whoever lost the answer finds it again.
"""

import asyncio
import contextvars
import functools
import threading
from uuid import UUID

import structlog
from django.conf import settings

from apps.access import idempotency
from apps.access.idempotency import LEASE, Claim, Lease, Replay
from apps.core.database import LOST_CONNECTION, Batch, in_db
from apps.core.errors import ServiceUnavailable

log = structlog.get_logger(__name__)

RENEW_EVERY = LEASE / 3
RENEW_AGAIN = 1.0  # seconds after a renewal that failed
BACKLOG = 1000  # ends of calls that may wait for Postgres

_held: dict[UUID, Lease] = {}
_renewing: "asyncio.Task[None] | None" = None


async def begin(claim: Claim) -> Lease | Replay:
    """As idempotency.begin; the lease is renewed until it is settled. Raises DatabaseTimeout, ServiceUnavailable."""
    if settlements().is_full():
        raise ServiceUnavailable("Idempotency-Keys cannot be kept right now.", retry_after=5)
    taking = _Taking(claim)
    try:
        begun = await in_db(taking.take)
    except BaseException:
        taking.leave()
        raise
    if isinstance(begun, Lease):
        _hold(begun)
    return begun


async def settle(lease: Lease, reply: bytes | None) -> None:
    """Keep the reply of a call that succeeded, or free the key of one that failed (None). Never raises.

    It waits until that is committed, or for as long as Postgres may take to answer; then it is tried on and on.
    """
    settling = settlements().submit((lease, reply))
    settling.add_done_callback(lambda _: _held.pop(lease.id, None))
    try:
        async with asyncio.timeout(settings.REDRIVE.database_timeout * 2):
            if not await asyncio.shield(settling):
                log.warning("idempotency_lease_lost", route=lease.claim.route)
    except TimeoutError:
        log.warning("idempotency_settles_late", route=lease.claim.route)
    except Exception as error:
        log.error("idempotency_not_settled", route=lease.claim.route, exc_info=error)


def let_go(lease: Lease) -> None:
    """Free the key of a call that was cancelled; nobody waits for it."""
    _held.pop(lease.id, None)
    settlements().append((lease, None))


@functools.cache
def settlements() -> "Batch[tuple[Lease, bytes | None], bool]":
    """The process's writer of how live calls ended."""
    return Batch(idempotency.settle, name="idempotency", max_items=100, backlog=BACKLOG)


class _Taking:
    """A key on its way from Postgres, which may come after its caller has left: then it is given back at once."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._lock = threading.Lock()
        self._begun: Lease | Replay | None = None
        self._left = False

    def take(self) -> Lease | Replay:
        """In a database thread."""
        begun = idempotency.begin(self._claim)
        with self._lock:
            self._begun = begun
            left = self._left
        if left and isinstance(begun, Lease):
            let_go(begun)
        return begun

    def leave(self) -> None:
        """The caller waits no longer."""
        with self._lock:
            self._left = True
        if isinstance(self._begun, Lease):
            let_go(self._begun)


def _hold(lease: Lease) -> None:
    global _renewing
    _held[lease.id] = lease
    if _renewing is None or _renewing.done():
        _renewing = asyncio.get_running_loop().create_task(_renew(), context=contextvars.Context())


async def _renew() -> None:
    wait = RENEW_EVERY
    while True:
        await asyncio.sleep(wait)
        if not _held:
            return
        try:
            await in_db(idempotency.renew, list(_held.values()))
            wait = RENEW_EVERY
        except LOST_CONNECTION as error:
            log.warning("idempotency_leases_not_renewed", error=type(error).__name__)
            wait = RENEW_AGAIN
