"""The one store of Idempotency-Keys (draft-ietf-httpapi-idempotency-key-header-07): same key, same work, once.

A key belongs to a project and a route for 24 hours. For tasks its record is written in the transaction that accepts
the task. Postgres alone decides; with Postgres away nothing is accepted.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from apps.access.errors import IdempotencyKeyReused
from apps.core.errors import InvalidRequest

HOURS = 24
MAX_KEY = 255
_KEY = re.compile(r'"(?P<quoted>[^"]+)"|(?P<bare>[^"]+)')


@dataclass(frozen=True, slots=True)
class Claim:
    """One use of a key. digest: SHA-256 of the request's body, in hexadecimal digits."""

    project_id: UUID
    route: str
    key: str
    digest: str


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
