"""The admin of alert rules and channels: when people are told and how, and whether that arrives."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminPasswordWidget, UnfoldAdminSelectWidget

from apps.access.audited_admin import AuditedModelAdmin
from apps.dead_letters.admin.alerts import SEVERITIES
from apps.dead_letters.alerts import addresses, channels, notification, rules
from apps.dead_letters.models import AlertChannel, AlertRule
from apps.tasks import kinds

URL_HELP = (
    "As Apprise writes it, such as slack://TokenA/TokenB/TokenC/#channel or mailto://user:password@example.com; see "
    "docs/alerts.md. Stored encrypted; never shown again."
)
# Event -> which numbers count for it.
USED = {
    AlertRule.Event.NEW_GROUP: "when its first letter is there; no number but throttle counts",
    AlertRule.Event.REGRESSED: "when it does; no number but throttle counts",
    AlertRule.Event.RATE: "when there are threshold or more within window seconds",
    AlertRule.Event.OLDEST_OPEN: "when the oldest is older than age seconds",
    AlertRule.Event.QUEUE_PAUSED: "when it has been paused for age seconds",
    AlertRule.Event.CLOCK_SILENT: "when it has been so for age seconds",
    AlertRule.Event.WORKERS_SILENT: "when it has been so for age seconds",
    AlertRule.Event.BREAKER_OPEN: "when it opens; no number but throttle counts",
}
USED_WORDS = format_html(
    '<ul class="rd-list">{}</ul>',
    format_html_join("", "<li>{}: {}.</li>", ((event.label, words) for event, words in USED.items())),
)


class RuleForm(forms.ModelForm):  # type: ignore[type-arg]
    """A rule about a kind of the catalogue, or all."""

    class Meta:
        model = AlertRule
        fields = ("name", "event", "severity", "enabled", "kind", "threshold", "window", "age", "throttle", "channels")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "kind" in self.fields:
            names = {*kinds.names(), *filter(None, [self.initial.get("kind")])} - {*kinds.silent()}
            self.fields["kind"] = forms.ChoiceField(
                choices=[("", "Any kind"), *((name, name) for name in sorted(names))],
                required=False,
                widget=UnfoldAdminSelectWidget,
                help_text="Of rules about letters and groups. Our own deliveries and notifications never alert.",
            )
        if "channels" in self.fields:
            chosen: Any = self.fields["channels"]
            self.fields["channels"] = forms.ModelMultipleChoiceField(
                chosen.queryset.order_by("name"),
                required=False,
                widget=UnfoldAdminCheckboxSelectMultipleWidget,
                help_text="None chosen: all that are enabled. A channel's least severity holds in any case.",
            )


@admin.register(AlertRule)
class AlertRuleAdmin(AuditedModelAdmin):
    """When people are told: on change of state, never once per failure."""

    form = RuleForm
    list_display = ("name", "event", "shown_severity", "enabled", "kind", "goes_to")
    list_filter = ("event", "enabled")
    ordering = ("name",)
    fieldsets = (
        (
            None,
            {
                "fields": ("name", "event", ("severity", "enabled"), "kind"),
                "description": "Rules that ship can be changed and disabled, not deleted or renamed.",
            },
        ),
        (
            "When",
            {
                "fields": (("threshold", "window"), ("age", "throttle")),
                "description": USED_WORDS,
            },
        ),
        ("Who is told", {"fields": ("channels",)}),
    )
    actions_detail = ("send_test",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[AlertRule]":
        """With their channels."""
        found: QuerySet[AlertRule] = super().get_queryset(request).prefetch_related("channels")
        return found

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """A rule that ships stays what it is called and what it is about."""
        return ("name", "event") if obj is not None and rules.is_default(obj) else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Not of one that ships: the next migration would bring it back."""
        if obj is not None and rules.is_default(obj):
            return False
        return bool(super().has_delete_permission(request, obj))

    @action(description="Send a test", url_path="send-test", permissions=["change"], icon="send")
    def send_test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """To the channels of the rule, on POST."""
        rule = self.row_or_404(request, object_id)
        reached = [one.name for one in channels.of_rule(rule.pk) if channels.takes(one, rule.severity)]

        def act(values: dict[str, Any]) -> None:
            count = notification.send_test(rule_id=rule.pk, actor=request.user, reason=values["reason"])
            messages.success(request, f"{count} on the way. Each channel's page says what came of it.")

        return self.decide(
            request,
            rule,
            title=f"Send a test of the rule {rule.name}",
            explanation=f"Goes where its alerts would go: {', '.join(reached) or 'nowhere: no channel takes them'}.",
            submit="Send the test",
            act=act,
        )

    @display(description="severity", label=SEVERITIES)
    def shown_severity(self, rule: AlertRule) -> str:
        """In a word."""
        return rule.severity

    @display(description="goes to")
    def goes_to(self, rule: AlertRule) -> str:
        """The channels by name."""
        return ", ".join(sorted(channel.name for channel in rule.channels.all())) or "all channels"


