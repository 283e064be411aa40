"""The admin of tasks: the list of them, and the page of one with all that was tried."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.timesince import timesince
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display

from apps.access.audited_admin import Decisions
from apps.access.keyset_admin import OwnedModelAdmin, OwnerFilter
from apps.core import json_codec
from apps.tasks import liveness, operate, queries, search, states
from apps.tasks.admin.filters import AcceptedFilter, KindFilter, QueueFilter
from apps.tasks.admin.links import task_link
from apps.tasks.masking import masked, masked_url
from apps.tasks.models import PREFIX, Task, TaskPayload, TaskResult, shown_id

STATES = {
    "pending": "info", "running": "info", "retrying": "warning", "waiting": "info", "succeeded": "success",
    "dead": "danger", "cancelled": "warning",
}  # fmt: skip


@admin.register(Task)
class TaskAdmin(Decisions, OwnedModelAdmin):
    """Work that was accepted, and what became of it."""

    keyset_field = "pk"
    list_display = ("shown_id", "shown_state", "kind", "queue", "project_name", "age", "attempt", "due")
    list_filter = (
        ("state", ChoicesDropdownFilter),
        KindFilter,
        QueueFilter,
        ("project", OwnerFilter),
        ("created_at", AcceptedFilter),
    )
    search_fields = ("id",)
    search_help_text = "A whole task id, or the request id of a task of the last day"
    list_before_template = "admin/tasks/list_notice.html"
    change_form_outer_after_template = "admin/tasks/work.html"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "shown_id", ("shown_state", "due"), "failure", "dead_letter", "kind",
                    ("queue", "priority"),
                    ("project_name", "key_name"),
                )
            },
        ),
        (
            "Times and tries",
            {
                "fields": (
                    ("created_at", "deadline"), ("started_at", "finished_at"), ("attempt", "cycle"),
                    ("charged_failures", "worker_losses"),
                )
            },
        ),
        ("Origin", {"fields": ("request_id", "end_user", "shown_metadata", "callback", "parent")}),
    )  # fmt: skip
    readonly_fields = (
        "shown_id", "shown_state", "dead_letter", "project_name", "due", "failure", "key_name", "shown_metadata",
        "callback", "parent",
    )  # fmt: skip
    actions_detail = ("reveal", "cancel_task")

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """By a task's id, with or without task_, or by a request's."""
        term = search_term.strip()
        if not term or "\0" in term:
            return (queryset if not term else queryset.none()), False
        try:
            return queryset.filter(pk=UUID(term.removeprefix(PREFIX))), False
        except ValueError:
            return search.of_a_request(queryset, term), False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Says where nobody works on what is listed."""
        works = any(not worker.silent for worker in liveness.workers())
        response: HttpResponse = super().changelist_view(request, {**(extra_context or {}), "nobody_works": not works})
        return response

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        """With what was tried, the children, and the shape of the texts."""
        task = kwargs.get("obj")
        if task is not None:
            payload = TaskPayload.objects.filter(task_id=task.pk).order_by("-revision").first()
            result = TaskResult.objects.filter(pk=task.pk).first()
            context |= {
                "task": task,
                "timeline": search.timeline(task),
                "earlier_attempts": max(task.attempt - search.MOST_ATTEMPTS, 0),
                "children": search.children(task),
                "progress": _object(task.progress),
                "payload": masked(payload.body) if payload else "",
                "revision": payload.revision if payload else 0,
                "result": masked(result.body) if result else "",
                "may_reveal": request.user.has_perm(operate.MAY_REVEAL),
            }
        response: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return response

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Only what is unfinished can be cancelled."""
        found = super().get_actions_detail(request, object_id)
        task = self.get_object(request, object_id)
        if task is not None and task.state in states.UNFINISHED and not task.cancel_requested:
            return found
        return [one for one in found if not one.action_name.endswith("cancel_task")]

    def has_cancel_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May cancel."""
        return request.user.has_perm(operate.MAY_CANCEL)

    def has_reveal_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May look at texts."""
        return request.user.has_perm(operate.MAY_REVEAL)

    @action(description="Cancel", url_path="cancel", permissions=["cancel"], icon="cancel")
    def cancel_task(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Call the task off."""
        task = self._find(request, object_id)

        def act(values: dict[str, Any]) -> None:
            operate.cancel(task.pk, actor=request.user, reason=values["reason"])
            messages.success(request, "The task is cancelled, or ends within a second if it runs.")

        return self.decide(
            request,
            task,
            title="Cancel this task",
            explanation="What waits ends at once, its children too; what runs is told, and ends within a second. What "
            "it has spent stays spent. A cancelled task cannot be brought back.",
            submit="Cancel the task",
            act=act,
            danger=True,
        )

    @action(description="Show the texts", url_path="reveal", permissions=["reveal"], icon="visibility")
    def reveal(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the texts, on POST, and say so in the audit."""
        task = self._find(request, object_id)

        def read(reason: str) -> dict[str, str]:
            texts = operate.reveal(task.pk, actor=request.user, reason=reason)
            return {name.replace("_", " ").capitalize(): text for name, text in texts.items() if text}

        return self.show_texts(
            request,
            task,
            title=f"Texts of {task}",
            explanation="These are the words of a client. That you looked at them is kept in the audit.",
            read=read,
        )

    def _find(self, request: HttpRequest, object_id: str) -> Task:
        task: Task | None = self.get_object(request, unquote(object_id))
        if task is None:
            raise Http404
        if not self.has_view_permission(request, task):
            raise PermissionDenied
        return task

    @display(description="task")
    def shown_id(self, task: Task) -> str:
        """As clients know it."""
        return shown_id(task.pk)

    @display(description="state", label=STATES)
    def shown_state(self, task: Task) -> str:
        """In words."""
        return task.state

    @display(description="age")
    def age(self, task: Task) -> str:
        """Since the accept."""
        accepted = f"{task.created_at:%Y-%m-%d %H:%M:%S} UTC"
        return format_html('<span title="{}">{}</span>', accepted, _age(task.created_at))

    @display(description="due")
    def due(self, task: Task) -> str:
        """When it is tried next."""
        if task.cancel_requested and task.state in states.UNFINISHED:
            return "cancelling"
        if task.state not in states.DUE:
            return ""
        seconds = (task.next_attempt_at - timezone.now()).total_seconds()
        return f"in {_duration(seconds)}" if seconds > 0 else f"for {_duration(-seconds)}"

    @display(description="dead letter")
    def dead_letter(self, task: Task) -> str:
        """With a link, where there is one."""
        found = queries.parts([task])["dead_letter"].get(task.pk)
        if not found:
            return ""
        try:
            url = reverse("admin:dead_letters_deadletter_change", args=[UUID(found["id"].rpartition("_")[2])])
        except NoReverseMatch:  # the app above is not installed
            return str(found["state"])
        return format_html('<a class="text-link" href="{}">{}</a>', url, found["state"])

    @display(description="failure")
    def failure(self, task: Task) -> str:
        """The error of a dead task."""
        found = _object(task.error)
        return f"{found.get('code')}: {found.get('message')}" if found else ""

    @display(description="metadata")
    def shown_metadata(self, task: Task) -> str:
        """Readable."""
        return format_html('<pre class="rd-code">{}</pre>', json_codec.readable(task.metadata)) if task.metadata else ""

    @display(description="callback URL")
    def callback(self, task: Task) -> str:
        """Without what may be secret in it."""
        return masked_url(task.callback_url)

    @display(description="parent")
    def parent(self, task: Task) -> str:
        """With a link."""
        return task_link(task.parent_id) if task.parent_id else ""


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _age(moment: datetime) -> str:
    seconds = (timezone.now() - moment).total_seconds()
    return _duration(max(seconds, 0))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    now = timezone.now()
    return timesince(now - timedelta(seconds=seconds), now, depth=1)
