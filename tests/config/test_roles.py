"""Every role may do just what it is for: each action by each role, over the pages of the admin."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from apps.dead_letters import tallies, triage
from apps.dead_letters.bulk import pacer, plan
from apps.dead_letters.models import Alert, BulkOperation, DeadLetter, FailureGroup
from apps.providers.models import Upstream
from apps.tasks import holds
from apps.tasks.models import QueueState, Task
from config import roles
from config.roles import ADMINISTRATOR, OPERATOR, PAYLOAD_EDITOR, PAYLOAD_VIEWER, TRIAGER, VIEWER
from tests.conftest import MakeKey, MakeRoute
from tests.dead_letters.conftest import MakeLetter, make_kind, make_letter, make_task

pytestmark = pytest.mark.django_db
__all__ = ["make_kind", "make_letter", "make_task"]
AsRole = Callable[[str], Client]
TRIAGE, OPERATE, ADMINISTER = {TRIAGER, OPERATOR, ADMINISTRATOR}, {OPERATOR, ADMINISTRATOR}, {ADMINISTRATOR}
REVEAL, EDIT = {PAYLOAD_VIEWER, PAYLOAD_EDITOR}, {PAYLOAD_EDITOR}
ALL = set(roles.ROLES)

# (the address, how its row is called below, what is posted) -> who may.
ACTIONS: dict[tuple[str, str, tuple[tuple[str, str], ...]], set[str]] = {
    ("dead_letters_deadletter_redrive", "letter", ()): TRIAGE,
    ("dead_letters_deadletter_discard", "letter", (("reason", "r"), ("code", "other"))): OPERATE,
    ("dead_letters_deadletter_restore", "discarded", ()): OPERATE,
    ("dead_letters_deadletter_edit", "letter", ()): EDIT,
    ("dead_letters_failuregroup_assign", "group", (("owner", ""),)): TRIAGE,
    ("dead_letters_failuregroup_note", "group", (("text", "t"),)): TRIAGE,
    ("dead_letters_failuregroup_snooze", "group", (("hours", "2"),)): TRIAGE,
    ("dead_letters_failuregroup_resolve", "group", ()): TRIAGE,
    ("dead_letters_failuregroup_reopen", "group", ()): TRIAGE,
    ("dead_letters_failuregroup_hold", "group", ()): OPERATE,
    ("dead_letters_failuregroup_release", "held", ()): OPERATE,
    ("dead_letters_failuregroup_act", "", (("act", "redrive"), ("all", "1"), ("tab", "all"))): OPERATE,
    ("dead_letters_failuregroup_act", "", (("act", "discard"), ("all", "1"), ("tab", "all"))): OPERATE,
    ("dead_letters_failuregroup_act", "", (("act", "resolve"), ("all", "1"), ("tab", "all"))): TRIAGE,
    ("dead_letters_deadletter_act", "", (("act", "redrive"), ("q", "state:open"))): OPERATE,
    ("dead_letters_bulkoperation_start", "operation", (("rate", "1"), ("max_in_flight", "1"), ("canary", "0"),
                                                       ("stop_percent", "20"))): OPERATE,
    ("dead_letters_bulkoperation_cancel", "operation", ()): OPERATE,
    ("dead_letters_bulkoperation_pace", "operation", (("rate", "1"), ("max_in_flight", "1"))): OPERATE,
    ("dead_letters_alert_acknowledge", "alert", ()): OPERATE,
    ("tasks_queuestate_pause", "queue", (("reason", "r"),)): OPERATE,
    ("tasks_task_cancel_task", "pending", ()): OPERATE,
    ("tasks_task_reveal", "task", ()): REVEAL,
    ("providers_provider_reset_breaker", "provider", (("model", "m"),)): OPERATE,
    ("providers_provider_add", "", ()): ADMINISTER,
    ("providers_modelroute_add", "", ()): ADMINISTER,
    ("access_apikey_add", "", ()): ADMINISTER,
    ("access_project_add", "", ()): ADMINISTER,
    ("tasks_retrypolicy_add", "", ()): ADMINISTER,
    ("dead_letters_alertrule_add", "", ()): ADMINISTER,
    ("dead_letters_alertchannel_add", "", ()): ADMINISTER,
    ("auth_user_add", "", ()): set(),
    ("auth_group_add", "", ()): set(),
}  # fmt: skip
PAGES = (
    "dead_letters_failuregroup", "dead_letters_deadletter", "dead_letters_bulkoperation", "dead_letters_alert",
    "tasks_task", "tasks_queuestate", "tasks_workerpresence", "access_auditentry", "providers_provider",
    "completions_ledgerentry",
)  # fmt: skip


@pytest.fixture
def as_role(client: Client, django_user_model: Any) -> AsRole:
    roles.write()  # transactional tests elsewhere may have flushed what the migrations wrote

    def log_in(role: str) -> Client:
        person = django_user_model.objects.create_user(role, is_staff=True)
        person.groups.add(Group.objects.get(name=role))
        client.force_login(person)
        return client

    return log_in


@pytest.fixture
def rows(make_letter: MakeLetter, make_key: MakeKey, make_route: MakeRoute) -> dict[str, Any]:
    """One row for each name above."""
    letter, discarded = make_letter(), make_letter()
    triage.discard(discarded.pk, reason="r")
    tallies.fold()
    operation = plan.create("redrive", groups=[letter.group_id])
    pacer.tick()
    holds.hold(discarded.group_id)
    dead = Task.objects.get(pk=letter.task_id)
    pending = Task.objects.create(
        project_id=dead.project_id, kind=dead.kind, priority="low", queue="low", next_attempt_at=dead.next_attempt_at
    )
    return {
        "letter": letter,
        "discarded": discarded,
        "group": FailureGroup.objects.get(pk=letter.group_id),
        "held": FailureGroup.objects.get(pk=discarded.group_id),
        "operation": BulkOperation.objects.get(pk=operation.pk),
        "alert": Alert.objects.create(event="rate", severity="critical", subject="k", title="t"),
        "queue": QueueState(name="low"),
        "task": dead,
        "pending": pending,
        "provider": Upstream.objects.select_related("provider").get(route__public_name=make_route()).provider,
    }


@pytest.mark.parametrize("role", roles.ROLES)
def test_a_role_may_do_what_it_is_for_and_nothing_else(as_role: AsRole, rows: dict[str, Any], role: str) -> None:
    client = as_role(role)
    wrong = []
    for (name, row, posted), allowed in ACTIONS.items():
        url = reverse(f"admin:{name}", args=[rows[row].pk] if row else [])
        # An add form is only opened: what it saves is for its own tests.
        response = client.get(url) if name.endswith("_add") else client.post(url, dict(posted))
        may = response.status_code != 403
        if may != (role in allowed):
            wrong.append(f"{name}: {response.status_code}")
    assert wrong == []


@pytest.mark.parametrize("role", roles.ROLES)
def test_a_role_sees_every_page_of_the_operators_and_is_offered_what_it_may(
    as_role: AsRole, rows: dict[str, Any], role: str
) -> None:
    client = as_role(role)
    for page in PAGES:
        assert client.get(reverse(f"admin:{page}_changelist")).status_code == 200, page
    html = client.get(reverse("admin:dead_letters_deadletter_change", args=[rows["letter"].pk])).content.decode()
    for action, allowed in (("redrive", TRIAGE), ("discard", OPERATE), ("edit", EDIT)):
        url = reverse(f"admin:dead_letters_deadletter_{action}", args=[rows["letter"].pk])
        assert (f'href="{url}"' in html) == (role in allowed), action
    home = client.get(reverse("admin:index")).content.decode()
    assert ('value="redrive"' in home) == (role in OPERATE)
    assert ('value="resolve"' in home) == (role in TRIAGE)


def test_who_has_no_role_sees_nothing(client: Client, rows: dict[str, Any], django_user_model: Any) -> None:
    client.force_login(django_user_model.objects.create_user("nobody", is_staff=True))
    for page in PAGES:
        assert client.get(reverse(f"admin:{page}_changelist")).status_code == 403, page
    for (name, row, posted), _ in ACTIONS.items():
        url = reverse(f"admin:{name}", args=[rows[row].pk] if row else [])
        assert client.post(url, dict(posted)).status_code == 403, name
    assert DeadLetter.objects.get(pk=rows["letter"].pk).state == "open"


@pytest.mark.django_db(transaction=True)
def test_a_migration_gives_a_role_what_it_lacks_and_takes_nothing_away(db: None) -> None:
    roles.write()
    viewer = Group.objects.get(name=VIEWER)
    own = viewer.permissions.first()
    assert own is not None
    viewer.permissions.remove(own)
    extra = Group.objects.get(name=ADMINISTRATOR).permissions.get(codename="add_provider")
    viewer.permissions.add(extra)
    call_command("migrate", verbosity=0)
    assert {own, extra} <= set(viewer.permissions.all())
    held = {f"{one.content_type.app_label}.{one.codename}" for one in viewer.permissions.select_related("content_type")}
    assert held == {*roles.ROLES[VIEWER], "providers.add_provider"}
