"""No address of the operators' REST API changes a row on GET, whatever it is called and whoever added it."""

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver

from apps.access import audit, operator_tokens
from apps.completions.models import LedgerEntry
from apps.dead_letters.bulk import plan
from apps.dead_letters.models import Alert, BulkItem, DeadLetter, FailureGroup
from apps.providers import breaker_board
from apps.providers.models import Upstream
from apps.tasks.models import Task
from tests.architecture.test_admin_get_changes_nothing import one_of_each, patterns, rows

__all__ = ["one_of_each"]
PARAMETER = re.compile(r"\(\?P<(\w+)>(?:\[[^]]*\]|[^)])+\)")
MOST_QUERIES = 15


def ops_routes() -> list[str]:
    """Every address below /ops/api/ as a template, such as /ops/api/letters/<pk>/redrive/."""
    routes = [route for route, _ in patterns(get_resolver()) if route.startswith("ops/api/")]
    return ["/" + PARAMETER.sub(r"<\1>", route).replace("^", "").rstrip("$") for route in routes]


@pytest.fixture
def ids(one_of_each: Upstream, admin_user: Any) -> dict[str, str]:
    """By the name of a list the id of a row in it."""
    letter = DeadLetter.objects.get()
    operation = plan.create("redrive", groups=[letter.group_id])
    BulkItem.objects.create(
        operation_id=operation.pk, letter_id=letter.pk, task_id=letter.task_id, cycle=1, group_id=letter.group_id,
        state="pending",
    )  # fmt: skip
    alert = Alert.objects.create(event="new_group", severity="info", subject="f", title="A new group")
    return {
        "groups": FailureGroup.objects.get().pk,
        "letters": f"letter_{letter.pk.hex}",
        "bulk": str(operation.pk),
        "alerts": str(alert.pk),
        "audit": str(audit.record("test", letter).pk),
        "ledger": str(LedgerEntry.objects.get().pk),
        "breakers": one_of_each.provider.name,
        "tasks": f"task_{Task.objects.get().pk.hex}",
        "queues": "low",
    }


def filled(route: str, ids: dict[str, str]) -> str:
    """The address of the row that there is."""
    name = route.removeprefix("/ops/api/").split("/")[0]
    return re.sub(r"<\w+>", lambda _: ids[name], route)


def test_there_are_addresses_to_walk() -> None:
    routes = ops_routes()
    assert len(routes) > 40
    assert {"/ops/api/", "/ops/api/letters/<pk>/redrive/", "/ops/api/bulk/<pk>/start/"} <= set(routes)
    assert not any(mark in route for route in routes for mark in "^$()?")


@pytest.mark.django_db
def test_no_address_changes_a_row_or_a_breaker_on_get(
    admin_client: Client, admin_user: Any, one_of_each: Upstream, ids: dict[str, str]
) -> None:
    _, secret = operator_tokens.create(user=admin_user)
    script = Client(headers={"Authorization": f"Token {secret}"})
    before = rows()
    acts = 0
    for route in ops_routes():
        url = filled(route, ids)
        for client in (admin_client, script):
            for accept in ("application/json", "text/html,*/*;q=0.8"):
                for query in ({}, {"q": "state:open", "limit": "1", "confirm": "1", "reason": "r"}):
                    with CaptureQueriesContext(connection) as seen:
                        response = client.get(url, query, headers={"Accept": accept})
                    fine = {200, 400, 405} if query else {200, 405}  # lists refuse what they do not know
                    assert response.status_code in fine, f"{url}: {response.content!r}"
                    assert len(seen) <= MOST_QUERIES, f"{url}: {len(seen)} queries"
        acts += response.status_code == 405
        after = rows()
        assert after == before, f"GET {url} changed {[name for name in after if after[name] != before.get(name)]}"
    assert acts > 20
    assert breaker_board.load(provider=one_of_each.provider)[0].state == "open"


@pytest.mark.django_db
def test_no_address_tells_a_stranger_anything(client: Client, ids: dict[str, str]) -> None:
    before = rows()
    for number, route in enumerate(ops_routes()):
        for method in ("get", "post", "options"):
            address = f"192.0.2.{number}"
            response = getattr(client, method)(filled(route, ids), REMOTE_ADDR=address)
            assert response.status_code in {401, 405}, f"{method} {route}: {response.status_code}"
    assert rows() == before


@pytest.mark.django_db
@pytest.mark.parametrize("bad", ["0", "x", "%00", "a" * 300, "-1", "letter_%00"])
def test_an_id_that_is_none_is_no_fault_of_ours(admin_client: Client, ids: dict[str, str], bad: str) -> None:
    for route in ops_routes():
        if "<" in route:
            response = admin_client.get(re.sub(r"<\w+>", bad, route))
            assert response.status_code in {400, 404, 405}, f"{route}: {response.status_code}"
            assert set(response.json()["error"]) >= {"message", "code"}
