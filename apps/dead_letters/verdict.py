"""Says in plain words what a letter, or a group of them, is about: what broke, how often, whether it still does."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection
from django.utils import timezone

from apps.dead_letters.models import DeadLetter, FailureGroup
from apps.dead_letters.spans import ago, span
from apps.tasks.models import TaskAttempt

LOOKED_AT = 5_000  # rows of the ledger, the newest, that tell of an upstream's health

_HEALTH = """
WITH newest AS (
  SELECT provider, upstream_model, outcome, created_at FROM completions_ledgerentry
  ORDER BY created_at DESC LIMIT %(most)s),
 of_it AS (
  SELECT outcome, created_at FROM newest WHERE provider = %(provider)s AND upstream_model = %(model)s
    AND outcome IN ('succeeded', 'failed', 'interrupted')),
 failed AS (SELECT max(created_at) AS at FROM of_it WHERE outcome <> 'succeeded')
SELECT failed.at, min(of_it.created_at) FILTER (WHERE outcome = 'succeeded' AND failed.at IS NULL
    OR outcome = 'succeeded' AND of_it.created_at > failed.at)
FROM failed LEFT JOIN of_it ON true GROUP BY failed.at
"""


@dataclass(frozen=True, slots=True)
class Health:
    """How an upstream does by its newest calls. Both None: nothing is known."""

    last_failure: datetime | None
    healthy_since: datetime | None


def health(upstream: str) -> Health:
    """The health of `provider/model`, from the newest rows of the ledger."""
    provider, _, model = upstream.partition("/")
    with connection.cursor() as cursor:
        cursor.execute(_HEALTH, {"most": LOOKED_AT, "provider": provider, "model": model})
        row = cursor.fetchone()
    return Health(*row) if row else Health(None, None)


def of_letter(letter: DeadLetter, group: FailureGroup | None, attempts: list[TaskAttempt]) -> str:
    """One sentence about a letter. attempts: those of its cycle, first to last."""
    parts = [_tries(letter, attempts)]
    last = attempts[-1] if attempts else None
    if last is not None and last.error_code:
        parts.append(_said(last))
    if group is not None:
        others = max(group.open_count - (letter.state == "open"), 0)
        like_it = f"{others:,} other{'' if others == 1 else 's'}" if others else "no other"
        parts.append(f"{like_it} like it open")
    if last is not None and last.upstream:
        parts.append(_now(health(last.upstream)))
    return f"{'; '.join(filter(None, parts))}."


def of_group(group: FailureGroup) -> str:
    """One sentence about a group."""
    said = f"answered {group.status}" if group.upstream and group.status else f"failed with {group.code}"
    who = group.upstream or group.kind
    count = f"{group.died_count:,} time{'' if group.died_count == 1 else 's'}"
    parts = [f"{who} {said}: {count} since {_moment(group.first_seen)}, last {ago(group.last_seen)}"]
    keys = group.key_count
    if keys:
        parts.append(f"{keys:,} API key{'' if keys == 1 else 's'} hit")
    if group.redriven_count:
        parts.append(f"{group.succeeded_count:,} of {group.redriven_count:,} redriven succeeded")
    if group.upstream:
        parts.append(_now(health(group.upstream)))
    return f"{'; '.join(filter(None, parts))}."


def _tries(letter: DeadLetter, attempts: list[TaskAttempt]) -> str:
    if not attempts:
        return "It died before anything was tried" if not letter.attempts else "It died; its attempts are gone"
    took = attempts[-1].finished_at - attempts[0].started_at
    count = f"{len(attempts)} attempts" if len(attempts) > 1 else "one attempt"
    return f"Died after {count} in {span(took)}"


def _said(attempt: TaskAttempt) -> str:
    if attempt.outcome == TaskAttempt.Outcome.WORKER_LOST:
        return "its worker was lost, so the call may have run twice"
    if attempt.outcome == TaskAttempt.Outcome.TIMED_OUT:
        return "it took longer than it may"
    if attempt.upstream and attempt.error_status:
        return f"upstream said {attempt.error_status}"
    return f"it failed with {attempt.error_code}"


def _now(state: Health) -> str:
    if state.healthy_since is not None:
        return f"this provider has been healthy since {_moment(state.healthy_since)}"
    if state.last_failure is not None:
        return f"this provider last failed {ago(state.last_failure)}, and no call of it has succeeded since"
    return "this provider was not called lately"


def _moment(moment: datetime) -> str:
    same_day = moment.date() == timezone.now().date()
    return f"{moment:%H:%M}" if same_day else f"{moment:%Y-%m-%d %H:%M}"
