"""Every role may do over REST just what it may do in the admin: each verb by each role, with a token."""

from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from apps.access import operator_tokens
from apps.access.models import AuditEntry
from apps.dead_letters import queries
from apps.tasks.models import shown_id
from config import roles
from tests.config.test_roles import (
    ADMINISTER,
    ALL,
    EDIT,
    OPERATE,
    REVEAL,
    TRIAGE,
    make_kind,
    make_letter,
    make_task,
    rows,
)
from tests.conftest import MakeKey, MakeRoute

__all__ = ["MakeKey", "MakeRoute", "make_kind", "make_letter", "make_task", "rows"]
pytestmark = pytest.mark.django_db

# (the address, with the row's name in braces; the body) -> who may.
VERBS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("letters/{letter}/review/", {}, TRIAGE),
    ("letters/{letter}/draft/", {}, EDIT),
    ("letters/{letter}/edit/", {"payload": "{}", "revision": 1, "reason": "r"}, EDIT),
    ("letters/{letter}/redrive/", {}, TRIAGE),
    ("letters/{letter}/discard/", {"reason": "r", "code": "other"}, OPERATE),
    ("letters/{discarded}/restore/", {}, OPERATE),
    ("groups/{group}/assign/", {"owner": ""}, TRIAGE),
    ("groups/{group}/note/", {"text": "t"}, TRIAGE),
    ("groups/{group}/snooze/", {"more": 3}, TRIAGE),
    ("groups/{group}/resolve/", {}, TRIAGE),
    ("groups/{group}/reopen/", {}, TRIAGE),
    ("groups/{group}/hold/", {}, OPERATE),
    ("groups/{held}/release/", {}, OPERATE),
    ("bulk/", {"action": "redrive", "q": "code:none"}, OPERATE),
    ("bulk/", {"action": "discard", "q": "code:none"}, OPERATE),
    ("bulk/", {"action": "restore", "q": "code:none"}, OPERATE),
    ("bulk/{operation}/start/", {}, OPERATE),
    ("bulk/{operation}/undo/", {}, OPERATE),
    ("bulk/{operation}/pause/", {}, OPERATE),
    ("bulk/{operation}/resume/", {}, OPERATE),
    ("bulk/{operation}/pace/", {"rate": 3}, OPERATE),
    ("bulk/{operation}/cancel/", {}, OPERATE),
    ("alerts/{alert}/acknowledge/", {}, OPERATE),
    ("queues/low/pause/", {"reason": "r"}, OPERATE),
    ("queues/low/resume/", {}, OPERATE),
    ("tasks/{pending}/cancel/", {}, OPERATE),
    ("tasks/{task}/reveal/", {}, REVEAL),
    ("breakers/{provider}/reset/", {"model": "m"}, OPERATE),
]
LISTS = ("groups", "letters", "bulk", "alerts", "audit", "tasks", "queues", "workers", "clock", "breakers", "ledger")


def addressed(path: str, found: dict[str, Any]) -> str:
    """The address with the rows' own names."""
    names = {name: str(row.pk) for name, row in found.items()}
    names |= {name: queries.shown_id(UUID(names[name])) for name in ("letter", "discarded")}
    names |= {name: shown_id(UUID(names[name])) for name in ("task", "pending")}
    return f"/ops/api/{path.format(**{**names, 'provider': found['provider'].name})}"


@pytest.fixture
def as_role(client: Client, django_user_model: Any) -> Any:
    roles.write()

    def headers(role: str) -> dict[str, str]:
        person = django_user_model.objects.create_user(role, is_staff=True)
        person.groups.add(Group.objects.get(name=role))
        return {"Authorization": f"Token {operator_tokens.create(user=person)[1]}"}

    return headers


@pytest.mark.parametrize("role", roles.ROLES)
def test_a_role_may_do_over_rest_what_it_is_for_and_nothing_else(
    client: Client, as_role: Any, rows: dict[str, Any], role: str
) -> None:
    headers = as_role(role)
    wrong = []
    for path, body, allowed in VERBS:
        response = client.post(addressed(path, rows), body, content_type="application/json", headers=headers)
        # What is allowed may still be refused for what it says or meets: 400 and 409, never 403.
        if (response.status_code != 403) != (role in allowed) or response.status_code in (401, 404, 405, 429, 500):
            wrong.append(f"{path}: {response.status_code}")
    assert wrong == []
    assert all(client.get(f"/ops/api/{path}/", headers=headers).status_code == 200 for path in LISTS)


def test_who_may_do_nothing_leaves_no_trace(client: Client, as_role: Any, rows: dict[str, Any]) -> None:
    headers, before = as_role(roles.VIEWER), AuditEntry.objects.count()
    for path, body, _ in VERBS:
        client.post(addressed(path, rows), body, content_type="application/json", headers=headers)
    assert AuditEntry.objects.count() == before


def test_the_table_names_every_role_somewhere() -> None:
    assert set().union(*(allowed for *_, allowed in VERBS), ADMINISTER, {roles.VIEWER}) == ALL
