"""The one admission function: may this caller spend this much now? Limits, slots and budget in one Redis script.

Every way in calls `admit` before it spends and `Admission.settle` when it knows what was spent. Redis' clock
decides. With Redis away, request and token limits and slots fail open (REDRIVE_LIMITS_FAIL_OPEN), budgets closed.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from redis.exceptions import RedisError

from apps.access.authentication import Caller, Limits
from apps.access.errors import LimitsUnknown
from apps.core import errors, ids, request_context
from apps.core.database import in_db
from apps.core.redis import RedisAway, Script, client, pipe

log = structlog.get_logger(__name__)

LEASE = 660  # seconds until a slot and a reservation of a killed process are free: more than a call's total time
END_USER_BUCKETS = 10_000  # buckets of end users a key, so that invented names cannot fill Redis
MAX_CACHED = 20_000  # callers whose checks are kept made
LEDGER_LAG = 0.2  # seconds: what was settled before is committed to the ledger after this

_lua = Path(__file__).parent / "lua"
_ADMIT = Script((_lua / "admit.lua").read_text())
_SETTLE = Script((_lua / "settle.lua").read_text())
_LOAD_BUDGET = Script((_lua / "load_budget.lua").read_text())

# (scope: "project" or "key", its id) -> (month as YYYY-MM, nano-USD spent in it, both by Postgres' clock)
SpendSource = Callable[[str, UUID], tuple[str, int]]
_spend_source: SpendSource | None = None


def register_spend_source(source: SpendSource) -> None:
    """Name the function that reads the month's spend from the ledger; from AppConfig.ready of the ledger's app."""
    global _spend_source
    _spend_source = source


@dataclass(frozen=True, slots=True)
class _Check:
    kind: str  # r, t, c, b: see lua/admit.lua
    key: str
    limit: int
    scope: str
    scope_id: UUID


@dataclass(slots=True)
class Admission:
    """The right to make one request, until it is settled. tokens, nusd: what was reserved (nusd: nano-USD)."""

    checks: list[_Check]
    tokens: int
    nusd: int
    lease: str
    settled: bool = field(default=False)

    def owed(self) -> list[_Check]:
        """The checks that wait for a settlement: a request that was counted stays counted."""
        return [] if self.settled else [check for check in self.checks if check.kind != "r"]

    async def settle(self, *, tokens: int, nusd: int) -> None:
        """Give back the slot and replace what was reserved by what was used. Never raises; once only."""
        owed = self.owed()
        self.settled = True
        if not owed:
            return
        head: list[str | int] = [self.lease, self.tokens, self.nusd, tokens, nusd]
        try:
            await pipe().run(_SETTLE, [check.key for check in owed], head + _limits_of(owed))
        except RedisAway:
            # The ledger has the truth: the counter is dropped, and rebuilt from it, before it is used again.
            _drifted.update(check.key for check in owed if check.kind == "b")
            _orphans.append(self)

    async def give_back(self) -> None:
        """Free the slot and the reservation, if Redis holds them. Raises RedisAway."""
        held = [check for check in self.checks if check.kind in "cb"]
        if held:
            head: list[str | int] = [self.lease, self.tokens, self.nusd, 0, 0]
            await pipe().run(_SETTLE, [check.key for check in held], head + _limits_of(held))


_drifted: set[str] = set()  # keys of budgets that miss a settlement
# What Redis may hold for nobody: it did not answer in time, but executes what it was sent once it thaws.
_orphans: deque[Admission] = deque(maxlen=10_000)
_cleaning: asyncio.Task[None] | None = None


ALL_CHECKS = "rtcb"
AT_ACCEPT = "r"  # of a task: requests a minute; its attempts spend the rest
AT_ATTEMPT = "tcb"


async def admit(caller: Caller, *, tokens: int, nusd: int, end_user: str = "", which: str = ALL_CHECKS) -> Admission:
    """Admit one request that may use `tokens` tokens and cost `nusd` nano-USD, or raise. which: kinds of checks.

    Raises RateLimitExceeded (429), BudgetExceeded (402), LimitsUnknown (503).
    Sets the reply's x-ratelimit-* headers either way.
    """
    checks = checks_for(caller, end_user)
    if which != ALL_CHECKS:
        checks = [check for check in checks if check.kind in which]
    admission = Admission(checks, tokens, nusd, lease=ids.new_hex())
    if not checks:
        return admission
    try:
        for _ in range(40):
            answer = await _ask(admission)
            if answer[0] != b"unknown":
                break
            await _load_budget(checks[answer[1] - 1])
        else:
            raise errors.ServiceUnavailable("The budget is being counted. Try again.")
    except RedisAway:
        _orphans.append(admission)
        return _without_redis(admission)
    _show(checks, answer)
    if answer[0] == b"ok":
        return admission
    raise _refusal(checks[answer[1] - 1], never=answer[0] == b"never", retry_after=answer[2] / 1000)


def recount(owners: Iterable[tuple[UUID, UUID]]) -> None:
    """Have the budgets of (project, key) counted from the ledger again, for rows that no admission settles, once the
    caller's transaction stands."""
    scopes = [(project, pair) for project, key in owners for pair in (("project", project), ("key", key))]
    transaction.on_commit(partial(_forget, {f"{_base(project, *pair)}:b" for project, pair in scopes}))


