"""Reads letters and groups for the apps below and the ways in; tells `verify` what must hold."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection
from django.db.models import OuterRef
from django.db.models.functions import Extract, JSONObject
from django.utils import timezone

from apps.access.models import ApiKey, Project
from apps.core.errors import InvalidRequest
from apps.dead_letters import group_states
from apps.dead_letters.errors import LetterNotFound
from apps.dead_letters.models import DeadLetter, GroupHour
from apps.tasks import states as task_states
from apps.tasks.models import Task
from apps.tasks.verify import Invariant

PREFIX = "letter_"
DAY = 24  # hours of a sparkline

ONE_LETTER_OF_EACH_DEATH = Invariant(
    "I5",
    "a task is dead exactly if there is a letter of its cycle that was not redriven",
    """
    SELECT t.id::text FROM tasks_task t LEFT JOIN dead_letters_deadletter l
      ON l.task_id = t.id AND l.cycle = t.cycle AND l.state <> 'redriven'
    WHERE (t.state = 'dead') <> (l.id IS NOT NULL)
    """,
)

REDRIVES_ARE_AUDITED = Invariant(
    "I7",
    "a dead task goes on only by a redrive that the audit knows: each earlier cycle has its letter and an entry",
    """
    SELECT t.id::text FROM tasks_task t CROSS JOIN LATERAL generate_series(1, t.cycle - 1) AS earlier(cycle)
    WHERE t.cycle > 1 AND NOT EXISTS (
      SELECT 1 FROM dead_letters_deadletter l JOIN access_auditentry a
        ON a.object_type = 'dead_letters.deadletter' AND a.object_id = l.id::text AND a.action = 'redrive'
      WHERE l.task_id = t.id AND l.cycle = earlier.cycle AND l.state = 'redriven')
    UNION
    SELECT l.task_id::text FROM dead_letters_deadletter l JOIN tasks_task t ON t.id = l.task_id
    WHERE l.state = 'redriven' AND t.cycle <= l.cycle
    """,
)

COUNTS_ARE_TRUE = Invariant(
    "I13",
    "each letter has its group, whose count of open letters, with what is not folded in yet, is that of the letters",
    """
    SELECT coalesce(l.group_id, g.fingerprint) FROM (
      SELECT group_id, count(*) FILTER (WHERE state = 'open') AS opened
      FROM dead_letters_deadletter GROUP BY group_id) l
    FULL JOIN dead_letters_failuregroup g ON g.fingerprint = l.group_id
    LEFT JOIN (
      SELECT group_id, sum(opened) AS opened FROM dead_letters_grouptally GROUP BY group_id) t
      ON t.group_id = g.fingerprint
    WHERE g.fingerprint IS NULL OR g.open_count + coalesce(t.opened, 0) <> coalesce(l.opened, 0)
    """,
)

ITEMS_ARE_DECIDED_ONCE = Invariant(
    "I14",
    "what a bulk operation released was decided by it, and its counts are those of its items",
    """
    SELECT i.operation_id::text FROM dead_letters_bulkitem i JOIN dead_letters_deadletter l ON l.id = i.letter_id
    JOIN dead_letters_bulkoperation o ON o.id = i.operation_id
    WHERE i.state = 'released' AND o.action = 'redrive'
      AND (l.state <> 'redriven' OR l.operation_id IS DISTINCT FROM o.id)
    UNION
    SELECT o.id::text FROM dead_letters_bulkoperation o JOIN (
      SELECT operation_id, count(*) AS total, count(*) FILTER (WHERE state = 'released') AS released,
        count(*) FILTER (WHERE state = 'skipped') AS skipped
      FROM dead_letters_bulkitem GROUP BY operation_id) i ON i.operation_id = o.id
    WHERE (i.total, i.released, i.skipped) <> (o.total, o.released, o.skipped)
      AND coalesce(o.finished_at, now()) > now() - interval '1 hour'  -- retention deletes items in batches
    """,
)


def shown_id(letter_id: UUID) -> str:
    """`letter_...`, as clients and operators know it."""
    return f"{PREFIX}{letter_id.hex}"


def letter_id(text: str, *, param: str | None = None) -> UUID:
    """The id of `letter_...`, or of a UUID. Raises LetterNotFound, or InvalidRequest naming `param`."""
    try:
        return UUID(text.removeprefix(PREFIX))
    except ValueError:
        pass
    raise InvalidRequest("It is the id of a dead letter: letter_...", param=param) if param else LetterNotFound()


def of_tasks(tasks: Sequence[Task]) -> dict[UUID, Any]:
    """The part `dead_letter` of the tasks' status bodies: {id, state} of the last letter."""
    died = [task.pk for task in tasks if task.state == task_states.DEAD or task.cycle > 1]
    if not died:
        return {}
    rows = DeadLetter.objects.filter(task_id__in=died).order_by("cycle").values_list("task_id", "id", "state")
    return {task_id: {"id": shown_id(found), "state": state} for task_id, found, state in rows}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the dead letters stand. open_letters: also without a clock. since: of the oldest open letter."""

    open_letters: int
    to_review: int
    regressed: int
    new_groups: int
    since: datetime | None
    last_failure: datetime | None


def standing() -> Standing:
    """The header's numbers, from the few rows of the groups, what waits to be folded, and one step in an index."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT (coalesce(sum(open_count), 0) + coalesce(
                (SELECT sum(opened) FROM dead_letters_grouptally), 0))::bigint, count(*) FILTER (WHERE state = ANY(%s)),
              count(*) FILTER (WHERE state = 'regressed'),
              count(*) FILTER (WHERE first_seen > now() - interval '24 hours'),
              (SELECT created_at FROM dead_letters_deadletter WHERE state = 'open' ORDER BY created_at, id LIMIT 1),
              max(last_seen)
            FROM dead_letters_failuregroup
            """,
            [list(group_states.TO_REVIEW)],
        )
        return Standing(*cursor.fetchone())


def sparklines(fingerprints: Collection[str], hours: int = DAY) -> dict[str, list[int]]:
    """Per group its letters of each of the last hours, the oldest first; groups without any are left out."""
    start = _first_hour(hours)
    found: dict[str, list[int]] = {}
    rows = GroupHour.objects.filter(group_id__in=fingerprints, hour__gte=start)
    for group_id, hour, died in rows.values_list("group_id", "hour", "died"):
        place = int((hour - start).total_seconds() // 3600)
        if 0 <= place < hours:
            found.setdefault(group_id, [0] * hours)[place] += died
    return found


def hours() -> ArraySubquery:
    """To annotate groups with their letters of each of the last hours, for `line`: a list costs no query more."""
    rows = GroupHour.objects.filter(group_id=OuterRef("pk"), hour__gte=_first_hour(DAY))
    return ArraySubquery(rows.values_list(JSONObject(hour=Extract("hour", "epoch"), died="died")))


def line(found: Iterable[Mapping[str, Any]]) -> list[int]:
    """A sparkline of what `hours` has found, the oldest first."""
    start = _first_hour(DAY).timestamp()
    drawn = [0] * DAY
    for one in found:
        place = int((one["hour"] - start) // 3600)
        if 0 <= place < DAY:
            drawn[place] += one["died"]
    return drawn


def _first_hour(hours: int) -> datetime:
    return timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours - 1)


@dataclass(frozen=True, slots=True)
class Hurt:
    """An API key, or the tasks of a project without one, that a group has hit. Names are empty where they are gone."""

    project_id: UUID
    project: str
    api_key_id: UUID
    api_key: str
    died: int
    last_seen: datetime


def hurt(fingerprint: str, most: int = 10) -> list[Hurt]:
    """Whom a group hurts, most first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT project_id, api_key_id, died, last_seen FROM dead_letters_groupkey WHERE group_id = %s
            ORDER BY died DESC, api_key_id LIMIT %s
            """,
            [fingerprint, most],
        )
        rows = cursor.fetchall()
    projects = {row.pk: row.name for row in Project.objects.filter(pk__in={row[0] for row in rows})}
    keys = {row.pk: str(row) for row in ApiKey.objects.filter(pk__in={row[1] for row in rows})}
    return [
        Hurt(project, projects.get(project, ""), key, keys.get(key, ""), died, seen)
        for project, key, died, seen in rows
    ]
