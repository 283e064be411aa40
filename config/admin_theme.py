"""Unfold's settings: names, colours, and the sidebar with what each person may see."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy

# Title of a section -> its pages: title, icon, model.
_SECTIONS = {
    "Failures": [
        ("Failure groups", "category", "dead_letters.failuregroup"),
        ("Dead letters", "mark_email_unread", "dead_letters.deadletter"),
        ("Bulk operations", "fact_check", "dead_letters.bulkoperation"),
    ],
    "Tasks": [
        ("Tasks", "task", "tasks.task"),
        ("Queues", "low_priority", "tasks.queuestate"),
        ("Workers", "engineering", "tasks.workerpresence"),
        ("Retry policies", "replay", "tasks.retrypolicy"),
    ],
    "Alerts": [
        ("Alerts", "notifications", "dead_letters.alert"),
        ("Alert rules", "rule", "dead_letters.alertrule"),
        ("Alert channels", "campaign", "dead_letters.alertchannel"),
    ],
    "Webhooks": [
        ("Webhook events", "webhook", "webhooks.webhookevent"),
        ("Deliveries", "outgoing_mail", "webhooks.webhookattempt"),
        ("Webhook secrets", "vpn_key", "webhooks.webhooksecret"),
        ("Disabled URLs", "link_off", "webhooks.disabledurl"),
    ],
    "Chores": [
        ("Periodic chores", "event_repeat", "django_celery_beat.periodictask"),
        ("Intervals", "timer", "django_celery_beat.intervalschedule"),
        ("Crontabs", "calendar_month", "django_celery_beat.crontabschedule"),
        ("Clocked times", "alarm", "django_celery_beat.clockedschedule"),
        ("Results", "fact_check", "django_celery_results.taskresult"),
        ("Group results", "stacks", "django_celery_results.groupresult"),
    ],
    "Ledger": [
        ("Requests", "receipt_long", "completions.ledgerentry"),
        ("Stored texts", "description", "completions.storedbody"),
    ],
    "Access": [
        ("Projects", "folder", "access.project"),
        ("API keys", "key", "access.apikey"),
        ("My API tokens", "badge", "access.operatortoken"),
        ("Audit", "history", "access.auditentry"),
    ],
    "Providers": [
        ("Providers", "dns", "providers.provider"),
        ("Model routes", "alt_route", "providers.modelroute"),
    ],
    "Users": [
        ("Users", "person", "auth.user"),
        ("Groups", "group", "auth.group"),
        ("Refused logins", "lock", "axes.accessattempt"),
        ("Logins", "login", "axes.accesslog"),
    ],
}


_OF_EVERYBODY = {"access.operatortoken"}  # whoever works here has tokens of their own


def _may_view(model: str) -> Callable[[HttpRequest], bool]:
    if model in _OF_EVERYBODY:
        return lambda request: bool(request.user.is_staff)
    app, name = model.split(".")
    return lambda request: request.user.has_perm(f"{app}.view_{name}") or request.user.has_perm(f"{app}.change_{name}")


def _page(title: str, icon: str, model: str) -> dict[str, Any]:
    url = reverse_lazy(f"admin:{model.replace('.', '_')}_changelist")
    return {"title": title, "icon": icon, "link": url, "permission": _may_view(model)}


def unfold_theme() -> dict[str, Any]:
    """The value of UNFOLD."""
    return {
        "SITE_TITLE": "Redrive",
        "SITE_HEADER": "Redrive",
        "SITE_SYMBOL": "alt_route",
        "SITE_URL": None,
        "SITE_FAVICONS": [
            {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("redrive/favicon.svg")}
        ],
        "STYLES": [lambda request: static("redrive/redrive.css")],
        "SCRIPTS": [lambda request: static("redrive/redrive.js")],
        "SHOW_VIEW_ON_SITE": False,
        "SHOW_BACK_BUTTON": True,
        "BORDER_RADIUS": "6px",
        "COLORS": {"primary": _TEAL},
        "SIDEBAR": {
            "show_search": False,
            "navigation": _navigation(),
        },
    }


def _navigation() -> list[dict[str, Any]]:
    home = {"title": "Home", "icon": "monitoring", "link": reverse_lazy("admin:index")}
    sections = [{"title": title, "items": [_page(*page) for page in pages]} for title, pages in _SECTIONS.items()]
    return [{"title": "Operations", "items": [home]}, *sections]


_TEAL = {
    "50": "oklch(98.4% .014 180.72)",
    "100": "oklch(95.3% .051 180.801)",
    "200": "oklch(91% .096 180.426)",
    "300": "oklch(85.5% .138 181.071)",
    "400": "oklch(77.7% .152 181.912)",
    "500": "oklch(70.4% .14 182.503)",
    "600": "oklch(53% .1 184.7)",
    "700": "oklch(47% .09 186.4)",
    "800": "oklch(43.7% .078 188.2)",
    "900": "oklch(38.6% .063 188.4)",
    "950": "oklch(27.7% .046 192.5)",
}