def _forget(budgets: set[str]) -> None:
    try:
        client().delete(*budgets)
    except RedisError as error:
        log.warning("budgets_not_recounted", error=type(error).__name__)


async def look(caller: Caller) -> None:
    """Set the reply's x-ratelimit-* headers without spending anything."""
    checks = [check for check in checks_for(caller, "") if check.kind in "rt"]
    if checks:
        try:
            _show(checks, await _ask(Admission(checks, 0, 0, lease="")))
        except RedisAway:
            return


def checks_for(caller: Caller, end_user: str) -> list[_Check]:
    """The checks that apply to a request, keys in one hash slot of a Redis cluster."""
    if end_user:
        return _make_checks(caller, end_user)
    made = _checks.get(caller.key_id)
    if made is None or made[0] is not caller:
        if len(_checks) >= MAX_CACHED:
            _checks.clear()
        made = _checks[caller.key_id] = (caller, _make_checks(caller, ""))
    return made[1]


_checks: dict[UUID, tuple[Caller, list[_Check]]] = {}


def _make_checks(caller: Caller, end_user: str) -> list[_Check]:
    checks: list[_Check] = []
    for scope, scope_id, limits in (
        ("key", caller.key_id, caller.key_limits),
        ("project", caller.project_id, caller.project_limits),
    ):
        base = _base(caller.project_id, scope, scope_id)
        for kind, limit in _set_limits(limits):
            checks.append(_Check(kind, f"{base}:{kind}", limit, scope, scope_id))
        if end_user and limits.end_user_requests_per_minute:
            bucket = zlib.crc32(end_user.encode("utf-8", "replace")) % END_USER_BUCKETS
            checks.append(_Check("r", f"{base}:u:{bucket}", limits.end_user_requests_per_minute, "end user", scope_id))
    return checks


def _base(project_id: UUID, scope: str, scope_id: UUID) -> str:
    return f"rd:{{{project_id.hex}}}:{scope}:{scope_id.hex}"


def _set_limits(limits: Limits) -> list[tuple[str, int]]:
    found = {
        "r": limits.requests_per_minute,
        "t": limits.tokens_per_minute,
        "c": limits.concurrency,
        "b": limits.monthly_budget_nusd,
    }
    return [(kind, limit) for kind, limit in found.items() if limit is not None]


def _limits_of(checks: list[_Check]) -> list[str | int]:
    return [part for check in checks for part in (check.kind, check.limit)]


