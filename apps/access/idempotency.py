"""The one store of Idempotency-Keys (draft-ietf-httpapi-idempotency-key-header-07): same key, same work, once.

A key belongs to a project and a route for 24 hours. For tasks its record is written in the transaction that accepts
the task. A live call holds its key by a lease while it runs and leaves its reply, encrypted, in the record; a failure
frees the key. Postgres alone decides; with Postgres away nothing is accepted.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from django.db import connection, transaction

from apps.access.errors import IdempotencyInProgress, IdempotencyKeyReused
from apps.core import crypto, ids
from apps.core.errors import Conflict, InvalidRequest

log = structlog.get_logger(__name__)

HOURS = 24
MAX_KEY = 255
LEASE = 30.0  # seconds a live call holds its key without a renewal
MAX_REPLY = 4 * 1024 * 1024  # bytes of a reply that is kept
PRUNED_AT_ONCE = 10_000
_KEY = re.compile(r'"(?P<quoted>[^"]+)"|(?P<bare>[^"]+)')


@dataclass(frozen=True, slots=True)
class Claim:
    """One use of a key. digest: SHA-256 of the request's body, in hexadecimal digits."""

    project_id: UUID
    route: str
    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A live call's right to its key. `id` fences: who lost the lease to another changes nothing any more."""

    claim: Claim
    id: UUID


@dataclass(frozen=True, slots=True)
class Replay:
    """What the first request with this key was answered: the body of a 200."""

    body: bytes


def claim(project_id: UUID, route: str, header: str | None, body: bytes) -> Claim | None:
    """The claim of a request's Idempotency-Key header, bare or quoted; None without one. Raises InvalidRequest."""
    if header is None:
        return None
    match = _KEY.fullmatch(header.strip())
    key = (match["quoted"] or match["bare"]) if match else ""
    if not key or len(key) > MAX_KEY or not key.isprintable():
        raise InvalidRequest(f"It may have 1 to {MAX_KEY} printable characters.", param="Idempotency-Key")
    return Claim(project_id, route, key, hashlib.sha256(body).hexdigest())


def claim_for_tasks(claims: Sequence[tuple[Claim, UUID]]) -> list[UUID | IdempotencyKeyReused]:
    """Bind each key to its task, in the caller's transaction: the task that holds the key, or why it is refused.

    Of equal keys in one call the first wins. A key held by a transaction that has not ended is waited for.
    """
    # Sorted, so that two transactions with the same keys wait for one another in one order.
    ordered = sorted({(c.project_id, c.route, c.key): (c, task_id) for c, task_id in reversed(claims)}.items())
    columns: list[list[Any]] = [
        [c.project_id for _, (c, _) in ordered],
        [c.route for _, (c, _) in ordered],
        [c.key for _, (c, _) in ordered],
        [c.digest for _, (c, _) in ordered],
        [task_id for _, (_, task_id) in ordered],
    ]
    with connection.cursor() as cursor:
        cursor.execute(_BIND, columns)
        if cursor.rowcount == len(ordered):  # nearly always: no key was held
            held = {found: (c.digest, task_id) for found, (c, task_id) in ordered}
        else:
            cursor.execute(_READ, columns[:3])
            held = {(row[0], row[1], row[2]): (row[3], row[4]) for row in cursor.fetchall()}
    outcomes: list[UUID | IdempotencyKeyReused] = []
    for c, _ in claims:
        digest, task_id = held[c.project_id, c.route, c.key]
        outcomes.append(task_id if digest == c.digest and task_id is not None else IdempotencyKeyReused())
    return outcomes


@transaction.atomic
def begin(claim: Claim) -> Lease | Replay:
    """Take the key of a live call, or find what it was answered before.

    Raises IdempotencyInProgress while another holds it, IdempotencyKeyReused, and Conflict where the first request
    succeeded with a reply that is not kept: it must not be spent for twice.
    """
    lease = Lease(claim, ids.new_uuid())
    key = (claim.project_id, claim.route, claim.key)
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, (*key, claim.digest, lease.id))
        if cursor.fetchone():
            return lease
        # Its row stays locked until the transaction's end, taken or not: what is read here is what refused.
        cursor.execute(_LOOK, key)
        digest, holder, token = cursor.fetchone()
    if digest != claim.digest:
        raise IdempotencyKeyReused()
    if holder is not None:
        raise IdempotencyInProgress(retry_after=1)
    try:
        if token:
            return Replay(crypto.decrypt(token).encode())
    except crypto.UndecipherableError:
        log.warning("idempotency_reply_undecipherable", route=claim.route)
    raise Conflict("The first request with this Idempotency-Key succeeded, its reply was not kept.", should_retry=False)


