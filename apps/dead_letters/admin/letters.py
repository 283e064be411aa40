"""The admin of dead letters: what failed for good, why, and what to do about it."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display

from apps.access.audited_admin import DecisionForm, Decisions, posted
from apps.access.keyset_admin import DayRangeFilter, OwnedModelAdmin, OwnerFilter, related
from apps.dead_letters import states, triage
from apps.dead_letters.models import DeadLetter
from apps.tasks import search
from apps.tasks.admin.links import task_link
from apps.tasks.models import PREFIX, Task, TaskAttempt

STATES = {"open": "danger", "redriven": "success", "discarded": "info"}


class DiscardForm(DecisionForm):
    """Why."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = True
        self.fields["reason"].help_text = "Kept with the letter and in the audit."


@admin.register(DeadLetter)
class DeadLetterAdmin(Decisions, OwnedModelAdmin):
    """Tasks that failed for good and wait for a person."""

    list_display = ("created_at", "shown_state", "kind", "code", "what", "project_name", "attempts")
    list_filter = (
        ("state", ChoicesDropdownFilter),
        ("project", OwnerFilter),
        ("created_at", DayRangeFilter),
    )
    search_fields = ("task_id__exact",)
    search_help_text = "A whole task id"
    fieldsets = (
        (None, {"fields": ("shown_state", "what", "error", "task", "kind", "queue", "project_name", "key_name")}),
        ("Decision", {"fields": ("created_at", "decided_at", "decided_by", "reason")}),
    )
    readonly_fields = ("shown_state", "what", "error", "task", "project_name", "key_name")
    actions_detail = ("redrive", "discard")
    shown_relations = ("project", "api_key", "group")
    change_form_outer_after_template = "admin/dead_letters/tried.html"

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """By the id of its task, with or without task_."""
        term = search_term.strip()
        try:
            return (queryset.filter(task_id=UUID(term.removeprefix(PREFIX))) if term else queryset), False
        except ValueError:
            return queryset.none(), False

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        """With what was tried."""
        letter = kwargs.get("obj")
        if letter is not None:
            task = Task.objects.filter(pk=letter.task_id).first()
            context |= {
                "timeline": search.timeline(task) if task else [],
                "earlier_attempts": max(task.attempt - search.MOST_ATTEMPTS, 0) if task else 0,
            }
        response: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return response

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """What can be decided, for those who may."""
        letter = self.get_object(request, object_id)
        return super().get_actions_detail(request, object_id) if letter and letter.state == states.OPEN else []

    def has_redrive_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May redrive."""
        return request.user.has_perm(triage.MAY_REDRIVE)

    def has_discard_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May discard and restore."""
        return request.user.has_perm(triage.MAY_DISCARD)

    @action(description="Redrive", url_path="redrive", permissions=["redrive"], icon="replay")
    def redrive(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Put the task back to work."""
        return self._decide(
            request,
            object_id,
            title="Redrive this task",
            explanation="The task goes back to its queue with fresh retries and a fresh deadline; its earlier attempts "
            "stay. Redrive it when what made it fail is mended.",
            submit="Redrive",
            verb=triage.redrive,
            form=DecisionForm(posted(request)),
        )

    @action(description="Discard", url_path="discard", permissions=["discard"], icon="delete")
    def discard(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Decide that it will not run again."""
        return self._decide(
            request,
            object_id,
            title="Discard this task",
            explanation="The task will not run again. Its payload and its attempts stay until retention deletes them.",
            submit="Discard",
            verb=triage.discard,
            form=DiscardForm(posted(request)),
            danger=True,
        )

    def _decide(
        self, request: HttpRequest, object_id: str, *, verb: Any, form: DecisionForm, danger: bool = False, **texts: str
    ) -> HttpResponse:
        letter = self.get_object(request, unquote(object_id))
        if letter is None:
            raise Http404

        def act(values: dict[str, Any]) -> None:
            verb(letter.pk, actor=request.user, reason=values["reason"])
            messages.success(request, f"{texts['submit']}: done.")

        return self.decide(request, letter, act=act, form=form, danger=danger, **texts)

    @display(description="state", label=STATES)
    def shown_state(self, letter: DeadLetter) -> str:
        """In words."""
        return letter.state

    @display(description="what happened")
    def what(self, letter: DeadLetter) -> str:
        """The group's title and words."""
        group = related(letter, "group")
        return format_html("{}<br><span>{}</span>", str(group), group.message[:200]) if group else letter.code

    @display(description="error")
    def error(self, letter: DeadLetter) -> str:
        """The last attempt's own words."""
        last = TaskAttempt.objects.filter(task_id=letter.task_id, cycle=letter.cycle).order_by("-number").first()
        return last.error_message if last else ""

    @display(description="task")
    def task(self, letter: DeadLetter) -> str:
        """With a link."""
        return task_link(letter.task_id)