async def _ask(admission: Admission) -> list[Any]:
    global _cleaning
    keys = [check.key for check in admission.checks]
    if _drifted and (forget := _drifted.intersection(keys)):
        await pipe().command("DEL", *forget)
        _drifted.difference_update(forget)
    head: list[str | int] = [admission.lease, LEASE * 1000, admission.tokens, admission.nusd]
    answer: list[Any] = await pipe().run(_ADMIT, keys, head + _limits_of(admission.checks))
    if _orphans and (_cleaning is None or _cleaning.done()):
        _cleaning = asyncio.ensure_future(_give_back_orphans())
    return answer


async def _give_back_orphans() -> None:
    """Free what orphans hold, several times: Redis may execute what it was sent before only after our first try."""
    found = list(_orphans)
    for wait in (0, 0.2, 1, 3):
        await asyncio.sleep(wait)
        try:
            for orphan in found:
                await orphan.give_back()
        except RedisAway:
            return  # they stay orphans for the next time
    for _ in found:
        _orphans.popleft()


async def _load_budget(check: _Check) -> None:
    token = ids.new_hex()
    if not await pipe().run(_LOAD_BUDGET, [check.key], ["begin", token, "", 0]):
        await asyncio.sleep(0.05)
        return
    await asyncio.sleep(LEDGER_LAG)
    assert _spend_source is not None
    month, spent = await in_db(_spend_source, check.scope, check.scope_id)
    await pipe().run(_LOAD_BUDGET, [check.key], ["finish", token, month, spent])
    log.info("budget_rebuilt", scope=check.scope, scope_id=str(check.scope_id), month=month, spent_nusd=spent)


def _without_redis(admission: Admission) -> Admission:
    if any(check.kind == "b" for check in admission.checks):
        raise LimitsUnknown("The budget cannot be checked right now.")
    if not settings.REDRIVE.limits_fail_open:
        raise LimitsUnknown()
    admission.settled = True
    return admission


def _refusal(check: _Check, *, never: bool, retry_after: float) -> errors.RedriveError:
    whose = {"key": "This API key", "project": "This project", "end user": "This end user"}[check.scope]
    if check.kind == "b":
        dollars = check.limit / 1_000_000_000
        return errors.BudgetExceeded(
            f"{whose} has used its budget of {dollars:g} USD for this month (UTC).", should_retry=False
        )
    if never:
        return errors.RateLimitExceeded(
            f"{whose} may use {check.limit} tokens a minute; this request alone may need more. Lower max_tokens or "
            "shorten the input.",
            should_retry=False,
        )
    what = {"r": "requests a minute", "t": "tokens a minute", "c": "requests at a time"}[check.kind]
    details = {"scope": check.scope, "limit": check.limit, "unit": what}
    return errors.RateLimitExceeded(
        f"{whose} may make {check.limit} {what}." if check.kind != "t" else f"{whose} may use {check.limit} {what}.",
        retry_after=retry_after,
        details=details,
    )


def _show(checks: list[_Check], answer: list[Any]) -> None:
    headers = request_context.current().reply_headers
    for kind, unit in (("r", "requests"), ("t", "tokens")):
        tightest: tuple[float, int] | None = None
        for index, check in enumerate(checks):
            if check.kind == kind:
                share = answer[3 + 2 * index] / check.limit
                if tightest is None or share < tightest[0]:
                    tightest = (share, index)
        if tightest is not None:
            index = tightest[1]
            headers[f"x-ratelimit-limit-{unit}"] = str(checks[index].limit)
            headers[f"x-ratelimit-remaining-{unit}"] = str(answer[3 + 2 * index])
            headers[f"x-ratelimit-reset-{unit}"] = _duration(answer[4 + 2 * index])


def _duration(milliseconds: int) -> str:
    """OpenAI's form: `20ms`, `1.5s`, `6m0s`."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = milliseconds / 1000
    return f"{seconds:.3g}s" if seconds < 60 else f"{int(seconds // 60)}m{int(seconds % 60)}s"
