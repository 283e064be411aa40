"""The page of the workers and of the clock: who is there, what they do, who has fallen silent."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from unfold.decorators import display

from apps.tasks import liveness, states
from apps.tasks.admin.boards import BoardAdmin
from apps.tasks.admin.links import task_link
from apps.tasks.models import Task, WorkerPresence

MOST_TASKS = 50


@admin.register(WorkerPresence)
class WorkerAdmin(BoardAdmin):
    """Workers that have given a sign of life; those that leave take their row with them."""

    board_template = "admin/tasks/workers.html"
    fields = ("host", "pid", "queues", "slots", "in_flight", "started_at", "beat_at", "expires_at", "current_tasks")
    readonly_fields = ("current_tasks",)

    def board(self, request: HttpRequest) -> dict[str, Any]:
        """Workers, and the chores of the clock."""
        found, beats = liveness.workers(), liveness.chores()
        return {
            "workers": found,
            "chores": beats,
            "clock_age": liveness.silent_for(beats),
            "clock_is_silent": liveness.is_silent(beats),
            "unserved": liveness.unserved(found),
        }

    @display(description="current tasks")
    def current_tasks(self, worker: WorkerPresence) -> str:
        """The first of them, with links."""
        rows = Task.objects.filter(worker=worker.pk, state=states.RUNNING).order_by("attempt_started_at")
        found = list(rows.values_list("pk", flat=True)[: MOST_TASKS + 1])
        links = format_html_join(" ", "{}", ((task_link(task_id),) for task_id in found[:MOST_TASKS]))
        more = "and more" if len(found) > MOST_TASKS else ""
        return format_html("{} {}", links, more) if found else "none"
