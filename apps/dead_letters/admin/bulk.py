"""The admin of bulk operations: what each is about, starting it, and watching it go."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from unfold.decorators import action, display

from apps.access.audited_admin import Decisions, posted
from apps.access.keyset_admin import KeysetModelAdmin
from apps.access.models import AuditEntry
from apps.core.errors import Conflict, InvalidRequest
from apps.dead_letters import bulk_states
from apps.dead_letters.admin.forms import PaceForm, StartForm
from apps.dead_letters.bulk import control, plan, report
from apps.dead_letters.models import BulkOperation
from apps.dead_letters.spans import span
from apps.tasks import liveness

LABELS = {
    "counting": "info", "ready": "warning", "holding": "info", "canary": "info", "running": "info",
    "paused": "warning", "stopped": "danger", "done": "success", "cancelled": "warning",
}  # fmt: skip
REFRESHED = (bulk_states.COUNTING, bulk_states.HOLDING, *bulk_states.RELEASING)
VERBS = {"undo": control.undo, "pause": control.pause, "resume": control.resume, "cancel": control.cancel}
PARTS = (("kind", "Kind"), ("model", "Model"), ("key", "API key"), ("age", "Age"))


@admin.register(BulkOperation)
class BulkAdmin(Decisions, KeysetModelAdmin):
    """One decision about many letters."""

    list_display = ("created_at", "shown_state", "title", "created_by", "total", "progress", "outcome")
    list_filter = ("state", "action")
    actions_detail = ("start", "undo", "pause", "resume", "cancel", "pace", "take_back")
    list_before_template = "admin/dead_letters/bulk_list_notice.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """What it is about, how far it is; while it is ready, the form that starts it."""
        operation = self._find(request, object_id)
        return self._show(request, operation, self._form(request, operation, data=None))

    def has_run_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May do something with some operations; with which, the verbs say."""
        return any(request.user.has_perm(permission) for permission in plan.PERMISSIONS.values())

    @action(description="Start", url_path="start", permissions=["run"])
    def start(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let it go after the hold. Its form is on the operation's own page."""
        operation = self._find(request, object_id)
        if request.method != "POST":
            return redirect(self.change_url(operation))
        form = self._form(request, operation, data=posted(request))
        if form is not None and form.is_valid():
            try:
                control.start(operation.pk, actor=request.user, **form.cleaned_data)
                self.log_action(request, operation, "Start")
                return redirect(self.change_url(operation))
            except InvalidRequest as error:
                form.add_error(error.param if error.param in form.fields else None, error.message)
            except Conflict as error:
                messages.error(request, error.message)
                return redirect(self.change_url(operation))
        return self._show(request, operation, form) if form else redirect(self.change_url(operation))

    @action(description="Change the pace", url_path="pace", permissions=["run"])
    def pace(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Faster or slower."""
        operation = self._find(request, object_id)
        form = PaceForm(posted(request))
        if request.method == "POST" and form.is_valid():
            try:
                control.change_pace(operation.pk, actor=request.user, **form.cleaned_data)
                self.log_action(request, operation, "Change the pace")
            except (InvalidRequest, Conflict) as error:
                messages.error(request, error.message)
        elif request.method == "POST":
            (slowest, fastest), (fewest, most) = control.RATES, control.IN_FLIGHT
            rates, unfinished = f"{slowest:g} to {fastest:,.0f} letters a second", f"{fewest:,} to {most:,} unfinished"
            messages.error(request, f"A pace is from {rates}, and {unfinished}.")
        return redirect(self.change_url(operation))

    @action(description="Undo", url_path="undo", permissions=["run"])
    def undo(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Take the start back."""
        return self._act(request, object_id, "undo")

    @action(description="Pause", url_path="pause", permissions=["run"])
    def pause(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Release nothing more for now."""
        return self._act(request, object_id, "pause")

    @action(description="Resume", url_path="resume", permissions=["run"])
    def resume(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go on."""
        return self._act(request, object_id, "resume")

    @action(description="Cancel", url_path="cancel", permissions=["run"])
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End it; what was released goes on."""
        return self._act(request, object_id, "cancel")

    @action(description="Restore what it discarded", url_path="take-back", permissions=["run"])
    def take_back(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Make an operation that restores what this one has discarded."""
        operation = self._find(request, object_id)
        if request.method == "POST" and operation.action == plan.Action.DISCARD:
            try:
                back = plan.create(plan.Action.RESTORE, source=operation.pk, actor=request.user)
                return redirect(self.change_url(back))
            except Conflict as error:
                messages.error(request, error.message)
        return redirect(self.change_url(operation))

    def _act(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        operation = self._find(request, object_id)
        if request.method == "POST":
            try:
                VERBS[name](operation.pk, actor=request.user)
                self.log_action(request, operation, name.capitalize())
            except Conflict as error:
                messages.error(request, error.message)
        return redirect(self.change_url(operation))

    def _find(self, request: HttpRequest, object_id: str) -> BulkOperation:
        operation: BulkOperation | None = self.get_object(request, unquote(object_id))
        if operation is None:
            raise Http404
        if not self.has_view_permission(request, operation):
            raise PermissionDenied
        return operation

    def _form(self, request: HttpRequest, operation: BulkOperation, *, data: Any) -> StartForm | None:
        may = request.user.has_perm(plan.PERMISSIONS[plan.Action(operation.action)])
        if operation.state != bulk_states.READY or not may or not operation.pending:
            return None
        large = operation.pending > control.LARGE[plan.Action(operation.action)]
        initial = {
            "rate": operation.rate,
            "max_in_flight": operation.max_in_flight,
            "canary": control.CANARIES if operation.pending > control.SMALL else 0,
            "stop_percent": operation.stop_percent,
        }
        expected = operation.pending if large else None
        return StartForm(data, action=operation.action, expected=expected, initial=initial)

    def _show(self, request: HttpRequest, operation: BulkOperation, form: StartForm | None) -> HttpResponse:
        found = report.of(operation)
        audit = AuditEntry.objects.filter(object_type=operation._meta.label_lower, object_id=str(operation.pk))
        context = {
            "title": operation.title,
            "operation": operation,
            "report": found,
            "form": form,
            "pace_form": PaceForm(initial={"rate": operation.rate, "max_in_flight": operation.max_in_flight}),
            "left": span(found.seconds_left) if found.seconds_left else "",
            "parts": [(title, operation.breakdown[name]) for name, title in PARTS if operation.breakdown.get(name)],
            "refreshed": operation.state in REFRESHED,
            "may_run": request.user.has_perm(plan.PERMISSIONS[plan.Action(operation.action)]),
            "clock_is_silent": operation.is_active and liveness.is_silent(liveness.chores()),
            "audit": audit.order_by("-at")[:20],
        }
        return self._page(request, operation, "admin/dead_letters/bulk.html", context)

    @display(description="state", label=LABELS)
    def shown_state(self, operation: BulkOperation) -> str:
        """In words."""
        return operation.state

    @display(description="decided")
    def progress(self, operation: BulkOperation) -> str:
        """How many of its letters."""
        return f"{operation.released:,} of {operation.total - operation.skipped:,}"

    @display(description="outcome")
    def outcome(self, operation: BulkOperation) -> str:
        """How the redriven tasks ended."""
        if operation.action != plan.Action.REDRIVE:
            return ""
        parts = (("succeeded", operation.succeeded), ("failed again", operation.failed))
        return ", ".join(f"{count:,} {words}" for words, count in parts if count)