@transaction.atomic
def renew(leases: Sequence[Lease]) -> None:
    """Hold the keys for another LEASE seconds; those that were lost stay lost."""
    with connection.cursor() as cursor:
        cursor.execute(_RENEW, _columns(leases))


@transaction.atomic
def settle(settled: Sequence[tuple[Lease, bytes | None]]) -> list[bool]:
    """End leases: keep the reply of each call that succeeded, free the key of each that failed (None).

    False for those that another had taken over.
    """
    done = [(lease, _kept(lease, reply)) for lease, reply in settled if reply is not None]
    failed = [lease for lease, reply in settled if reply is None]
    held: set[UUID] = set()
    with connection.cursor() as cursor:
        if done:
            cursor.execute(_COMPLETE, [*_columns([lease for lease, _ in done]), [token for _, token in done]])
            held.update(row[0] for row in cursor.fetchall())
        if failed:
            cursor.execute(_RELEASE, _columns(failed))
            held.update(row[0] for row in cursor.fetchall())
    return [lease.id in held for lease, _ in settled]


def prune() -> int:
    """Delete the oldest records beyond their time; how many. A chore of the clock."""
    with connection.cursor() as cursor:
        cursor.execute(_PRUNE, [PRUNED_AT_ONCE])
        return int(cursor.rowcount)


def _kept(lease: Lease, reply: bytes) -> str:
    if len(reply) > MAX_REPLY:
        log.info("idempotency_reply_too_large", route=lease.claim.route, size=len(reply))
        return ""
    return crypto.encrypt(reply.decode())


def _columns(leases: Sequence[Lease]) -> list[list[Any]]:
    return [
        [lease.claim.project_id for lease in leases],
        [lease.claim.route for lease in leases],
        [lease.claim.key for lease in leases],
        [lease.id for lease in leases],
    ]


_KEYS = "unnest(%s::uuid[], %s::text[], %s::text[]) AS k(project_id, route, key)"
_SAME = "r.project_id = k.project_id AND r.route = k.route AND r.key = k.key"
_BIND = f"""
INSERT INTO access_idempotencyrecord AS r (project_id, route, key, digest, task_id, reply, created_at)
SELECT project_id, route, key, digest, task_id, '', now()
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::uuid[]) AS k(project_id, route, key, digest, task_id)
ON CONFLICT (project_id, route, key) DO UPDATE SET digest = excluded.digest, task_id = excluded.task_id,
  lease_until = NULL, reply = '', created_at = excluded.created_at
WHERE r.created_at < now() - interval '{HOURS} hours'
"""  # noqa: S608
_READ = (
    f"SELECT r.project_id, r.route, r.key, r.digest, r.task_id FROM access_idempotencyrecord r JOIN {_KEYS} ON {_SAME}"  # noqa: S608
)
_TAKE = f"""
INSERT INTO access_idempotencyrecord AS r (project_id, route, key, digest, lease, lease_until, reply, created_at)
VALUES (%s, %s, %s, %s, %s, now() + interval '{LEASE} seconds', '', now())
ON CONFLICT (project_id, route, key) DO UPDATE SET digest = excluded.digest, lease = excluded.lease,
  lease_until = excluded.lease_until, task_id = NULL, reply = '', created_at = excluded.created_at
WHERE r.lease_until < now() OR (r.lease_until IS NULL AND r.created_at < now() - interval '{HOURS} hours')
RETURNING true
"""  # noqa: S608
_LOOK = "SELECT digest, lease, reply FROM access_idempotencyrecord WHERE project_id = %s AND route = %s AND key = %s"
_LEASES = "unnest(%s::uuid[], %s::text[], %s::text[], %s::uuid[]) AS k(project_id, route, key, lease)"
_RENEW = f"""
UPDATE access_idempotencyrecord r SET lease_until = now() + interval '{LEASE} seconds' FROM {_LEASES}
WHERE {_SAME} AND r.lease = k.lease
"""  # noqa: S608
_COMPLETE = f"""
UPDATE access_idempotencyrecord r SET reply = k.reply, lease = NULL, lease_until = NULL
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::uuid[], %s::text[]) AS k(project_id, route, key, lease, reply)
WHERE {_SAME} AND r.lease = k.lease RETURNING k.lease
"""  # noqa: S608
_RELEASE = f"""
DELETE FROM access_idempotencyrecord r USING {_LEASES} WHERE {_SAME} AND r.lease = k.lease RETURNING k.lease
"""  # noqa: S608
_PRUNE = f"""
DELETE FROM access_idempotencyrecord WHERE ctid = ANY (ARRAY (
  SELECT ctid FROM access_idempotencyrecord
  WHERE created_at < now() - interval '{HOURS} hours' AND (lease_until IS NULL OR lease_until < now())
  ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED))
"""  # noqa: S608
