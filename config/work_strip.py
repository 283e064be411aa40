"""What the operators' home tells of tasks: what is broken, letters, queues, workers, the clock, what runs in bulk."""

from typing import Any

from django.http import HttpRequest

from apps.dead_letters import bulk_states, group_rows, queries
from apps.dead_letters.alerts import queries as alert_queries
from apps.dead_letters.models import BulkOperation
from apps.tasks import liveness, queues

CAP = 1_000  # rows counted of each kind: the home refreshes itself every few seconds
MOST_GROUPS = 8
MOST_OPERATIONS = 5


def context(request: HttpRequest) -> dict[str, Any]:
    """The template's variables; only what this user may see. A few queries whose cost does not grow with the tables."""
    user = request.user
    found: dict[str, Any] = {}
    if user.has_perm("tasks.view_queuestate"):
        found["queues"] = queues.overview(cap=CAP)
    if user.has_perm("tasks.view_workerpresence"):
        found["workers"] = _workers(liveness.workers(), liveness.chores())
    if user.has_perm("dead_letters.view_deadletter"):
        found["letters"] = queries.standing()
    if user.has_perm("dead_letters.view_alert"):
        found["alerts"] = alert_queries.standing()
    if user.has_perm("dead_letters.view_bulkoperation"):
        active = BulkOperation.objects.filter(state__in=bulk_states.ACTIVE).order_by("-created_at", "-id")
        found["operations"] = list(active[:MOST_OPERATIONS])
    return found


def broken(request: HttpRequest) -> dict[str, Any]:
    """The table of what is broken, with what this user may do about it; empty for those who may not see it."""
    if not request.user.has_perm("dead_letters.view_failuregroup"):
        return {}
    rows, total = group_rows.urgent(MOST_GROUPS)
    return {"rows": rows, "matching": total, "shows_groups": True, **group_rows.may(request)}


def _workers(found: list[liveness.Worker], beats: list[liveness.ChoreBeat]) -> dict[str, Any]:
    return {
        "alive": sum(not worker.silent for worker in found),
        "silent": sum(worker.silent for worker in found),
        "stuck": sum(worker.state == "stuck" for worker in found),
        "in_flight": sum(worker.in_flight for worker in found if not worker.silent),
        "slots": sum(worker.slots for worker in found if not worker.silent),
        "unserved": liveness.unserved(found),
        "clock_silent": liveness.is_silent(beats),
        "clock_age": liveness.silent_for(beats),
        "failing": [beat.name for beat in beats if beat.state == "failing"],
    }