class ChannelForm(forms.ModelForm):  # type: ignore[type-arg]
    """A channel; an empty URL leaves the stored one as it is."""

    new_url = forms.CharField(
        label="URL",
        required=False,
        max_length=addresses.LONGEST,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
    )

    class Meta:
        model = AlertChannel
        fields = ("name", "enabled", "least_severity", "digest")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if field := self.fields.get("new_url"):
            is_stored = self.instance.pk is not None
            field.required = not is_stored
            field.help_text = f"One is stored; leave this empty to keep it. {URL_HELP}" if is_stored else URL_HELP

    def clean_new_url(self) -> str:
        """One that sends over the network. What is wrong is said without what was typed."""
        url: str = self.cleaned_data["new_url"]
        if url and (wrong := addresses.complaint(url)):
            raise ValidationError(f"This URL is wrong, and was not stored. {wrong}")
        return url


@admin.register(AlertChannel)
class AlertChannelAdmin(AuditedModelAdmin):
    """Where alerts are sent."""

    form = ChannelForm
    list_display = ("name", "enabled", "least_severity", "digest", "tried_at", "last_outcome")
    list_before_template = "admin/dead_letters/channels_notice.html"
    ordering = ("name",)
    readonly_fields = ("tried_at", "last_outcome")
    fieldsets = (
        (None, {"fields": ("name", "new_url", ("enabled", "digest"), "least_severity")}),
        ("The last sending", {"fields": (("tried_at", "last_outcome"),)}),
    )
    add_fieldsets = ((None, {"fields": ("name", "new_url", ("enabled", "digest"), "least_severity")}),)
    actions_detail = ("send_test",)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Whoever may only look sees no field for the URL."""
        shown = super().get_fieldsets(request, obj)
        may_write = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        if may_write:
            return shown
        return [
            (title, {**options, "fields": [name for name in options["fields"] if name != "new_url"]})
            for title, options in shown
        ]

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """The channels alone; Django would read, and decrypt, their URLs to list the links to rules."""
        names = [f"Alert channel: {channel}" for channel in objs]
        return names, {"alert channels": len(names)}, set(), []

    def save_model(self, request: HttpRequest, obj: AlertChannel, form: Any, change: bool) -> None:
        """The URL is written only where one was given; what came of the earlier one says nothing of it."""
        if url := form.cleaned_data.get("new_url"):
            obj.url, obj.tried_at, obj.outcome = url, None, ""
        super().save_model(request, obj, form, change)

    @action(description="Send a test", url_path="send-test", permissions=["change"], icon="send")
    def send_test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A message, on POST."""
        channel = self.row_or_404(request, object_id)

        def act(values: dict[str, Any]) -> None:
            notification.send_test(channel_id=channel.pk, actor=request.user, reason=values["reason"])
            messages.success(request, "The test is on its way. Load this page again to see what came of it.")

        return self.decide(
            request,
            channel,
            title=f"Send a test to {channel.name}",
            explanation="Sends one short message, as alerts are sent: by a task of the webhooks' queue. If it fails it "
            "is tried again four times within 40 minutes.",
            submit="Send the test",
            act=act,
        )

    @display(description="outcome")
    def last_outcome(self, channel: AlertChannel) -> str:
        """In words."""
        if channel.tried_at is None:
            return "nothing was sent yet"
        return channel.outcome or "It arrived."
