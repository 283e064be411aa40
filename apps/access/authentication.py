"""Turns a bearer secret into a Caller: from memory when it is known, from Postgres when it is new or was changed.

A known key is served without Postgres for REDRIVE_STALE_CONFIG seconds (10 min); a change of any key, limit or
project is in force within a second on every process (apps/core/config_version.py).
"""

import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any
from uuid import UUID

from django.db.models import Q

from apps.access import keys
from apps.access.models import ApiKey, Limit
from apps.core import config_version, errors
from apps.core.database import LOST_CONNECTION, in_db

MAX_CACHED = 20_000
FAILURES_PER_MINUTE = 30  # refused secrets of one address before it is answered 429 without a look
MAX_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one scope, None where there is none. The budget is in nano-USD a month."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    monthly_budget_nusd: int | None = None
    end_user_requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated key, as plain values. Times are unix seconds."""

    key_id: UUID
    project_id: UUID
    key_prefix: str
    allowed_models: tuple[str, ...]
    key_limits: Limits
    project_limits: Limits
    store_bodies: bool
    body_retention_days: int
    expires_at: float | None

    def may_use(self, model: str) -> bool:
        """Whether the key's patterns allow this public model name."""
        return not self.allowed_models or any(fnmatchcase(model, pattern) for pattern in self.allowed_models)


@dataclass(slots=True)
class _Known:
    caller: Caller
    generation: int


_known: OrderedDict[str, _Known] = OrderedDict()
_generation = 0
_failures: OrderedDict[str, tuple[float, int]] = OrderedDict()


def forget() -> None:
    """Look every key up again at its next use; until that succeeds the old row stands."""
    global _generation
    _generation += 1


async def authenticate(secret: str | None, *, address: str | None) -> Caller:
    """The caller of a secret. Raises InvalidApiKey, RateLimitExceeded (too many refused from this address),
    ServiceUnavailable (an unknown key while Postgres is away). address: None for a secret that was accepted before
    on the same connection; a refusal of it is no guess."""
    digest = keys.digest(secret) if secret else ""
    known = _known.get(digest)
    if known is not None and known.generation == _generation and not config_version.is_stale():
        caller: Caller | None = known.caller
    else:
        _refuse_guessing(address, known)
        caller = await _look_up(digest, known) if secret and len(secret) <= 200 else None
    if caller is None or (caller.expires_at is not None and caller.expires_at <= time.time()):
        _count_failure(address)
        raise errors.InvalidApiKey()
    return caller


async def _look_up(digest: str, known: _Known | None) -> Caller | None:
    generation = _generation
    try:
        caller = await in_db(find, digest)
    except LOST_CONNECTION:
        if known is not None and not config_version.is_stale():
            return known.caller
        raise
    if caller is None:
        _known.pop(digest, None)
        return None
    _known[digest] = _Known(caller, generation)
    _known.move_to_end(digest)
    if len(_known) > MAX_CACHED:
        _known.popitem(last=False)
    return caller


def find(digest: str) -> Caller | None:
    """The caller whose key, or previous key in its overlap, has this digest and is not disabled. By Postgres."""
    key = (
        ApiKey.objects.select_related("project", "limit", "project__limit")
        .filter(Q(digest=digest) | Q(previous_digest=digest), disabled_at__isnull=True)
        .first()
    )
    if key is None:
        return None
    is_current = hmac.compare_digest(key.digest, digest)
    ends = [time for time in (key.expires_at, None if is_current else key.previous_expires_at) if time is not None]
    if ends and min(ends) <= datetime.now(UTC):
        return None
    return _caller(key, ends)


async def caller_of(key_id: UUID) -> Caller:
    """The caller of a key whose work was accepted before, be it rotated or expired since. Raises InvalidApiKey for one
    that is disabled or deleted: nothing more is spent in its name."""
    known = _by_id.get(key_id)
    if known is None or known.generation != _generation:
        generation = _generation
        try:
            caller = await in_db(_find_by_id, key_id)
        except LOST_CONNECTION:
            if known is None:
                raise
            return known.caller
        if len(_by_id) >= MAX_CACHED:
            _by_id.clear()
        known = _by_id[key_id] = _Known(caller, generation)
    return known.caller


_by_id: dict[UUID, _Known] = {}


def _find_by_id(key_id: UUID) -> Caller:
    key = ApiKey.objects.select_related("project", "limit", "project__limit").filter(pk=key_id).first()
    if key is None:
        raise errors.InvalidApiKey("The API key of this work was deleted.")
    if key.disabled_at is not None:
        raise errors.InvalidApiKey("The API key of this work is disabled.")
    return _caller(key, [])


def _caller(key: ApiKey, ends: list[datetime]) -> Caller:
    return Caller(
        key_id=key.pk,
        project_id=key.project_id,
        key_prefix=key.prefix,
        allowed_models=tuple(key.allowed_models),
        key_limits=_limits(key),
        project_limits=_limits(key.project),
        store_bodies=key.project.store_bodies,
        body_retention_days=key.project.body_retention_days,
        expires_at=min(ends).timestamp() if ends else None,
    )


def _limits(owner: Any) -> Limits:
    row: Limit | None = getattr(owner, "limit", None)
    if row is None:
        return Limits()
    return Limits(
        requests_per_minute=row.requests_per_minute,
        tokens_per_minute=row.tokens_per_minute,
        concurrency=row.concurrency,
        monthly_budget_nusd=None if row.monthly_budget_usd is None else int(row.monthly_budget_usd * 1_000_000_000),
        end_user_requests_per_minute=row.end_user_requests_per_minute,
    )


def _refuse_guessing(address: str | None, known: _Known | None) -> None:
    if address is None:
        return
    since, count = _failures.get(address, (0.0, 0))
    wait = since + 60 - time.monotonic()
    if known is None and count >= FAILURES_PER_MINUTE and wait > 0:
        raise errors.RateLimitExceeded("Too many refused API keys from this address.", retry_after=wait)


def _count_failure(address: str | None) -> None:
    if address is None:
        return
    since, count = _failures.get(address, (0.0, 0))
    now = time.monotonic()
    _failures[address] = (since, count + 1) if now - since < 60 else (now, 1)
    _failures.move_to_end(address)
    if len(_failures) > MAX_ADDRESSES:
        _failures.popitem(last=False)
