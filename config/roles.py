"""The roles that are shipped, as Django groups: what each may see and do. Accounts get one or several of them.

They are written after each migration: what a role lacks is added, what an administrator has added stays. To take
something away from a role make a group of your own.
"""

from typing import Any, Final

from django.contrib.auth.models import Group, Permission

_SEEN: Final = (
    "access.view_apikey", "access.view_auditentry", "access.view_project", "completions.view_ledgerentry",
    "dead_letters.view_alert", "dead_letters.view_alertchannel", "dead_letters.view_alertrule",
    "dead_letters.view_bulkoperation", "dead_letters.view_deadletter", "dead_letters.view_failuregroup",
    "django_celery_beat.view_periodictask", "django_celery_results.view_taskresult", "providers.view_modelroute",
    "providers.view_provider", "tasks.view_clockbeat", "tasks.view_queuestate", "tasks.view_retrypolicy",
    "tasks.view_task", "tasks.view_workerpresence", "webhooks.view_disabledurl", "webhooks.view_webhookattempt",
    "webhooks.view_webhookevent",
)  # fmt: skip
_TRIAGE: Final = ("dead_letters.redrive_deadletter", "dead_letters.change_failuregroup")
_OPERATE: Final = (
    "dead_letters.acknowledge_alert", "dead_letters.discard_bulkoperation", "dead_letters.discard_deadletter",
    "dead_letters.hold_failuregroup", "dead_letters.redrive_bulkoperation", "providers.reset_breaker",
    "tasks.cancel_task", "tasks.pause_queue",
)  # fmt: skip
_ADMINISTER: Final = tuple(
    f"{app}.{action}_{model}"
    for app, model in (
        ("access", "apikey"), ("access", "limit"), ("access", "project"), ("dead_letters", "alertchannel"),
        ("dead_letters", "alertrule"), ("providers", "modelroute"), ("providers", "provider"),
        ("providers", "upstream"), ("tasks", "retrypolicy"), ("webhooks", "webhooksecret"), ("webhooks", "disabledurl"),
        ("django_celery_beat", "periodictask"),
    )
    for action in ("view", "add", "change", "delete")
)  # fmt: skip

VIEWER, TRIAGER, OPERATOR = "Viewer", "Triager", "Operator"
PAYLOAD_VIEWER, PAYLOAD_EDITOR, ADMINISTRATOR = "Payload viewer", "Payload editor", "Administrator"

ROLES: Final[dict[str, tuple[str, ...]]] = {
    VIEWER: _SEEN,
    TRIAGER: (*_SEEN, *_TRIAGE),
    OPERATOR: (*_SEEN, *_TRIAGE, *_OPERATE),
    PAYLOAD_VIEWER: (*_SEEN, "tasks.reveal_payload"),
    PAYLOAD_EDITOR: (*_SEEN, "tasks.reveal_payload", "tasks.edit_payload"),
    ADMINISTRATOR: tuple(dict.fromkeys((*_SEEN, *_TRIAGE, *_OPERATE, *_ADMINISTER))),
}
"""Per role its permissions. The texts of clients are apart: who shall see them has a payload role as well."""


def write(using: str = "default", **_: Any) -> None:
    """Receiver of post_migrate: make the roles that are missing, and give each what it lacks."""
    wanted = {name for permissions in ROLES.values() for name in permissions}
    rows = Permission.objects.using(using).select_related("content_type")
    apps = {name.partition(".")[0] for name in wanted}
    found = rows.filter(content_type__app_label__in=apps)
    known = {f"{row.content_type.app_label}.{row.codename}": row.pk for row in found}
    Group.objects.using(using).bulk_create([Group(name=name) for name in ROLES], ignore_conflicts=True)
    groups = dict(Group.objects.using(using).filter(name__in=ROLES).values_list("name", "pk"))
    through = Group.permissions.through
    through._default_manager.using(using).bulk_create(
        [
            through(group_id=groups[role], permission_id=known[name])
            for role, permissions in ROLES.items()
            for name in permissions
            if name in known
        ],
        ignore_conflicts=True,
    )
