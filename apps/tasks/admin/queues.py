"""The page of the queues: how deep, how late, how fast; and pausing them."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.decorators import action
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.access.audited_admin import DecisionForm, posted
from apps.tasks import liveness, queues, states
from apps.tasks.admin.boards import BoardAdmin
from apps.tasks.models import QueueState


class PauseForm(DecisionForm):
    """Why, and until when."""

    resume_at = forms.DateTimeField(
        label="Resumes by itself at",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"}),
        help_text="UTC. Empty: when somebody resumes it.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.order_fields(["reason", "resume_at"])
        self.fields["reason"].required = True
        self.fields["reason"].help_text = "Shown beside the queue and kept in the audit."


@admin.register(QueueState)
class QueueAdmin(BoardAdmin):
    """All queues, whether they have a row or not."""

    board_template = "admin/tasks/queues.html"
    actions_detail = ("pause", "resume")

    def board(self, request: HttpRequest) -> dict[str, Any]:
        """The queues, and whether anybody works on them."""
        return {
            "queues": queues.overview(),
            "unserved": liveness.unserved(liveness.workers()),
            "may_pause": request.user.has_perm(queues.MAY_PAUSE),
        }

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """A queue has no page of its own."""
        return redirect(reverse("admin:tasks_queuestate_changelist"))

    def change_url(self, row: models.Model) -> str:
        """The board."""
        return reverse("admin:tasks_queuestate_changelist")

    def has_pause_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May pause and resume."""
        return request.user.has_perm(queues.MAY_PAUSE)

    @action(description="Pause", url_path="pause", permissions=["pause"])
    def pause(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let no worker take from it."""
        name = _queue(object_id)

        def act(values: dict[str, Any]) -> None:
            queues.pause(name, reason=values["reason"], resume_at=values["resume_at"], actor=request.user)
            messages.success(request, f"The queue {name} is paused.")

        return self.decide(
            request,
            QueueState(name=name),
            title=f"Pause the queue {name}",
            explanation="No worker takes from it until it is resumed. What runs goes on to its end, and new tasks are "
            "accepted and wait; a task whose deadline passes meanwhile is dead.",
            submit="Pause",
            act=act,
            form=PauseForm(posted(request)),
            danger=True,
        )

    @action(description="Resume", url_path="resume", permissions=["pause"])
    def resume(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let workers take from it again."""
        name = _queue(object_id)

        def act(values: dict[str, Any]) -> None:
            queues.resume(name, reason=values["reason"], actor=request.user)
            messages.success(request, f"The queue {name} is resumed.")

        return self.decide(
            request,
            QueueState(name=name),
            title=f"Resume the queue {name}",
            explanation="Workers take from it at once, the oldest due task first.",
            submit="Resume",
            act=act,
        )


def _queue(object_id: str) -> str:
    name = unquote(object_id)
    if name not in states.QUEUES:
        raise Http404
    return str(name)
