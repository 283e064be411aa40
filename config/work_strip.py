"""The strip of the operators' home that tells of tasks: queues, workers, the clock, open dead letters."""

from typing import Any

from django.http import HttpRequest

from apps.dead_letters import queries as letters
from apps.tasks import liveness, queues

CAP = 1_000  # rows counted of each kind: the home refreshes itself every few seconds


def context(request: HttpRequest) -> dict[str, Any]:
    """The template's variables; only what this user may see. Four queries, whose cost does not grow with the tables."""
    user = request.user
    found: dict[str, Any] = {}
    if user.has_perm("tasks.view_queuestate"):
        found["queues"] = queues.overview(cap=CAP)
    if user.has_perm("tasks.view_workerpresence"):
        found["workers"] = _workers(liveness.workers(), liveness.chores())
    if user.has_perm("dead_letters.view_deadletter"):
        stands = letters.standing()
        found["letters"] = {
            "count": f"{stands.open_letters:,}", "any": bool(stands.open_letters), "since": stands.since
        }  # fmt: skip
    return found


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
