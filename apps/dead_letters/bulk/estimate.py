"""What a counted operation is about, in numbers: by kind, key, age, group and model, and what it may cost.

Kinds, keys, ages and groups are counted. Models and costs are in the payloads: of a large operation a sample of them is
read, so these two are estimates.
"""

import json
from collections import Counter
from typing import Any

from django.db import connection

from apps.access.models import ApiKey
from apps.dead_letters.models import BulkOperation, FailureGroup
from apps.providers import pricing, routing
from apps.providers.contract import RouteConfig, Usage
from apps.tasks import kinds

SAMPLE = 500  # payloads that are read
SHOWN = 10  # rows of each part
UNKNOWN_OUTPUT = 1024  # tokens of an answer where nothing is known, as admission reserves
AGES = ("less than 1 h", "1 h to 1 day", "1 to 7 days", "more than 7 days")
Json = dict[str, Any]

# OFFSET 0: from the items to their letters, one by one. Of items that were frozen a moment ago Postgres knows nothing,
# and might compare each with each.
_COUNTS = """
SELECT grouping(l.kind), grouping(l.api_key_id), grouping(i.group_id), l.kind, l.api_key_id, i.group_id,
  width_bucket(extract(epoch FROM now() - l.created_at), ARRAY[3600, 86400, 604800]), count(*)
FROM dead_letters_bulkitem i CROSS JOIN LATERAL (
  SELECT kind, api_key_id, created_at FROM dead_letters_deadletter WHERE id = i.letter_id OFFSET 0) l
WHERE i.operation_id = %s AND i.state = 'pending'
GROUP BY GROUPING SETS ((l.kind), (l.api_key_id), (i.group_id), (7))
"""
_SAMPLE = """
SELECT t.kind, t.schema_version, p.body FROM (
  SELECT task_id, row_number() OVER (ORDER BY letter_id) AS place FROM dead_letters_bulkitem
  WHERE operation_id = %s AND state = 'pending') i
JOIN tasks_task t ON t.id = i.task_id
JOIN LATERAL (
  SELECT body FROM tasks_taskpayload p WHERE p.task_id = t.id ORDER BY revision DESC LIMIT 1) p ON true
WHERE i.place %% %s = 0 LIMIT %s
"""
_OUTPUTS = """
SELECT model, avg(output_tokens)::float8 FROM (
  SELECT model, output_tokens FROM completions_ledgerentry
  WHERE created_at > now() - interval '7 days' AND outcome = 'succeeded' ORDER BY created_at DESC LIMIT 5000) e
GROUP BY model
"""


def of(operation: BulkOperation) -> tuple[Json, int | None]:
    """(the breakdown as the page shows it, nano-USD of a redrive or None)."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS, [operation.pk])
        rows = cursor.fetchall()
    by_kind = Counter({row[3]: row[7] for row in rows if not row[0]})
    by_key = Counter({row[4]: row[7] for row in rows if not row[1]})
    by_group = Counter({row[5]: row[7] for row in rows if not row[2]})
    by_age = {AGES[row[6]]: row[7] for row in rows if row[0] and row[1] and row[2]}
    keys = {row.pk: str(row) for row in ApiKey.objects.filter(pk__in=[key for key, _ in by_key.most_common(SHOWN)])}
    groups = {
        row.pk: str(row) for row in FailureGroup.objects.filter(pk__in=[one for one, _ in by_group.most_common(SHOWN)])
    }
    breakdown: Json = {
        "kind": _top(by_kind),
        "key": [[keys.get(key, str(key)) if key else "no API key", count] for key, count in by_key.most_common(SHOWN)],
        "group": [[one, groups.get(one, one[:12]), count] for one, count in by_group.most_common(SHOWN)],
        "groups": len(by_group),
        "age": [[name, by_age[name]] for name in AGES if name in by_age],
    }
    if operation.action != BulkOperation.Action.REDRIVE or not operation.pending:
        return breakdown, None
    models, cost, read = _models(operation)
    scale = operation.pending / read if read else 0.0
    breakdown["model"] = [[name, round(count * scale)] for name, count in models.most_common(SHOWN)]
    breakdown["sampled"] = read < operation.pending
    return breakdown, round(cost * scale)


def _models(operation: BulkOperation) -> tuple["Counter[str]", float, int]:
    """How many of the sample are of each model, what they may cost in nano-USD, and how many were read."""
    step = max(1, operation.pending // SAMPLE)
    routes = routing.load()
    with connection.cursor() as cursor:
        cursor.execute(_OUTPUTS)
        outputs: dict[str, float] = dict(cursor.fetchall())
        cursor.execute(_SAMPLE, [operation.pk, step, 2 * SAMPLE])
        rows = cursor.fetchall()
    models: Counter[str] = Counter()
    cost = 0.0
    for name, version, body in rows:
        call = _call(name, version, body)
        models[call.model if call else f"no model ({name})"] += 1
        if call is not None:
            output = outputs.get(call.model, UNKNOWN_OUTPUT if call.operation.startswith("chat") else 0)
            cost += _price(routes.get(call.model)).cost(Usage(call.input_tokens, output_tokens=round(output)))
    return models, cost, len(rows)


def _call(name: str, version: int, body: str) -> kinds.Call | None:
    try:
        kind = kinds.find(name)
        if kind.call is None:
            return None
        return kind.call(kind.args.model_validate(kinds.upcast(kind, version, json.loads(body))))
    except Exception:  # of whatever is stored, an upcaster or a kind; its attempt will say so
        return None


def _price(route: RouteConfig | None) -> pricing.Price:
    upstream = min(route.upstreams, key=lambda one: one.position, default=None) if route else None
    return pricing.price(route, upstream.model) if route and upstream else pricing.UNKNOWN


def _top(counts: "Counter[str]") -> list[list[Any]]:
    return [[name, count] for name, count in counts.most_common(SHOWN)]
