"""What the pages of projects and of keys share: limits and states in words, the limits' form."""

from typing import Any

from django import forms
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.admin import StackedInline
from unfold.decorators import display

from apps.access.models import ApiKey, Limit

LIMIT_FIELDS = (
    "requests_per_minute",
    "tokens_per_minute",
    "concurrency",
    "monthly_budget_usd",
    "end_user_requests_per_minute",
)
LIMIT_ROWS = (
    ("requests_per_minute", "tokens_per_minute"),
    ("concurrency", "monthly_budget_usd"),
    "end_user_requests_per_minute",
)
LIMIT_LABELS = {
    "monthly_budget_usd": "Monthly budget (USD)",
    "end_user_requests_per_minute": "Requests per minute of one end user",
}
STATES = {"active": "success", "rotating": "info", "expired": "warning", "disabled": "danger"}


def state(key: ApiKey) -> str:
    """active, rotating (the previous secret still works), expired or disabled."""
    now = timezone.now()
    if key.disabled_at is not None:
        return "disabled"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "rotating" if key.previous_expires_at is not None and key.previous_expires_at > now else "active"


class KeyColumns:
    """A key's columns, the same in the list of keys and on its project's page."""

    @display(description="key")
    def shown_prefix(self, key: ApiKey) -> str:
        """Its first characters."""
        return f"{key.prefix}…"

    @display(description="status", label=STATES)
    def status(self, key: ApiKey) -> str:
        """See `state`."""
        return state(key)


def limits_in_words(limit: Limit | None) -> str:
    """`100 requests/min, 5 at once, $20 a month`."""
    if limit is None:
        return "none"
    parts = [
        f"{limit.requests_per_minute:,} requests/min" if limit.requests_per_minute else "",
        f"{limit.tokens_per_minute:,} tokens/min" if limit.tokens_per_minute else "",
        f"{limit.concurrency:,} at once" if limit.concurrency else "",
        f"${limit.monthly_budget_usd:,.2f} a month" if limit.monthly_budget_usd is not None else "",
        f"{limit.end_user_requests_per_minute:,}/min for each end user" if limit.end_user_requests_per_minute else "",
    ]
    return ", ".join(filter(None, parts)) or "none"


def ledger_link(**filters: Any) -> str:
    """A link to the ledger's rows of one project or key."""
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    url = reverse("admin:completions_ledgerentry_changelist")
    return format_html('<a class="text-link" href="{}?{}">Requests in the ledger</a>', url, query)


class LimitForm(forms.ModelForm):  # type: ignore[type-arg]
    """The limits, with labels for people."""

    class Meta:
        model = Limit
        fields = LIMIT_FIELDS
        labels = LIMIT_LABELS


class LimitInline(StackedInline):
    """The limits of a project or of a key; an empty field is no limit."""

    model = Limit
    form = LimitForm
    fields = LIMIT_ROWS
    max_num = 1
    verbose_name_plural = "limits"
