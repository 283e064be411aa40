"""The admin of failure groups: which there are, one of them, and what is done with them, one by one or many at once."""

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils import timezone
from unfold.decorators import action

from apps.access.audited_admin import DecisionForm, posted
from apps.access.keyset_admin import Page
from apps.access.models import AuditEntry
from apps.core.errors import Conflict, InvalidRequest, NotFound
from apps.dead_letters import group_rows, group_states, grouping, queries, search, sparkline, states, verdict
from apps.dead_letters.admin.forms import AssignForm, NoteForm, SnoozeForm
from apps.dead_letters.bulk import plan
from apps.dead_letters.models import BulkOperation, DeadLetter, FailureGroup
from apps.tasks.admin.boards import BoardAdmin

MOST_AT_ONCE = 100  # groups that one request moves
SHOWN_LETTERS, SHOWN_OPERATIONS, SHOWN_AUDIT = 20, 10, 20
BULK = {"redrive": plan.Action.REDRIVE, "discard": plan.Action.DISCARD}


@admin.register(FailureGroup)
class GroupAdmin(BoardAdmin):
    """Failures with one cause, and what became of them."""

    board_template = "admin/dead_letters/groups.html"
    actions_detail = ("assign", "snooze", "resolve", "reopen", "note", "hold", "release")

    def get_urls(self) -> list[Any]:
        """With the address that acts on many groups at once."""
        own = path("act/", self.admin_site.admin_view(self.act), name="dead_letters_failuregroup_act")
        return [own, *super().get_urls()]

    def board(self, request: HttpRequest) -> dict[str, Any]:
        """The list, its tabs and its search."""
        tab, query = request.GET.get("tab", "review"), request.GET.get("q", "")
        tab = tab if tab in group_rows.TABS else "review"
        try:
            page = self._list_page(request, tab, query)
            tabs = group_rows.tabs(tab, query)
        except InvalidRequest as error:
            messages.error(request, error.message)
            return {"rows": [], "tabs": group_rows.tabs(tab, ""), "tab": tab, "q": query, "help": search.HELP}
        return {
            "rows": group_rows.rows_of(page.rows),
            "older": page.older,
            "newer": page.newer,
            "tabs": tabs,
            "matching": next(one["count"] for one in tabs if one["is_chosen"]),
            "tab": tab,
            "q": query,
            "help": search.HELP,
            **group_rows.may(request),
        }

    def _list_page(self, request: HttpRequest, tab: str, query: str) -> Page:
        try:
            return group_rows.page(tab, query, request.GET)
        except IncorrectLookupParameters:
            messages.error(request, "There is no such page. This is the first.")
            return group_rows.page(tab, query, {})

    def act(self, request: HttpRequest) -> HttpResponse:
        """POST: one decision about the chosen groups, or (`all`) about all that a tab and a search show."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        back = _back(request)
        try:
            chosen = _chosen(request)
            if not chosen:
                raise InvalidRequest("Choose a group first.")
            what = request.POST.get("act", "")
            if what in BULK:
                operation = plan.create(BULK[what], groups=chosen, actor=request.user)
                return redirect(reverse("admin:dead_letters_bulkoperation_change", args=[operation.pk]))
            if what not in ("resolve", "reopen"):
                raise InvalidRequest("There is no such action.")
            if len(chosen) > MOST_AT_ONCE:  # each is locked, moved and audited by itself
                raise InvalidRequest(f"At most {MOST_AT_ONCE} groups at once: narrow them by a search.")
            verb = grouping.resolve if what == "resolve" else grouping.reopen
            moved = sum(_moves(verb, name, request) for name in chosen)
            messages.success(request, f"{moved} of {len(chosen)} {'resolved' if what == 'resolve' else 'open now'}.")
        except (InvalidRequest, Conflict, NotFound) as error:
            messages.error(request, error.message)
        return redirect(back)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """One group: its verdict, whom it hurts, its open letters, what was done."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        group = self._group(object_id)
        context = {
            "title": str(group),
            **self.page(group),
            **group_rows.may(request),
        }
        return self._page(request, group, "admin/dead_letters/group.html", context)

    def page(self, group: FailureGroup) -> dict[str, Any]:
        """What its page shows."""
        letters = DeadLetter.objects.filter(group=group, state=states.OPEN).order_by("-id")
        audit = AuditEntry.objects.filter(object_type=group._meta.label_lower, object_id=group.pk).order_by("-at")
        operations = BulkOperation.objects.filter(groups__contains=[group.pk]).order_by("-created_at", "-id")
        hours = queries.sparklines([group.pk], 7 * queries.DAY).get(group.pk, [0] * 7 * queries.DAY)
        return {
            "group": group,
            "row": group_rows.rows_of([group])[0],
            "verdict": verdict.of_group(group),
            "week": sparkline.draw(hours, look="rd-spark rd-spark-wide"),
            "hurt": queries.hurt(group.pk),
            "letters": letters.prefetch_related("project")[:SHOWN_LETTERS],
            "operations": operations[:SHOWN_OPERATIONS],
            "audit": audit[:SHOWN_AUDIT],
            "moves": group_states.TRANSITIONS[group.state],
        }

    def has_change_group_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May assign, snooze, resolve, reopen, note."""
        return request.user.has_perm(grouping.MAY_CHANGE)

    def has_hold_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May hold and release."""
        return request.user.has_perm(grouping.MAY_HOLD)

    @action(description="Assign", url_path="assign", permissions=["change_group"])
    def assign(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Give it to somebody."""
        group = self._group(object_id)
        staff = get_user_model()._default_manager.filter(is_staff=True, is_active=True)
        people = list(staff.order_by("username").values_list("username", flat=True)[:500])
        now = {"owner": group.owner.get_username() if group.owner else request.user.get_username()}
        return self._decide(
            request, group, "assign", title="Assign this group",
            explanation="Others see who works on it. A group that waits for review is open then.", submit="Assign",
            form=AssignForm(posted(request), people=people, initial=now),
        )  # fmt: skip

    @action(description="Snooze", url_path="snooze", permissions=["change_group"])
    def snooze(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Not to see it for a while."""
        return self._decide(
            request, self._group(object_id), "snooze", title="Snooze this group",
            explanation="It is not for review until its time is over, or until it has failed so many times more. Its "
            "letters stay open.", submit="Snooze", form=SnoozeForm(posted(request), initial={"hours": 24}),
        )  # fmt: skip

    @action(description="Resolve", url_path="resolve", permissions=["change_group"])
    def resolve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Be done with it."""
        group = self._group(object_id)
        left = f" Its {group.open_count:,} open letters stay open." if group.open_count else ""
        return self._decide(
            request, group, "resolve", title="Resolve this group",
            explanation=f"It is done with. If it fails again it is shown as regressed.{left}", submit="Resolve",
        )  # fmt: skip

    @action(description="Reopen", url_path="reopen", permissions=["change_group"])
    def reopen(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Work on it."""
        return self._decide(
            request, self._group(object_id), "reopen", title="Work on this group",
            explanation="It was looked at, and is being worked on.", submit="Mark as open",
        )  # fmt: skip

    @action(description="Note", url_path="note", permissions=["change_group"])
    def note(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Tell others something."""
        group = self._group(object_id)
        return self._decide(
            request, group, "note", title="Note", explanation="What others should know about these failures.",
            submit="Save", form=NoteForm(posted(request), initial={"text": group.note}),
        )  # fmt: skip

    @action(description="Hold retries", url_path="hold", permissions=["hold"])
    def hold(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """No more automatic retries."""
        return self._decide(
            request, self._group(object_id), "hold", title="Hold the retries of this group",
            explanation="A task that fails like this is not tried again by itself: it dies at once, with a letter. Use "
            "it where retries cost money and cannot help.", submit="Hold", danger=True,
        )  # fmt: skip

    @action(description="Release", url_path="release", permissions=["hold"])
    def release(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Retries again."""
        return self._decide(
            request, self._group(object_id), "release", title="Release the retries of this group",
            explanation="Tasks that fail like this are tried again, as the policy of their kind says.",
            submit="Release",
        )  # fmt: skip

    def _decide(
        self, request: HttpRequest, group: FailureGroup, name: str, *, form: DecisionForm | None = None, **texts: Any
    ) -> HttpResponse:
        def act(values: dict[str, Any]) -> None:
            if (hours := values.pop("hours", None)) is not None:
                values["until"] = timezone.now() + timedelta(hours=hours)
            getattr(grouping, name)(group.pk, actor=request.user, **values)
            messages.success(request, f"{texts['submit']}: done.")

        return self.decide(request, group, act=act, form=form, **texts)

    def _group(self, object_id: str) -> FailureGroup:
        name = unquote(object_id)
        group = group_rows.shown(FailureGroup.objects.filter(pk=name)).first() if "\0" not in name else None
        if group is None:
            raise Http404
        return group


def _chosen(request: HttpRequest) -> list[str]:
    """The fingerprints that were chosen: by their boxes, or all that the filter finds. Raises InvalidRequest."""
    if not request.POST.get("all"):
        return request.POST.getlist("group")[: plan.MOST_GROUPS]
    tab = request.POST.get("tab", "review")
    rows = group_rows.matching(
        tab if tab in (*group_rows.TABS, group_rows.URGENT) else "review", request.POST.get("q", "")
    )
    if request.POST.get("act") in BULK:
        rows = rows.filter(open_count__gt=0)
    found = list(rows.order_by("pk").values_list("pk", flat=True)[: plan.MOST_GROUPS + 1])
    if len(found) > plan.MOST_GROUPS:
        raise InvalidRequest(f"These are more than {plan.MOST_GROUPS:,} groups: narrow them, or search among letters.")
    return found


def _moves(verb: Any, name: str, request: HttpRequest) -> bool:
    try:
        verb(name, actor=request.user)
    except (Conflict, NotFound):
        return False
    return True


def _back(request: HttpRequest) -> str:
    if request.POST.get("back") == "home":
        return reverse("admin:index")
    name = request.POST.get("group", "")
    if request.POST.get("back") == "group" and name.isalnum():  # as fingerprints are; of others there may be no address
        return reverse("admin:dead_letters_failuregroup_change", args=[name])
    return reverse("admin:dead_letters_failuregroup_changelist")
