"""The admin of dead letters: what failed for good, why, and what to do about it."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.text import Truncator
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display

from apps.access.audited_admin import DecisionForm, Decisions, posted
from apps.access.keyset_admin import DayRangeFilter, OwnedModelAdmin, OwnerFilter
from apps.access.models import Project
from apps.core.database import related
from apps.core.errors import Conflict, InvalidRequest, NotFound
from apps.dead_letters import search, states, triage
from apps.dead_letters.admin import letter_page
from apps.dead_letters.admin.forms import DiscardForm, EditForm
from apps.dead_letters.bulk import plan
from apps.dead_letters.models import DeadLetter
from apps.tasks.admin.filters import KindFilter, QueueFilter

STATES = {"open": "danger", "redriven": "success", "discarded": "info"}


@admin.register(DeadLetter)
class DeadLetterAdmin(Decisions, OwnedModelAdmin):
    """Tasks that failed for good and wait for a person."""

    list_display = ("created_at", "shown_state", "what", "project_name", "attempts", "shown_outcome")
    list_filter = (
        ("state", ChoicesDropdownFilter),
        KindFilter,
        QueueFilter,
        ("project", OwnerFilter),
        ("created_at", DayRangeFilter),
    )
    search_fields = ("task_id__exact",)
    search_help_text = search.HELP
    list_before_template = "admin/dead_letters/letters_notice.html"
    actions_detail = ("redrive", "edit", "discard", "restore", "review")
    shown_relations = ("project", "api_key", "group")

    def get_urls(self) -> list[Any]:
        """With the address that makes an operation of all that a search finds."""
        own = path("act/", self.admin_site.admin_view(self.act), name="dead_letters_deadletter_act")
        return [own, *super().get_urls()]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """In the words of `search`; what it does not understand finds nothing, and the page says why."""
        try:
            return search.letters(search.parse(search_term), among=queryset), False
        except InvalidRequest as error:
            messages.error(request, error.message)
            return queryset.none(), False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Offers operations on all that a search finds to those who may."""
        more = {
            "may_redrive_many": request.user.has_perm(plan.PERMISSIONS[plan.Action.REDRIVE]),
            "may_discard_many": request.user.has_perm(plan.PERMISSIONS[plan.Action.DISCARD]),
            "query": _shown_query(request),
        }
        response: HttpResponse = super().changelist_view(request, {**(extra_context or {}), **more})
        return response

    def act(self, request: HttpRequest) -> HttpResponse:
        """POST: an operation on all letters that a search finds."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        what, query = request.POST.get("act", ""), request.POST.get("q", "")
        try:
            all_of_it = f"state:{plan.SOURCE_STATE[plan.Action(what)]}" if what in plan.Action.values else ""
            operation = plan.create(what, query=query or all_of_it, actor=request.user)
        except (InvalidRequest, Conflict, NotFound) as error:
            messages.error(request, error.message)
            return redirect(reverse("admin:dead_letters_deadletter_changelist"))
        return redirect(reverse("admin:dead_letters_bulkoperation_change", args=[operation.pk]))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """One letter."""
        letter = self._letter(request, object_id)
        context = {"title": str(letter), **letter_page.context(request, letter)}
        return self._page(request, letter, "admin/dead_letters/letter.html", context)

    def has_redrive_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May redrive."""
        return request.user.has_perm(triage.MAY_REDRIVE)

    def has_discard_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May discard and restore."""
        return request.user.has_perm(triage.MAY_DISCARD)

    def has_edit_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May edit payloads."""
        return request.user.has_perm(triage.MAY_EDIT)

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
            explanation="The task will not run again. Until retention deletes it, it can be restored.",
            submit="Discard",
            verb=triage.discard,
            form=DiscardForm(posted(request)),
            danger=True,
        )

    @action(description="Restore", url_path="restore", permissions=["discard"], icon="undo")
    def restore(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Open a discarded letter again."""
        return self._decide(
            request,
            object_id,
            title="Restore this letter",
            explanation="The letter is open again, as it was before it was discarded.",
            submit="Restore",
            verb=triage.restore,
            form=DecisionForm(posted(request)),
        )

    @action(description="Mark as reviewed", url_path="review", permissions=["redrive"])
    def review(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """POST: note that somebody has looked; `manage.py dead_letters review` then leaves it out."""
        letter = self._letter(request, object_id)
        if request.method == "POST" and triage.review([letter.pk], actor=request.user):
            messages.success(request, "Marked as reviewed.")
        return redirect(self.change_url(letter))

    @action(description="Edit and redrive", url_path="edit", permissions=["edit"], icon="edit")
    def edit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Change the payload, then put the task back to work. To open the editor is a POST: the audit keeps it."""
        letter = self._letter(request, object_id)
        if request.method != "POST":
            text = "These are the words of a client. That you looked at them is kept in the audit."
            context: dict[str, Any] = {"title": "Edit and redrive", "explanation": text, "opens": True}
            return self._page(request, letter, "admin/dead_letters/edit.html", context)
        difference = None
        try:
            if "payload" not in request.POST:
                draft = triage.draft(letter.pk, actor=request.user)
                form: EditForm = EditForm(initial={"payload": draft.text, "revision": draft.revision})
            else:
                form = EditForm(posted(request))
                if "preview" in request.POST:
                    difference = self._difference(request, letter, form)
                elif form.is_valid() and self._edited(request, letter, form):
                    return redirect(self.change_url(letter))
        except (Conflict, NotFound) as error:
            messages.error(request, error.message)
            return redirect(self.change_url(letter))
        context = {"title": "Edit and redrive", "form": form, "opens": False, "difference": difference}
        response = self._page(request, letter, "admin/dead_letters/edit.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def _difference(self, request: HttpRequest, letter: DeadLetter, form: EditForm) -> str | None:
        """What the draft would change; a reason is not needed to look."""
        form.fields["reason"].required = False
        if not form.is_valid():
            return None
        try:
            return triage.preview(letter.pk, text=form.cleaned_data["payload"], actor=request.user)
        except InvalidRequest as error:
            form.add_error("payload", error.message)
            return None

    def _edited(self, request: HttpRequest, letter: DeadLetter, form: EditForm) -> bool:
        values = form.cleaned_data
        try:
            with transaction.atomic():
                triage.edit_and_redrive(
                    letter.pk, text=values["payload"], revision=values["revision"], reason=values["reason"],
                    actor=request.user,
                )  # fmt: skip
                self.log_action(request, letter, "Edit and redrive")
        except InvalidRequest as error:
            form.add_error("reason" if error.param == "reason" else "payload", error.message)
            return False
        messages.success(request, "Edited and redriven: the task runs with the new payload.")
        return True

    def _decide(
        self, request: HttpRequest, object_id: str, *, verb: Any, form: DecisionForm, danger: bool = False, **texts: str
    ) -> HttpResponse:
        letter = self._letter(request, object_id)

        def act(values: dict[str, Any]) -> None:
            verb(letter.pk, actor=request.user, **values)
            messages.success(request, f"{texts['submit']}: done.")

        return self.decide(request, letter, act=act, form=form, danger=danger, **texts)

    def _letter(self, request: HttpRequest, object_id: str) -> DeadLetter:
        letter: DeadLetter | None = self.get_object(request, unquote(object_id))
        if letter is None:
            raise Http404
        if not self.has_view_permission(request, letter):
            raise PermissionDenied
        return letter

    @display(description="state", label=STATES)
    def shown_state(self, letter: DeadLetter) -> str:
        """In words."""
        return letter.state

    @display(description="what happened")
    def what(self, letter: DeadLetter) -> str:
        """The group's title and words."""
        group = related(letter, "group")
        if group is None:
            return f"{letter.code} · {letter.kind}"
        words = Truncator(group.message).chars(200)
        return format_html('<span>{}<br><span class="rd-quiet">{}</span></span>', str(group), words)

    @display(description="then")
    def shown_outcome(self, letter: DeadLetter) -> str:
        """How the redriven task ended."""
        return letter.outcome or ("under way" if letter.state == states.REDRIVEN else "")


def _shown_query(request: HttpRequest) -> str | None:
    """What the list shows, filters included, as a search; None where days narrow it, for which a search has no word."""
    asked = request.GET
    if any(asked.get(f"created_at_{end}") for end in ("from", "to")):
        return None
    terms = {"kind": asked.get("kind"), "queue": asked.get("queue"), "state": asked.get("state__exact")}
    if project := asked.get("project__id__exact"):
        terms["project"] = _project_name(project)
    words = (f"{name}:{search.quoted(value)}" for name, value in terms.items() if value)
    return " ".join(filter(None, (asked.get("q", "").strip(), *words)))


def _project_name(project_id: str) -> str:
    try:
        return Project.objects.filter(pk=UUID(project_id)).values_list("name", flat=True).first() or project_id
    except ValueError:
        return project_id
