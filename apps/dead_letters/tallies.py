"""Folds what happened to letters into the counts of their groups, and moves groups that this concerns; by the clock.

Triggers insert a tally for each statement that changes letters. Here they are taken away and added up in the same
transaction, so that each counts once, whoever dies meanwhile; no group's row is locked by what fails.
"""

from django.db import connection, transaction

from apps.access import audit
from apps.dead_letters import group_states
from apps.dead_letters.models import FailureGroup

BATCH = 20_000  # tallies of one fold
HOURS_KEPT = 8 * 24
LOCK_CLASS = 0xF01D
NO_KEY = "00000000-0000-0000-0000-000000000000"

_FOLD = """
WITH taken AS (
  DELETE FROM dead_letters_grouptally WHERE id IN (
    SELECT id FROM dead_letters_grouptally ORDER BY id LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
  RETURNING *),
 hours AS (
  INSERT INTO dead_letters_grouphour (group_id, hour, died)
  SELECT group_id, date_trunc('hour', at), sum(died) FROM taken WHERE died > 0 GROUP BY 1, 2 ORDER BY 1, 2
  ON CONFLICT (group_id, hour) DO UPDATE SET died = dead_letters_grouphour.died + excluded.died),
 keys AS (
  INSERT INTO dead_letters_groupkey (group_id, project_id, api_key_id, died, last_seen)
  SELECT group_id, project_id, coalesce(api_key_id, %(no_key)s::uuid), sum(died), max(at)
  FROM taken WHERE died > 0 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
  ON CONFLICT (group_id, project_id, api_key_id) DO UPDATE SET
    died = dead_letters_groupkey.died + excluded.died,
    last_seen = greatest(dead_letters_groupkey.last_seen, excluded.last_seen)
  RETURNING group_id, api_key_id, xmax = 0 AS fresh),
 sums AS (  -- one after the other, not joined: Postgres, which takes them for few, would compare each with each
  SELECT group_id, sum(died) AS died, sum(opened) AS opened, sum(redriven) AS redriven, sum(succeeded) AS succeeded,
    sum(failed) AS failed, sum(cancelled) AS cancelled, sum(discarded) AS discarded,
    max(at) FILTER (WHERE died > 0) AS last, sum(keys) AS keys
  FROM (
    SELECT group_id, died, opened, redriven, succeeded, failed, cancelled, discarded, at, 0 AS keys FROM taken
    UNION ALL
    SELECT group_id, 0, 0, 0, 0, 0, 0, 0, NULL, (fresh AND api_key_id <> %(no_key)s::uuid)::int FROM keys) new
  GROUP BY group_id)
UPDATE dead_letters_failuregroup g SET
  died_count = g.died_count + s.died, open_count = g.open_count + s.opened,
  redriven_count = g.redriven_count + s.redriven, succeeded_count = g.succeeded_count + s.succeeded,
  failed_count = g.failed_count + s.failed, cancelled_count = g.cancelled_count + s.cancelled,
  discarded_count = g.discarded_count + s.discarded, key_count = g.key_count + s.keys,
  last_seen = CASE WHEN s.last IS NULL THEN g.last_seen WHEN g.died_count = 0 THEN s.last
              ELSE greatest(g.last_seen, s.last) END
FROM sums s
WHERE g.fingerprint = s.group_id
RETURNING g.fingerprint, s.discarded < 0
"""
# What a fold or the time has made of groups: (the state to come to, why, the condition).
_REGRESSED = (group_states.REGRESSED, "it fails again", "g.state = 'resolved' AND g.last_seen > g.state_changed_at")
_AWAKE = (
    group_states.FOR_REVIEW,
    "its snooze is over",
    "g.state = 'snoozed' AND (g.snoozed_until <= now() OR g.died_count >= g.snooze_after)",
)
_SETTLED = (
    group_states.RESOLVED,
    "no letter is open, and all that was redriven has ended",
    "g.state <> 'resolved' AND g.open_count = 0 AND g.died_count > 0 "
    "AND g.redriven_count = g.succeeded_count + g.failed_count + g.cancelled_count",
)
_RESTORED = (
    group_states.OPEN, "letters of it were restored", "g.state = 'resolved' AND g.open_count > 0",
)  # fmt: skip
# A task may be dying while its group is resolved, in a transaction that began before: it is a regression all the same.
_RESOLVED_AT = "greatest(g.last_seen, now() - interval '1 minute')"
_MOVE = """
WITH due AS (
  SELECT fingerprint, state FROM dead_letters_failuregroup g WHERE {condition} {among}
  ORDER BY fingerprint FOR NO KEY UPDATE)
UPDATE dead_letters_failuregroup g SET state = %(target)s, state_changed_at = {moment}, snoozed_until = NULL,
  snooze_after = NULL
FROM due WHERE g.fingerprint = due.fingerprint RETURNING g.fingerprint, due.state
"""


@transaction.atomic
def fold() -> int:
    """Count what is new, and move the groups that it, or the time, concerns; how many groups were counted anew."""
    with connection.cursor() as cursor:
        # One at a time: two would lock the same groups in orders of their own.
        cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [LOCK_CLASS])
        cursor.execute(_FOLD, {"batch": BATCH, "no_key": NO_KEY})
        rows = cursor.fetchall()
    touched, restored = [row[0] for row in rows], [row[0] for row in rows if row[1]]
    if touched:
        _move(*_SETTLED, among=touched)
        _move(*_REGRESSED, among=touched)
    if restored:  # after that: what also fails again has regressed, and people are told
        _move(*_RESTORED, among=restored)
    _move(*_AWAKE)
    return len(touched)


def _move(target: str, why: str, condition: str, among: list[str] | None = None) -> None:
    narrowed = "AND g.fingerprint = ANY(%(among)s)" if among is not None else ""
    with connection.cursor() as cursor:
        moment = _RESOLVED_AT if target == group_states.RESOLVED else "now()"
        statement = _MOVE.format(condition=condition, among=narrowed, moment=moment)
        cursor.execute(statement, {"target": target, "among": among})
        moved = dict(cursor.fetchall())
    groups = list(FailureGroup.objects.filter(pk__in=moved).order_by("pk")) if moved else []
    for was in sorted(set(moved.values())):
        of_it = [group for group in groups if moved[group.pk] == was]
        change = {"before": {"state": was}, "after": {"state": target}}
        audit.record_each(target, of_it, actor=audit.CLOCK, reason=why, **change)
