"""The admin of alerts: what fires, and that somebody knows of it."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.text import Truncator
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display

from apps.access.audited_admin import Decisions
from apps.access.keyset_admin import DayRangeFilter, KeysetModelAdmin
from apps.dead_letters.alerts import acknowledging, queries
from apps.dead_letters.models import Alert, AlertRule

STATES = {"firing": "danger", "acknowledged": "warning", "ended": "success"}
SEVERITIES = {"critical": "danger", "warning": "warning", "info": "info"}
Event = AlertRule.Event


@admin.register(Alert)
class AlertAdmin(Decisions, KeysetModelAdmin):
    """What the rules have found, from when it began to when it ended."""

    keyset_field = "opened_at"
    list_display = ("opened_at", "shown_state", "shown_severity", "shown_title", "event", "lasted")
    list_filter = (
        ("state", ChoicesDropdownFilter),
        ("severity", ChoicesDropdownFilter),
        ("event", ChoicesDropdownFilter),
        ("opened_at", DayRangeFilter),
    )
    list_before_template = "admin/dead_letters/alerts_notice.html"
    fieldsets = (
        (None, {"fields": ("title", "body", ("shown_state", "shown_severity"), "event", "about", "shown_rule")}),
        (
            "Times",
            {"fields": (("opened_at", "ended_at"), "sent", ("acknowledged_at", "acknowledged_by"))},
        ),
    )
    readonly_fields = ("shown_state", "shown_severity", "about", "shown_rule", "sent")
    actions_detail = ("acknowledge",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Alert]":
        """With their rules."""
        found: QuerySet[Alert] = super().get_queryset(request).select_related("rule")
        return found

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """With where alerts stand."""
        context = {"standing": queries.standing(), **(extra_context or {})}
        response: HttpResponse = super().changelist_view(request, context)
        return response

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Only what fires can be acknowledged."""
        alert = self.get_object(request, object_id)
        fires = alert is not None and alert.state == Alert.State.FIRING
        return super().get_actions_detail(request, object_id) if fires else []

    def has_acknowledge_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May acknowledge."""
        return request.user.has_perm(acknowledging.MAY_ACKNOWLEDGE)

    @action(description="Acknowledge", url_path="acknowledge", permissions=["acknowledge"], icon="done_all")
    def acknowledge(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Say that somebody knows."""
        alert = self.get_object(request, unquote(object_id))
        if alert is None:
            raise Http404

        def act(values: dict[str, Any]) -> None:
            acknowledging.acknowledge(alert.pk, actor=request.user, reason=values["reason"])
            messages.success(request, "Acknowledged: others see that you know.")

        return self.decide(
            request,
            alert,
            title="Acknowledge this alert",
            explanation=f"{alert.title}. Others see that you know of it. It ends by itself once it is over; if it "
            "comes again, that is another alert.",
            submit="Acknowledge",
            act=act,
        )

    @display(description="state", label=STATES)
    def shown_state(self, alert: Alert) -> str:
        """In a word."""
        return alert.state

    @display(description="severity", label=SEVERITIES)
    def shown_severity(self, alert: Alert) -> str:
        """In a word."""
        return alert.severity

    @display(description="what")
    def shown_title(self, alert: Alert) -> str:
        """With the first words of its body."""
        words = Truncator(alert.body).chars(120)
        return format_html('<span>{}<br><span class="rd-quiet">{}</span></span>', alert.title, words)

    @display(description="ended", empty_value="still so")
    def lasted(self, alert: Alert) -> Any:
        """When it ended."""
        return alert.ended_at

    @display(description="about")
    def about(self, alert: Alert) -> str:
        """With a link."""
        url = _url(alert)
        return format_html('<a class="text-link" href="{}">{}</a>', url, alert.subject) if url else alert.subject

    @display(description="rule")
    def shown_rule(self, alert: Alert) -> str:
        """With a link."""
        if alert.rule is None:
            return "deleted meanwhile"
        url = reverse("admin:dead_letters_alertrule_change", args=[alert.rule_id])
        return format_html('<a class="text-link" href="{}">{}</a>', url, alert.rule.name)

    @display(description="sent")
    def sent(self, alert: Alert) -> str:
        """When, or why not."""
        if alert.sent_at is not None:
            return f"{alert.sent_at:%Y-%m-%d %H:%M:%S} UTC"
        return "Held back: the same was sent a short while before."


def _url(alert: Alert) -> str:
    """The page of what it is about; empty where there is none."""
    page, query, args = "admin:dead_letters_deadletter_changelist", {}, []
    if alert.event in (Event.NEW_GROUP, Event.REGRESSED):
        page, args = "admin:dead_letters_failuregroup_change", [alert.subject]
    elif alert.event == Event.RATE:
        query = {"q": f"kind:{alert.subject} state:open"}
    elif alert.event == Event.OLDEST_OPEN:
        query = {"q": "state:open"}
    elif alert.event == Event.QUEUE_PAUSED:
        page = "admin:tasks_queuestate_changelist"
    elif alert.event == Event.BREAKER_OPEN:
        page, args = "admin:providers_provider_change", [alert.subject.partition("/")[0]]
    else:
        page = "admin:tasks_workerpresence_changelist"
    try:
        return reverse(page, args=args) + (f"?{urlencode(query)}" if query else "")
    except NoReverseMatch:
        return ""
