"""The schedules of Celery's beat and the results of its chores in the product's look, audited like everything else.

Chores are not critical: what the product promises hangs on the clock (`manage.py clock`) and on tasks.
"""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.http import HttpRequest, HttpResponse
from django_celery_beat.admin import CrontabScheduleAdmin as BeatCrontabScheduleAdmin
from django_celery_beat.admin import PeriodicTaskAdmin as BeatPeriodicTaskAdmin
from django_celery_beat.admin import PeriodicTaskForm
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from django_celery_results.models import GroupResult, TaskResult
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget

from apps.access import audit
from apps.access.audited_admin import AuditedModelAdmin, ReadOnlyModelAdmin
from apps.core.errors import Conflict
from config import celery

STATES = {"SUCCESS": "success", "FAILURE": "danger", "RETRY": "warning", "STARTED": "info", "PENDING": "info"}


class ChoreForm(PeriodicTaskForm):
    """The task is chosen among those there are: any other name would be sent and refused by the worker."""

    regtask = None
    task = forms.ChoiceField(widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "task" in self.fields:
            known = {*celery.registered(), *filter(None, [self.initial.get("task")])}
            self.fields["task"].choices = [(name, name) for name in sorted(known)]

    def clean(self) -> Any:
        """Beat's own, which takes a task for granted."""
        self.cleaned_data.setdefault("task", "")
        return super().clean()


class PeriodicTaskAdmin(BeatPeriodicTaskAdmin, AuditedModelAdmin):
    """What beat sends, and when."""

    form = ChoreForm
    actions = None
    date_hierarchy = None
    change_form_template = None  # beat's holds a script within the page
    list_display = ("name", "enabled", "task", "schedule", "last_run_at", "total_run_count")
    list_filter = ("enabled", "one_off")
    search_fields = ("name", "task")
    search_help_text = "Search by name or task"
    ordering = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "task", "enabled", "description")}),
        (
            "Schedule (exactly one of the first four)",
            {"fields": ("interval", "crontab", "solar", "clocked", "start_time", "one_off", "last_run_at")},
        ),
        ("Arguments", {"fields": ("args", "kwargs")}),
        ("Message", {"fields": ("expires", "expire_seconds", "queue", "priority")}),
    )
    readonly_fields = ("last_run_at",)
    actions_detail = ("run_now",)

    @display(description="schedule")
    def schedule(self, row: PeriodicTask) -> str:
        """In words."""
        return str(row.scheduler)

    def has_run_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Whoever may change when it runs."""
        return request.user.has_perm("django_celery_beat.change_periodictask")

    @action(description="Run now", url_path="run", permissions=["run"], icon="play_arrow")
    def run_now(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Send its message once, now."""
        row = self.row_or_404(request, unquote(object_id))

        def act(values: dict[str, Any]) -> None:
            audit.record("run", row, actor=request.user, reason=values["reason"])
            _send(row)
            messages.success(request, f"{row.name}: sent. Its result appears among the results.")

        return self.decide(
            request,
            row,
            title=f"Run {row.name} now",
            explanation=f"A message for {row.task} goes to the workers once, whatever its schedule says and even if it "
            "is not enabled. One that is running already may then run twice at the same time.",
            submit="Run now",
            act=act,
        )


class PeriodicTaskInline(TabularInline):
    """The chores of a schedule, to look at."""

    model = PeriodicTask
    fields = readonly_fields = ("name", "task", "enabled")
    extra = max_num = 0
    can_delete = False
    show_change_link = True
    verbose_name_plural = "chores with this schedule"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Chores are added on their own page."""
        return False


class ScheduleAdmin(AuditedModelAdmin):
    """A schedule that chores share."""

    inlines = (PeriodicTaskInline,)


class CrontabScheduleAdmin(ScheduleAdmin):
    """With its meaning in words."""

    list_display = ("__str__", "human_readable")
    fields = BeatCrontabScheduleAdmin.fields
    readonly_fields = ("human_readable",)


class _NewestResultsFirst(ReadOnlyModelAdmin):
    ordering = ("-date_done",)
    show_full_result_count = False


class TaskResultAdmin(_NewestResultsFirst):
    """How chores ended; kept for an hour, then deleted by the chore celery.backend_cleanup."""

    list_display = ("date_done", "periodic_task_name", "task_name", "shown_status", "worker")
    list_filter = ("status",)
    search_fields = ("task_id__exact",)
    search_help_text = "A whole id"
    fieldsets = (
        (None, {"fields": ("task_id", "task_name", "periodic_task_name", "shown_status", "worker")}),
        ("Times", {"fields": ("date_created", "date_started", "date_done")}),
        ("Message", {"fields": ("task_args", "task_kwargs")}),
        ("Outcome", {"fields": ("result", "traceback")}),
    )
    readonly_fields = ("shown_status",)

    @display(description="status", label=STATES)
    def shown_status(self, row: TaskResult) -> str:
        """As Celery has it."""
        return str(row.status)


class GroupResultAdmin(_NewestResultsFirst):
    """How groups of chores ended."""

    list_display = ("date_done", "group_id")
    fields = ("group_id", "date_created", "date_done", "result")


def register() -> None:
    """Put ours in place of theirs; after all apps have registered."""
    ours: dict[Any, Any] = {
        PeriodicTask: PeriodicTaskAdmin,
        IntervalSchedule: ScheduleAdmin,
        CrontabSchedule: CrontabScheduleAdmin,
        SolarSchedule: ScheduleAdmin,
        ClockedSchedule: ScheduleAdmin,
        TaskResult: TaskResultAdmin,
        GroupResult: GroupResultAdmin,
    }
    for model, model_admin in ours.items():
        if admin.site.is_registered(model):
            admin.site.unregister(model)
        admin.site.register(model, model_admin)


def _send(row: PeriodicTask) -> None:
    if row.task not in celery.registered():
        raise Conflict(f"No worker knows the task {row.task}.")
    try:
        celery.send(row.task, json.loads(row.args), json.loads(row.kwargs), queue=row.queue or "", chore=row.name)
    except Exception as error:  # whatever the broker's library raises
        raise Conflict(f"It was not sent: the broker does not answer ({type(error).__name__}).") from error
